// Threat: a console of its own behind the gate decodes twice, folds case, cuts parameters or takes the first or last of
// two cookies. Every path is one wildcard route here, forwarded as it came; what counts is any reading of what arrived.

import { createServer, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import cookie from '@fastify/cookie'
import Fastify from 'fastify'
import t from 'tap'
import postern from '../../plugin/src/index.ts'
import { report } from '../helpers/attack.ts'
import { attack, type Logged } from '../helpers/attack-suite.ts'
import { binding, bindingName, identifyBySid, makeVerified } from '../helpers/console.ts'
import { startFakeService } from '../helpers/fake-service.ts'

t.setTimeout(600_000)

t.test('a console behind one wildcard route, read with every habit', { timeout: 600_000 }, async t => {
  const fake = await startFakeService(t)
  const log: Logged[] = []
  const upstream = createServer((request, response) => {
    log.push({ method: request.method ?? '', url: request.url ?? '', headers: { ...request.headers }, upgrade: false })
    request.resume()
    response.end('{}')
  })
  await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
  const { port: behind } = upstream.address() as AddressInfo
  const app = Fastify({ forceCloseConnections: true })
  await app.register(cookie)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, done) => { done(null, payload) })
  await app.register(postern, {
    service: fake.url,
    tenantKey: fake.tenantKey,
    publicOrigin: 'http://127.0.0.1:1',
    timeoutMs: 10_000,
    credentials: { cookies: ['sid'], headers: ['X-Api-Key'], query: ['token'] },
    identify: request => identifyBySid(request),
    stepUpPatterns: [{ pattern: '/settings/*', maxAge: 600 }],
    publicPatterns: ['/open']
  })
  app.all('/*', async (request, reply) => {
    const { method, url: path } = request.raw
    const { trailer, te, 'transfer-encoding': encoding, upgrade, expect, ...headers } = request.raw.headers
    const answer = await new Promise<number>((resolve, reject) => {
      const forwarded = send({ host: '127.0.0.1', port: behind, method, path, headers: { ...headers, connection: 'close' } }, response => {
        response.resume().on('end', () => { resolve(response.statusCode ?? 502) })
      }).on('error', reject)
      if (request.body instanceof Readable) request.body.pipe(forwarded)
      else forwarded.end()
    }).catch(() => 502)
    return await reply.code(answer).send({})
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(async () => {
    await app.close()
    upstream.close()
    // Requests that were cut short keep their sockets open.
    upstream.closeAllConnections()
  })
  const browser = binding('the attacker\'s own')
  makeVerified(fake, 'eve.1', browser)
  makeVerified(fake, 'ann.1', browser, 1)
  const line = (sid: string): string => `Cookie: sid=${sid}; ${bindingName()}=${browser}`
  report(await attack(t, {
    name: 'one wildcard route',
    base: '',
    port: (app.server.address() as AddressInfo).port,
    log,
    cookie: 'sid',
    unverified: line('vic.1'),
    verified: line('eve.1'),
    fresh: line('ann.1'),
    ids: { unverified: 'vic.1', verified: 'eve.1', fresh: 'ann.1', binding: `${bindingName()}=${browser}` },
    proxied: false,
    below: true,
    open: '/open',
    sockets: false
  }))
})
