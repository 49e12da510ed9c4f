// Threat: an upgrade goes past every hook of a console, and a socket outlives the verification that opened it.

import { once } from 'node:events'
import http2 from 'node:http2'
import { connect, type AddressInfo, type Socket } from 'node:net'
import cookie from '@fastify/cookie'
import session from '@fastify/session'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import postern from '../../plugin/src/index.ts'
import { binding, bindingName, cookies, identifyBySid, lines, makeVerified, raw, startConsole } from '../helpers/console.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import type { Teardown } from '../helpers/service.ts'

const BROWSER = binding('mine')
const ORIGIN = 'Origin: http://127.0.0.1:1'
const upgrade = (target: string, headers: readonly string[], method = 'GET'): string =>
  lines(method, target, ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', ...headers])
    .replace('Connection: close\r\n', '')

async function withSockets (t: Teardown, more: object = {}) {
  const fake = await startFakeService(t)
  const opened: string[] = []
  const console = await startConsole(t, {
    service: { url: fake.url, tenantKey: fake.tenantKey },
    after: (app: FastifyInstance) => {
      const server = new WebSocketServer({ noServer: true })
      app.server.on('upgrade', (request, socket, head) => {
        opened.push(request.url ?? '')
        server.handleUpgrade(request, socket, head, one => { one.on('message', data => { one.send(String(data)) }) })
      })
    },
    ...more
  })
  return { fake, console, opened }
}

async function open (port: number, path: string, cookieLine: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers: { cookie: cookieLine.slice('Cookie: '.length) } })
  await once(socket, 'open')
  return socket
}

t.test('an upgrade asks for what a request of its path would, and more', async t => {
  const { fake, console, opened } = await withSockets(t)
  makeVerified(fake, 'ann.1', BROWSER)
  makeVerified(fake, 'eve.1', BROWSER, 1)
  const ask = async (target: string, headers: readonly string[], method?: string): Promise<number> =>
    (await raw(console.port, upgrade(target, headers, method))).status
  t.equal(await ask('/live', [cookies('bob.1', BROWSER), ORIGIN]), 401, 'nothing passed')
  t.equal(await ask('/', [cookies('bob.1', BROWSER), ORIGIN]), 401, 'what is public for requests is not for sockets')
  t.equal(await ask('/live', [cookies('ann.1', binding('other')), ORIGIN]), 401, 'another browser')
  for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1:1.evil.example', 'http://127.0.0.1:2', `${ORIGIN.slice(8)}, x`]) {
    t.equal(await ask('/live', [cookies('ann.1', BROWSER), `Origin: ${origin}`]), 403, `from ${origin}`)
  }
  for (const target of ['/settings', '/SETTINGS', '/settings/', '/%73ettings']) {
    t.equal(await ask(target, [cookies('ann.1', BROWSER), ORIGIN]), 401, `${target} needs a step-up`)
  }
  for (const target of ['//settings', '/settings;a', '/x/../settings', '/x/%2e%2e/settings', '/%2573ettings', '/settings%00', '/settings#', 'http://x/settings', '*']) {
    t.equal(await ask(target, [cookies('eve.1', BROWSER), ORIGIN]), 400, `${target} is read in two ways`)
  }
  for (const method of ['POST', 'HEAD', 'OPTIONS', 'PUT']) {
    t.equal(await ask('/live', [cookies('ann.1', BROWSER), ORIGIN], method), 400, `an upgrade with ${method}`)
  }
  t.same(opened, [])
  t.equal(await ask('/live', [cookies('ann.1', BROWSER), ORIGIN]), 101)
  t.equal(await ask('/live?x=1', [cookies('ann.1', BROWSER)]), 101, 'a native client names no origin')
  t.equal(await ask('/settings', [cookies('eve.1', BROWSER), ORIGIN]), 101, 'with a fresh step-up')
  t.same(opened, ['/live', '/live?x=1', '/settings'])
})

