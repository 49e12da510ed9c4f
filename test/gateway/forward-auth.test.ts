// The preset forward-auth: real nginx and real Caddy, configured as the examples say, ask before they forward.

import { readFileSync } from 'node:fs'
import { chromium } from 'playwright-core'
import t from 'tap'
import { WebSocket } from 'ws'
import { parse } from 'yaml'
import { readConfig } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { binding, lines, raw } from '../helpers/console.ts'
import { bindingCookie, served, startGateway, wire } from '../helpers/gateway.ts'
import { FORWARD_AUTH, PROXIES, startCookieConsole, startProxy, type ProxyName } from '../helpers/proxies.ts'
import { freePort } from '../helpers/redis.ts'
import { by, startService, type Teardown } from '../helpers/service.ts'
import { tool } from '../helpers/tools.ts'

const SETTINGS = {
  ...FORWARD_AUTH,
  POSTERN_GATEWAY_STEP_UP_PATTERNS: 'POST /settings, GET /export 0',
  POSTERN_GATEWAY_FORWARD_AUTH_LOGOUT: 'POST /logout'
}

const KEY = 'pk_t1_g1_AAAAAAAAAAAAAAAAAAAAAAAA'

const BROWSER = binding('a browser')

async function setting (t: Teardown, proxy?: ProxyName, env: Readonly<Record<string, string>> = {}) {
  const [service, behind, port] = await Promise.all([startService(t), startCookieConsole(t), freePort()])
  const origin = `http://127.0.0.1:${port}`
  const gateway = await startGateway(t, {
    upstream: behind.url,
    service: await served(service),
    key: service.keys.gate.key,
    preset: 'forward-auth',
    env: { ...SETTINGS, POSTERN_GATEWAY_PUBLIC_ORIGIN: origin, ...env }
  })
  if (proxy !== undefined) await startProxy(t, proxy, { port, gateway: gateway.url, behind: behind.url })
  const { key } = await service.enrol(by('alice'), { about: { email: 'alice@console.example' } })
  return { service, behind, gateway, origin, port, code: () => { service.nextStep(); return service.code(key) } }
}

