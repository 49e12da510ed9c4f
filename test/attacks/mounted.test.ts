// Threat: any request that the gate and the console read differently. Every spelling, in bytes, against a console that
// mounts the plugin: at the root and below a prefix, with a strict and with a lenient router.

import type { AddressInfo } from 'node:net'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import t from 'tap'
import postern from '../../plugin/src/index.ts'
import { report, type Row } from '../helpers/attack.ts'
import { attack, type Logged } from '../helpers/attack-suite.ts'
import { binding, bindingName, identifyBySid, makeVerified } from '../helpers/console.ts'
import { startFakeService } from '../helpers/fake-service.ts'

const consoles = [
  { name: 'mounted at /', base: '', routerOptions: {}, ungated: false },
  { name: 'a console whose gate only observes', base: '', routerOptions: {}, ungated: true },
  {
    name: 'mounted at /app, lenient router',
    base: '/app',
    routerOptions: {
      caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, useSemicolonDelimiter: true
    },
    ungated: false
  }
]

const rows: Row[] = []
t.setTimeout(600_000)

for (const { name, base, routerOptions, ungated } of consoles) {
  t.test(name, { timeout: 600_000 }, async t => {
    const fake = await startFakeService(t)
    const log: Logged[] = []
    const hit = (route: string) => (request: FastifyRequest): unknown => {
      log.push({ route, method: request.method, url: request.raw.url ?? '', headers: { ...request.headers }, upgrade: false })
      return { route }
    }
    const app = Fastify({ forceCloseConnections: true, routerOptions })
    await app.register(cookie)
    await app.register(formbody)
    await app.register(postern, {
      service: fake.url,
      tenantKey: fake.tenantKey,
      publicOrigin: 'http://127.0.0.1:1',
      prefix: `${base}/2fa`,
      timeoutMs: 10_000,
      mode: ungated ? 'observe' : 'enforce',
      credentials: { cookies: ['sid'], headers: ['X-Api-Key'], query: ['token'] },
      identify: request => identifyBySid(request),
      stepUpPatterns: [`${base}/pages/settings`, `${base}/files/settings/*`]
    })
    const routes = async (scope: FastifyInstance): Promise<void> => {
      scope.get('/open', { config: { postern: { public: true } } }, hit('open'))
      scope.get('/protected', hit('protected'))
      scope.post('/protected', hit('protected'))
      scope.get('/settings', { config: { postern: { stepUp: true } } }, hit('sensitive'))
      scope.post('/settings', { config: { postern: { stepUp: { maxAge: 600 } } } }, hit('sensitive'))
      scope.options('/settings', { config: { postern: { stepUp: true } } }, hit('sensitive'))
      scope.all('/pages/:page', async request => hit(Reflect.get(Object(request.params), 'page') === 'settings' ? 'sensitive' : 'protected')(request))
      scope.all('/files/*', async request => hit(/settings/i.test(request.url) ? 'sensitive' : 'protected')(request))
      scope.setNotFoundHandler((request, reply) => {
        hit('not found')(request)
        reply.code(404).send({})
      })
    }
    if (base === '') await routes(app)
    else await app.register(routes, { prefix: base })
    app.server.on('upgrade', (request, socket) => {
      log.push({ method: 'GET', url: request.url ?? '', headers: { ...request.headers }, upgrade: true })
      socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    t.teardown(async () => { await app.close() })
    const browser = binding('the attacker\'s own')
    makeVerified(fake, 'eve.1', browser)
    makeVerified(fake, 'ann.1', browser, 1)
    const line = (sid: string): string => `Cookie: sid=${sid}; ${bindingName()}=${browser}`
    rows.push(...await attack(t, {
      name,
      base,
      port: (app.server.address() as AddressInfo).port,
      log,
      cookie: 'sid',
      unverified: line('vic.1'),
      verified: line('eve.1'),
      fresh: line('ann.1'),
      ids: { unverified: 'vic.1', verified: 'eve.1', fresh: 'ann.1', binding: `${bindingName()}=${browser}` },
      proxied: false,
      below: false,
      open: `${base}/open`,
      sockets: true,
      ungated
    }))
  })
}

t.teardown(() => { report(rows) })