t.test('a session plugin sees the path of the upgrade: one that loads sessions below a path is not passed by', async t => {
  const fake = await startFakeService(t)
  const app = Fastify({ forceCloseConnections: true })
  const opened: string[] = []
  await app.register(cookie)
  await app.register(session, { secret: 'x'.repeat(32), cookieName: 'session', cookie: { secure: false, path: '/app' } })
  await app.register(postern, {
    service: fake.url,
    tenantKey: fake.tenantKey,
    publicOrigin: 'http://127.0.0.1:1',
    credentials: { cookies: ['session'] },
    identify: request => {
      const user: unknown = Reflect.get(request.session ?? {}, 'user')
      return typeof user === 'string' ? { subject: user, session: request.session.sessionId, kind: 'cookie' } : null
    }
  })
  app.get('/app/login', async request => {
    Reflect.set(request.session, 'user', 'ann')
    return {}
  })
  app.server.on('upgrade', (request, socket) => {
    opened.push(request.url ?? '')
    socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(async () => { await app.close() })
  const { port } = app.server.address() as AddressInfo
  const login = await raw(port, lines('GET', '/app/login'))
  const mine = `Cookie: ${login.cookies[0]?.split(';')[0] ?? ''}`
  t.equal((await raw(port, upgrade('/app/live', [mine]))).status, 401, 'the password alone opens no socket')
  t.equal((await raw(port, upgrade('/elsewhere', [mine]))).status, 401, 'nor where the console finds nobody in a cookie that came along')
  t.same(opened, [])
})

t.test('a host name with several addresses is gated on each', async t => {
  const { fake, console, opened } = await withSockets(t, { listen: false })
  await console.app.listen({ port: 0, host: 'localhost' })
  const addresses = console.app.addresses()
  for (const one of addresses) {
    if (typeof one === 'string') continue
    const { address, port } = one
    const status = await new Promise<string>(resolve => {
      const socket: Socket = connect(port, address, () => { socket.write(upgrade('/live', [cookies('bob.1')])) })
      socket.once('data', data => {
        resolve(data.toString('latin1').slice(9, 12))
        socket.destroy()
      })
    })
    t.equal(status, '401', address)
  }
  t.same(opened, [])
  t.ok(fake.questions() >= addresses.length)
})

t.test('an open socket is closed within 5 seconds of its assurance ending, with the stream and without', async t => {
  for (const stream of [true, false]) {
    const { fake, console } = await withSockets(t)
    fake.state.frozen = !stream
    for (const sid of ['ann.1', 'eve.1']) makeVerified(fake, sid, BROWSER)
    const ended = await open(console.port, '/live', cookies('ann.1', BROWSER))
    const other = await open(console.port, '/live', cookies('eve.1', BROWSER))
    other.send('a')
    t.equal(String((await once(other, 'message'))[0]), 'a')
    while (console.app.postern.live() !== stream) await new Promise(resolve => { setImmediate(resolve) })
    const start = performance.now()
    for (const name of fake.passed.keys()) if (fake.passed.get(name)?.subject === 'ann') fake.passed.delete(name)
    fake.change('subject', 'ann')
    await once(ended, 'close')
    const took = performance.now() - start
    t.ok(took < 5_000, `${stream ? 'with' : 'without'} the stream: ${Math.round(took)} ms`)
    other.send('b')
    t.equal(String((await once(other, 'message'))[0]), 'b', 'another user goes on')
    other.terminate()
  }
})

t.test('a socket without a listener, a tunnel and a second listener for requests are no way round', async t => {
  const fake = await startFakeService(t)
  const console = await startConsole(t, { service: { url: fake.url, tenantKey: fake.tenantKey } })
  makeVerified(fake, 'ann.1', BROWSER)
  console.app.server.emit('connect', {}, connect(console.port, '127.0.0.1'), Buffer.alloc(0))
  t.equal((await raw(console.port, 'CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n', 1500)).status, 0)
  for (const event of ['request', 'checkContinue', 'checkExpectation']) {
    t.throws(() => console.app.server.on(event, () => {}), /beside Fastify/, event)
  }
  t.equal((await raw(console.port, upgrade('/protected', [cookies('bob.1')]))).status, 401, 'nobody listens: an ordinary request')
  t.same(console.hits, [])
})

t.test('over HTTP/2 cookies may come in lines of their own, and two sessions are refused all the same', async t => {
  const fake = await startFakeService(t)
  const app = Fastify({ http2: true })
  let hits = 0
  await app.register(cookie)
  await app.register(postern as never, {
    service: fake.url,
    tenantKey: fake.tenantKey,
    publicOrigin: 'http://127.0.0.1:1',
    credentials: { cookies: ['sid'] },
    identify: identifyBySid
  } as never)
  app.get('/protected', async () => { hits++ })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const client = http2.connect(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  t.teardown(async () => {
    client.destroy()
    await app.close()
  })
  makeVerified(fake, 'ann.1', BROWSER)
  const ask = async (cookie: string[], more: object = {}): Promise<number> => {
    const stream = client.request({ ':path': '/protected', cookie, ...more })
    stream.on('error', () => {})
    const [headers] = await once(stream, 'response')
    stream.destroy()
    return Number(headers[':status'])
  }
  t.equal(await ask(['sid=ann.1', `${bindingName()}=${BROWSER}`]), 200)
  t.equal(await ask([`sid=ann.1; ${bindingName()}=${BROWSER}`, 'theme=dark']), 200)
  t.equal(await ask(['sid=bob.1']), 401)
  for (const two of [['sid=ann.1', 'sid=bob.1', `${bindingName()}=${BROWSER}`], ['sid=ann.1; sid=bob.1', `${bindingName()}=${BROWSER}`], [`sid=ann.1; ${bindingName()}=${BROWSER}`, 'SID=bob.1']]) {
    t.equal(await ask(two), 400, two.join(' | '))
  }
  t.equal(await ask(['sid=ann.1', `${bindingName()}=${BROWSER}`], { ':path': '/protected#x' }), 400)
  t.equal(hits, 2)
})