for (const proxy of PROXIES) {
  t.test(`behind ${proxy} a browser logs in, verifies, gets the page it asked for, and changes settings with a fresh code`, {
    timeout: 120_000
  }, async t => {
    const { service, behind, origin, code } = await setting(t, proxy)
    const browser = await chromium.launch({ executablePath: tool('chromium'), args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage'] })
    t.teardown(async () => { await browser.close() })
    const context = await browser.newContext({ baseURL: origin, locale: 'en-US' })
    context.setDefaultTimeout(20_000)
    const page = await context.newPage()
    const heading = async (): Promise<string> => await page.getByRole('heading', { level: 1 }).innerText()
    const enter = async (): Promise<void> => {
      await page.locator('[autocomplete=one-time-code]').fill(code())
      await page.getByRole('button', { name: /^Verify/ }).click()
    }

    await page.goto('/')
    t.equal(await heading(), 'Log in', 'who is nobody gets the console\'s own log-in page')
    await page.getByLabel('Name').fill('alice')
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.waitForURL(/\/2fa\/verify\//)
    t.same(behind.log.filter(one => one.url.startsWith('/devices')), [], 'the console has not heard of the page')
    const script = await context.request.get('/devices', { headers: { accept: '*/*' } })
    t.equal(script.status(), 401)
    t.match(await script.json(), { code: 'login_required', verify_url: '/2fa/verify' }, 'a script gets a problem document')
    await enter()
    await page.waitForURL(`${origin}/devices?page=2`)
    t.equal(await heading(), 'Hello alice')

    const echoed = await page.evaluate<unknown>(`new Promise((resolve, reject) => {
      const socket = new WebSocket(location.origin.replace('http', 'ws') + '/live')
      socket.onopen = () => socket.send('hello')
      socket.onmessage = event => resolve(event.data)
      socket.onerror = () => reject(new Error('no socket'))
    })`)
    t.equal(echoed, 'echo hello', 'a WebSocket passes')

    service.advance(1_000_000)
    await page.goto('/settings')
    await page.getByLabel('Display name').fill('Ann')
    await page.getByRole('button', { name: 'Save' }).click()
    t.equal(await heading(), 'Verify first', 'a form cannot be carried through the proxy, and the page says so')
    t.equal(behind.kept.name, 'nothing')
    await page.getByRole('link', { name: 'Verify now' }).click()
    await enter()
    await page.waitForURL(url => !url.pathname.startsWith('/2fa/'))
    await page.goto('/settings')
    await page.getByLabel('Display name').fill('Ann')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByRole('heading', { name: 'Saved' }).waitFor()
    t.equal(behind.kept.name, 'Ann', 'sent again after a fresh code it passes')

    await page.goto('/2fa/settings')
    t.match(page.url(), /\/2fa\/settings$/, 'the settings page is there')
    await context.request.post('/logout')
    await page.goto('/devices')
    t.match(page.url(), /\/2fa\/verify\//, 'after the log-out call the session has passed nothing')
  })

  t.test(`behind ${proxy} a script is told that its code was wrong, and passes with the right one`, async t => {
    const { behind, service, origin, code } = await setting(t, proxy)
    const cookie = `sid=s1; ${bindingCookie(BROWSER)}`
    behind.sessions.set('s1', 'alice')
    await service.verify(wire('alice', 'cookie', 's1', BROWSER), 'login', code())
    const save = async (sent: string) => await fetch(`${origin}/settings`, {
      method: 'POST', headers: { cookie, origin, ...(sent === '' ? {} : { '2fa-code': sent }) }, body: new URLSearchParams({ name: 'Ann' })
    })
    service.advance(1_000_000)
    for (const [sent, expected] of [['', 'step_up_required'], ['000000', 'code_rejected'], ['nothing like it', 'code_malformed']] as const) {
      const answer = await save(sent)
      t.equal(answer.status, 401)
      t.match(await answer.json(), { code: expected, verify_url: /^\/2fa\/verify\// }, `with "${sent}"`)
    }
    t.equal(behind.kept.name, 'nothing')
    t.equal((await save(code())).status, 200)
    t.equal(behind.kept.name, 'Ann')
  })

  t.test(`behind ${proxy} no socket of another origin, no other protocol and no header of the client gets past`, async t => {
    const { service, behind, origin, port } = await setting(t, proxy)
    behind.sessions.set('s1', 'alice')
    behind.sessions.set('s2', 'bob')
    await service.enrol(by('bob'))
    const socket = async (headers: Record<string, string>): Promise<number> => await new Promise(resolve => {
      const one = new WebSocket(`${origin.replace('http', 'ws')}/live`, { headers })
      one.on('open', () => { resolve(101); one.terminate() })
      one.on('unexpected-response', (_request, response) => { resolve(response.statusCode ?? 0); response.resume() })
      one.on('error', () => {})
    })
    t.equal(await socket({ cookie: 'sid=s1' }), 401)
    t.equal(await socket({ cookie: 'sid=unknown' }), 101, 'a session of nobody gets what an anonymous one gets')
    t.equal(await socket({ cookie: 'sid=unknown', origin: 'https://evil.example' }), 403)
    behind.log.length = 0
    const get = async (path: string, ...headers: string[]) => (await raw(port, lines('GET', path, [`Cookie: ${'sid=s1'}`, ...headers]))).status
    t.equal(await get('/devices', 'X-Forwarded-Uri: /login', 'X-Forwarded-Method: OPTIONS'), 401)
    t.equal(await get('/devices', 'Connection: Upgrade', 'Upgrade: h2c'), 401)
    t.equal((await raw(port, lines('GET', '/postern-ask'))).status, proxy === 'nginx' ? 404 : 303, 'the location that asks is internal')
    for (const path of ['/forward-auth', '/forward-auth/ask', '/forward-auth/explain', '/2fa/../forward-auth', '/2FA/verify', '/2fa/%2e%2e/devices']) {
      t.ok(await get(path, 'X-Forwarded-Uri: /login', 'X-Forwarded-Method: GET') >= 400, path)
    }
    t.same(behind.log.filter(one => one.url !== '/postern-ask'), [])
    await raw(port, lines('GET', '/login', ['X-Forwarded-Uri: /admin', 'X-Forwarded-Method: DELETE', 'X-Forwarded-For: 9.9.9.9', 'X-Forwarded-Host: evil.example', 'Forwarded: for=9.9.9.9', 'X-Real-IP: 9.9.9.9', '2fa-code: 123456']))
    const heard = behind.log.at(-1)?.headers ?? {}
    t.equal(heard['x-forwarded-for'], '127.0.0.1')
    t.notMatch(JSON.stringify(heard), /9\.9\.9\.9|evil|admin|DELETE|123456/)
    t.equal((await raw(port, lines('GET', '/login', ['X-Original-URL: /admin']))).status, 400)
  })
}

t.test('only trusted addresses may ask, with exactly one method, target and host, for paths that have one reading', async t => {
  const { behind, gateway, port } = await setting(t)
  behind.sessions.set('s1', 'alice')
  const about = (method: string, target: string): string[] => [`X-Forwarded-Method: ${method}`, `X-Forwarded-Uri: ${target}`, `X-Forwarded-Host: 127.0.0.1:${port}`]
  const ask = async (headers: readonly string[], path = '/forward-auth') => await raw(gateway.port, lines('GET', path, headers))
  t.equal((await ask(about('GET', '/login'))).status, 204)
  t.equal((await ask(about('HEAD', '/login'))).status, 204)
  const unverified = await ask([...about('GET', '/devices'), 'Cookie: sid=s1', 'Accept: text/html'])
  t.equal(unverified.status, 303)
  t.match(unverified.headers.location, new RegExp(`^http://127\\.0\\.0\\.1:${port}/2fa/verify/`), 'with its origin, because Traefik takes a relative one for the gateway\'s')
  const verdict = await ask([...about('GET', '/devices'), 'Cookie: sid=s1', 'Accept: text/html'], '/forward-auth/ask')
  t.same([verdict.status, verdict.body], [401, ''])
  t.equal((await ask(about('GET', '/login'), '/forward-auth/explain')).status, 303, 'who may pass by now asks again')
  t.equal((await ask(about('POST', '/login'), '/forward-auth/explain')).status, 503)

  for (const target of ['//devices', '/a/../login', '/a%2flogin', '/login;x', 'http://x/login', '/2fa/postern.js', '/2FA/x', '/forward-auth', '']) {
    for (const path of ['/forward-auth', '/forward-auth/ask', '/forward-auth/explain']) {
      const { status } = await ask(about('GET', target), path)
      t.ok(status === 400 || status === 403, `${target} at ${path}: ${status}`)
    }
  }
  const [method = '', uri = '', host = ''] = about('GET', '/login')
  for (const headers of [[uri, host], [method, host], [method, uri], [method, uri, uri, host], [method, method, uri, host], [method, uri, host, 'X_Forwarded_Uri: /x'],
    ['X-Forwarded-Method: get', uri, host], [method, uri, 'X-Forwarded-Host: evil.example'], [method, uri, host, 'X-HTTP-Method-Override: DELETE']]) {
    t.equal((await ask(headers)).status, 400, headers.join(', '))
  }
  t.equal((await ask([...about('TRACE', '/login')])).status, 400)
  t.equal((await ask([...about('GET', '/login'), 'Authorization: Bearer of-nobody'])).status, 401, 'the console would get it as it came')
  t.equal((await raw(gateway.port, lines('GET', '/login'))).status, 404, 'nothing is passed on by the gateway')

  const distrustful = await startGateway(t, {
    upstream: behind.url,
    service: 'http://127.0.0.1:1',
    key: KEY,
    preset: 'forward-auth',
    env: { ...SETTINGS, POSTERN_GATEWAY_PUBLIC_ORIGIN: `http://127.0.0.1:${port}`, POSTERN_GATEWAY_TRUSTED_PROXIES: '10.1.2.0/24, ::1' }
  })
  for (const path of ['/forward-auth', '/forward-auth/ask', '/forward-auth/explain']) {
    t.equal((await raw(distrustful.port, lines('GET', path, [...about('GET', '/login'), 'X-Forwarded-For: 10.1.2.3']))).status, 403, path)
  }
})

/**
 * How Traefik asks: always with a GET, all headers of the client but those of the connection, its own X-Forwarded-* in
 * their place. What is not a 2xx goes to the client with status, headers and body.
 */
async function asTraefik (gateway: number, host: string, method: string, target: string, headers: readonly string[]) {
  const own = new Set(['connection', 'upgrade', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'content-length',
    'x-forwarded-for', 'x-forwarded-method', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-uri'])
  return await raw(gateway, lines('GET', '/forward-auth', [
    ...headers.filter(line => !own.has(line.split(':')[0]?.toLowerCase() ?? '')),
    'X-Forwarded-For: 127.0.0.1', `X-Forwarded-Method: ${method}`, 'X-Forwarded-Proto: http', `X-Forwarded-Host: ${host}`, `X-Forwarded-Uri: ${target}`
  ]))
}

t.test('asked as Traefik asks, the gateway says yes, or what the client is to get', async t => {
  const { service, behind, gateway, origin, port, code } = await setting(t)
  behind.sessions.set('s1', 'alice')
  const ask = async (method: string, target: string, ...headers: string[]) =>
    await asTraefik(gateway.port, `127.0.0.1:${port}`, method, target, headers)
  const cookie = `Cookie: sid=s1; ${bindingCookie(BROWSER)}`
  t.equal((await ask('GET', '/login')).status, 204)
  t.equal((await ask('POST', '/login', 'Content-Type: application/x-www-form-urlencoded', 'Content-Length: 9')).status, 204)
  const page = await ask('GET', '/devices?page=2', cookie, 'Accept: text/html')
  t.equal(page.status, 303)
  t.match(page.headers, { location: new RegExp(`^${origin}/2fa/verify/`), 'set-cookie': /postern-/ }, 'both go to the client')
  const script = await ask('GET', '/devices', cookie, 'Accept: application/json')
  t.equal(script.status, 401)
  t.match(JSON.parse(script.body), { code: 'login_required' })
  t.equal((await ask('GET', '/devices', cookie, 'X-Forwarded-Uri: /login', 'X-Forwarded-Method: OPTIONS')).status, 401, 'the client\'s own are not believed')
  const handshake = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']
  t.equal((await ask('GET', '/live', ...handshake, 'Origin: https://evil.example')).status, 403)
  t.equal((await ask('GET', '/live', ...handshake, `Origin: ${origin}`)).status, 204, 'a handshake, whose Upgrade Traefik keeps for itself')

  await service.verify(wire('alice', 'cookie', 's1', BROWSER), 'login', code())
  t.equal((await ask('GET', '/devices', cookie)).status, 204)
  service.advance(1_000_000)
  const save = async (...more: string[]) => await ask('POST', '/settings', cookie, `Origin: ${origin}`, 'Content-Type: application/x-www-form-urlencoded', ...more)
  const stale = await save()
  t.match([stale.status, stale.headers['www-authenticate']], [401, /insufficient_user_authentication/])
  t.match(JSON.parse((await save('2fa-code: 000000')).body), { code: 'code_rejected' })
  t.equal((await save(`2fa-code: ${code()}`)).status, 204)
})

t.test('the example for Traefik asks before anything else, believes no client, and has a router for the pages', async t => {
  const text = (name: string): string => readFileSync(new URL(`../../examples/traefik/${name}`, import.meta.url), 'utf8')
  const { http } = parse(text('dynamic.yaml')) as {
    http: {
      routers: Record<string, { rule: string, service: string, middlewares?: string[] }>
      middlewares: Record<string, { forwardAuth?: Record<string, unknown> }>
      services: Record<string, unknown>
    }
  }
  const { pages, console } = http.routers
  t.match(pages, { rule: 'PathPrefix(`/2fa/`)', service: 'gateway' })
  t.equal(pages?.middlewares, undefined)
  const [first = ''] = console?.middlewares ?? []
  t.same(http.middlewares[first]?.forwardAuth, { address: 'http://127.0.0.1:8080/forward-auth', trustForwardHeader: false })
  for (const { service, middlewares = [] } of Object.values(http.routers)) {
    t.ok(http.services[service], service)
    for (const one of middlewares) t.ok(http.middlewares[one], one)
  }
  t.match(parse(text('traefik.yaml')), { entryPoints: { web: { address: '127.0.0.1:8000' } }, providers: { file: { filename: 'dynamic.yaml' } } })
})

t.test('a session that was seen with nobody and then has somebody is refused, because the console would get it', async t => {
  const { behind, gateway, port } = await setting(t)
  const ask = async () => (await raw(gateway.port, lines('GET', '/forward-auth', [
    'X-Forwarded-Method: GET', 'X-Forwarded-Uri: /devices', `X-Forwarded-Host: 127.0.0.1:${port}`, 'Cookie: sid=planted'
  ]))).status
  t.equal(await ask(), 204)
  behind.sessions.set('planted', 'alice')
  t.equal(await ask(), 401)
})

t.test('who a session belongs to is remembered for the seconds that are set, another session is asked about at once', async t => {
  const { behind, gateway, port } = await setting(t, undefined, { POSTERN_GATEWAY_FORWARD_AUTH_WHO_SECONDS: '300' })
  const ask = async (sid: string, method = 'GET') => (await raw(gateway.port, lines('GET', '/forward-auth', [
    `X-Forwarded-Method: ${method}`, 'X-Forwarded-Uri: /devices', `X-Forwarded-Host: 127.0.0.1:${port}`, `Cookie: sid=${sid}`
  ]))).status
  behind.sessions.set('s1', 'bob').set('s2', 'alice')
  t.equal(await ask('s1'), 204)
  t.equal(await ask('s2'), 401, 'the cookie of another session in the same browser')
  behind.sessions.delete('s2')
  t.equal(await ask('s2'), 401, 'still taken for hers: the gateway did not hear that it ended')
  behind.sessions.set('s1', 'alice')
  t.equal(await ask('s1', 'POST'), 204, 'a call that may change who is logged in')
  t.equal(await ask('s1'), 401, 'makes the gateway ask anew')
})

t.test('the preset names what is missing: the proxies that may ask, a call that says who is logged in', async t => {
  const start = async (env: Record<string, string>): Promise<unknown> => await startGateway(t, {
    upstream: 'http://127.0.0.1:1', service: 'http://127.0.0.1:1', key: KEY, preset: 'forward-auth', env
  })
  await t.rejects(start({ ...SETTINGS, POSTERN_GATEWAY_TRUSTED_PROXIES: '', POSTERN_GATEWAY_FORWARD_AUTH_PATH: '/2fa/ask' }), /TRUSTED_PROXIES must name[^]*|FORWARD_AUTH_PATH must be/)
  await t.rejects(start({ POSTERN_GATEWAY_TRUSTED_PROXIES: '127.0.0.1' }), /FORWARD_AUTH_WHO is missing/)
  t.throws(() => readConfig({ POSTERN_GATEWAY_PRESET: 'generic', POSTERN_GATEWAY_FORWARD_AUTH_COOKIE: 'x' }, PRESETS), /is a setting of the preset "forward-auth"/)
})
