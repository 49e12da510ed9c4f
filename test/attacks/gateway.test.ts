// The attacks of the table against the gateway, once for each preset: what counts is what the console behind it saw.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { report } from '../helpers/attack.ts'
import { attack, type Logged } from '../helpers/attack-suite.ts'
import { binding, bindingName, makeVerified } from '../helpers/console.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import { startGateway } from '../helpers/gateway.ts'

t.setTimeout(600_000)

const BROWSER = binding('the attacker\'s own')
const BOUND = `${bindingName()}=${BROWSER}`

interface Known {
  /** Whose a token is, the gateway only knows from its login. */
  readonly loginFirst?: true
  readonly env?: Readonly<Record<string, string>>
  readonly kind: string
  readonly credential: (id: string) => string
  readonly cookie?: string
  readonly headers: readonly string[]
  /** The gateway's own question, and the console's answer. */
  readonly who: string
  readonly says: (id: string | undefined) => string
}

const named = (text: string | undefined): string | undefined => /(?:vic|eve|ann)\w*/.exec(text ?? '')?.[0]
const client = (id: string | undefined): string => JSON.stringify(id === undefined ? {} : { name: id })
const TOKENS: Omit<Known, 'credential'> = { kind: 'bearer', headers: ['authorization'], who: '/api/currentUser', says: client }

const PRESETS: Readonly<Record<string, Known>> = {
  generic: {
    env: { POSTERN_GATEWAY_GENERIC_COOKIE: 'sid', POSTERN_GATEWAY_GENERIC_TOKEN_HEADER: 'X-Api-Key', POSTERN_GATEWAY_GENERIC_WHO: 'GET /me' },
    kind: 'cookie',
    credential: id => `Cookie: sid=${id}; ${BOUND}`,
    cookie: 'sid',
    headers: ['authorization', 'x_api_key'],
    who: '/me',
    says: id => JSON.stringify({ id })
  },
  rustdesk: { ...TOKENS, credential: id => `Authorization: Bearer ${id}` },
  lantongxue: { ...TOKENS, loginFirst: true, credential: id => `Authorization: Bearer ${id}` },
  lejianwen: { ...TOKENS, headers: ['authorization', 'api_token'], credential: id => `api-token: ${id}` },
  kingmo888: {
    kind: 'cookie',
    credential: id => `Cookie: sessionid=${id}; ${BOUND}`,
    cookie: 'sessionid',
    headers: ['authorization'],
    who: '/api/work',
    says: id => `<div>【name:${id ?? ''}】</div>`
  }
}

for (const [preset, known] of Object.entries(PRESETS)) {
  t.test(`the gateway with the preset ${preset}`, { timeout: 600_000 }, async t => {
    const fake = await startFakeService(t)
    const log: Logged[] = []
    const upstream = createServer((request, response) => {
      const { method = '', url = '', headers } = request
      request.resume()
      if (url === known.who || url === '/api/currentUser') {
        const id = named(headers.cookie) ?? named(headers.authorization) ?? named(String(headers['x-api-key'] ?? ''))
        response.writeHead(id === undefined ? 401 : 200, { 'content-type': 'text/html; charset=utf-8' }).end(url === known.who ? known.says(id) : client(id))
        return
      }
      if (url === '/api/login') {
        response.end(JSON.stringify({ access_token: headers['x-token'], user: { name: 'somebody' } }))
        return
      }
      log.push({ method, url, headers: { ...headers }, upgrade: false })
      response.end('{}')
    })
    upstream.on('upgrade', ({ method = '', url = '', headers }, socket) => {
      log.push({ method, url, headers: { ...headers }, upgrade: true })
      socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')
    })
    await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
    t.teardown(() => {
      upstream.closeAllConnections()
      upstream.close()
    })
    const { port } = await startGateway(t, {
      upstream: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`,
      service: fake.url,
      key: fake.tenantKey,
      preset,
      env: {
        POSTERN_GATEWAY_STEP_UP_PATTERNS: '/settings/*',
        POSTERN_GATEWAY_PUBLIC_PATTERNS: '/open',
        ...known.env
      }
    })
    const [vic, eve, ann] = ['vic', 'eve', 'ann'].map(name => `${name}00000000000000001`) as [string, string, string]
    for (const id of known.loginFirst === true ? [vic, eve, ann] : []) {
      await fetch(`http://127.0.0.1:${port}/api/login`, { method: 'POST', headers: { 'x-token': id }, body: JSON.stringify({ username: id }) })
    }
    const browser = known.kind === 'cookie' ? BROWSER : ''
    makeVerified(fake, eve, browser, undefined, known.kind)
    makeVerified(fake, ann, browser, 1, known.kind)
    const rows = await attack(t, {
      name: preset,
      base: '',
      port,
      log,
      // A console of tokens has a cookie too, which it never reads.
      cookie: known.cookie ?? 'sid',
      reads: { cookie: known.cookie, headers: known.headers, query: ['access_token'] },
      unverified: known.credential(vic),
      verified: known.credential(eve),
      fresh: known.credential(ann),
      ids: { unverified: vic, verified: eve, fresh: ann, binding: BOUND },
      proxied: true,
      below: true,
      open: '/open',
      sockets: true,
      openToSockets: true,
      oneIn: preset === 'generic' ? 1 : 4
    })
    report(rows)
  })
}
