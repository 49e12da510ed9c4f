// What the gateway passes on it passes on as it is, and what it must not pass on never reaches the console.

import { createHash, randomBytes } from 'node:crypto'
import { createServer, request as ask, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import Fastify from 'fastify'
import t from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { createDrain } from '../../plugin/src/gateway/drain.ts'
import { readConfig } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { binding, lines, raw } from '../helpers/console.ts'
import { bindingCookie, listening, served, startGateway, startUpstream, wire } from '../helpers/gateway.ts'
import { startService, type Teardown } from '../helpers/service.ts'

const BROWSER = binding('a browser')

/** A console whose session `s-<user>` is that user's; everybody has enrolled, `alice` is verified in BROWSER. */
async function setting (
  t: Teardown,
  more: Parameters<typeof startUpstream>[1] = (_request, response) => { response.end('ok') },
  env: Record<string, string> = {}
) {
  const service = await startService(t)
  const who = wire('alice', 'cookie', 's-alice', BROWSER)
  const { key } = await service.enrol(who)
  const upstream = await startUpstream(t, (request, response, body) => {
    if (request.url === '/api/me') {
      const user = /(?:^|; )sid=s-(\w+)/.exec(request.headers.cookie ?? '')?.[1]
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(user === undefined ? {} : { user: { id: user } }))
      return
    }
    more(request, response, body)
  })
  const gateway = await startGateway(t, {
    upstream: upstream.url,
    service: await served(service),
    key: service.keys.gate.key,
    preset: 'generic',
    env: {
      POSTERN_GATEWAY_GENERIC_COOKIE: 'sid',
      POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me',
      POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.id',
      POSTERN_GATEWAY_GENERIC_STEP_UP: 'POST /settings',
      ...env
    }
  })
  const reached = (): readonly string[] => upstream.paths().filter(path => path !== 'GET /api/me')
  return { service, upstream, gateway, key, reached, cookie: `sid=s-alice; ${bindingCookie(BROWSER)}` }
}

interface Sent { method?: string, headers?: Record<string, string>, body?: Buffer | AsyncIterable<Buffer> }

function send (url: string, options: Sent = {}) {
  return new Promise<IncomingMessage>((resolve, reject) => {
    const sent = ask(url, { method: options.method ?? 'GET', headers: options.headers ?? {}, agent: false }, resolve)
    sent.on('error', reject)
    const { body } = options
    if (body === undefined || Buffer.isBuffer(body)) sent.end(body)
    else {
      void (async () => {
        for await (const part of body) if (!sent.write(part)) await new Promise(resolve => sent.once('drain', resolve))
        sent.end()
      })()
    }
  })
}

async function whole (answer: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of answer) parts.push(Buffer.from(part))
  return Buffer.concat(parts)
}

t.test('a session that has not passed reaches nothing, one that has reaches everything', async t => {
  const { gateway, cookie, reached } = await setting(t)
  t.equal((await send(`${gateway.url}/devices`, { headers: { cookie: 'sid=s-alice' } })).statusCode, 401)
  t.equal((await send(`${gateway.url}/devices`, { headers: { cookie: `sid=s-alice; ${bindingCookie(binding('another'))}` } })).statusCode, 401)
  const page = await send(`${gateway.url}/devices`, { headers: { cookie: 'sid=s-alice', accept: 'text/html' } })
  t.equal(page.statusCode, 303)
  t.match(page.headers.location, /^\/2fa\/verify\//)
  t.same(reached(), [])
  t.equal((await send(`${gateway.url}/devices?all=1`, { headers: { cookie } })).statusCode, 200)
  t.same(reached(), ['GET /devices?all=1'])
})

t.test('an anonymous request carries nothing that the console could take for a login', async t => {
  const { gateway, upstream, reached } = await setting(t)
  t.equal((await send(`${gateway.url}/login?a=1&access_token=x&b=2`)).statusCode, 401, 'a token that is nobody\'s is refused')
  t.equal((await send(`${gateway.url}/login`, { headers: { authorization: 'Weird x' } })).statusCode, 401)
  t.same(reached(), [])
  t.equal((await send(`${gateway.url}/login`, { headers: { cookie: 'other=1' } })).statusCode, 200)
  t.equal(upstream.hits.at(-1)?.headers.cookie, 'other=1')
})

t.test('a session that was nobody\'s and becomes somebody\'s under the same id is nobody\'s here', async t => {
  let user: string | undefined
  const { gateway, upstream, cookie, reached } = await setting(t, (request, response) => {
    if (request.url === '/become') user = 'alice'
    response.end(user ?? 'nobody')
  })
  upstream.server.removeAllListeners('request')
  const seen: (string | undefined)[] = []
  upstream.server.on('request', (request: IncomingMessage, response) => {
    if (request.url === '/api/me') response.end(JSON.stringify(user === undefined ? {} : { user: { id: user } }))
    else {
      seen.push(request.headers.cookie)
      response.end('ok')
    }
  })
  await send(`${gateway.url}/home`, { headers: { cookie } })
  t.same(seen, ['sid=s-alice'], 'the login page needs its session')
  user = 'alice'
  await send(`${gateway.url}/secret`, { headers: { cookie } })
  t.same(seen, ['sid=s-alice', undefined])
  t.same(reached(), [])
})

t.test('a session that becomes another user\'s is nobody\'s here, and then the console is asked about each request', async t => {
  const { gateway, upstream, cookie } = await setting(t)
  upstream.server.removeAllListeners('request')
  const who = { user: 'alice', asked: 0 }
  const seen: (string | undefined)[] = []
  upstream.server.on('request', (request: IncomingMessage, response) => {
    if (request.url === '/api/me') {
      who.asked += 1
      response.end(JSON.stringify({ user: { id: who.user } }))
    } else {
      seen.push(request.headers.cookie)
      response.end('ok')
    }
  })
  const visit = async (method = 'GET'): Promise<void> => {
    await (await send(`${gateway.url}/devices`, { method, headers: { cookie } })).resume()
  }
  await visit()
  await visit()
  t.same([seen, who.asked], [['sid=s-alice', 'sid=s-alice'], 1], 'whose it is, is remembered')
  who.user = 'mallory'
  // It may be a login, so the console is asked anew.
  await visit('POST')
  await visit()
  await visit()
  t.same(seen.slice(-2), [undefined, undefined])
  who.user = 'alice'
  const before = who.asked
  await visit()
  await visit()
  t.same([seen.slice(-2), who.asked - before], [['sid=s-alice', 'sid=s-alice'], 2], 'and nothing is remembered of this console')
})

t.test('headers that servers take for the path, the method or the client never pass', async t => {
  const { gateway, cookie, upstream } = await setting(t)
  const answer = await raw(gateway.port, lines('GET', '/devices', [
    `Cookie: ${cookie}`, 'X-Original-URL: /admin', 'X-Rewrite-URL: /admin', 'X_Original_URL: /admin', 'X-HTTP-Method-Override: DELETE',
    'X-Forwarded-For: 9.9.9.9', 'X_Forwarded_For: 9.9.9.9', 'X-Forwarded-Host: evil.example', 'Forwarded: for=9.9.9.9', 'X-Real-IP: 9.9.9.9',
    'Remote-User: admin', 'postern-subject: YWRtaW4', 'Connection: x-forwarded-for, x-real-ip, cookie, x-kept', 'X-Kept: no', 'X-Other: yes'
  ]))
  t.equal(answer.status, 200)
  const hit = upstream.hits.at(-1)
  const headers: Record<string, unknown> = { ...hit?.headers }
  const names = hit?.raw ?? []
  t.equal(headers['x-forwarded-for'], '127.0.0.1')
  t.equal(headers['x-real-ip'], '127.0.0.1')
  t.equal(headers['x-forwarded-host'], '127.0.0.1:1')
  t.equal(headers.host, '127.0.0.1:1', 'never from the client')
  t.match(headers.forwarded, /^for=127\.0\.0\.1;/)
  t.equal(headers['x-other'], 'yes')
  t.equal(headers['x-kept'], undefined, 'the client declared it of its own connection')
  t.equal(headers.cookie, 'sid=s-alice', 'the binding is nobody\'s business behind')
  t.same(names.filter((one, i) => i % 2 === 0 && /original|rewrite|override|postern|remote|_/i.test(one)), [])
  t.notMatch(names.join('\n'), /9\.9\.9\.9|evil|admin/)
  t.equal((await raw(gateway.port, lines('GET', '/x', ['Host: other.example']))).status, 400, 'two Host headers')
})

t.test('paths that two servers read differently are refused, and the one canonical path goes on', async t => {
  const { service, gateway, cookie, upstream, reached } = await setting(t)
  service.advance(400_000)
  for (const path of ['//settings', '/a/../settings', '/a/%2e%2e/settings', '/a%2fb', '/a;b', '/a%5cb', '/%2561', '/a%00', '/\\a', '/a/./b', 'http://x/settings']) {
    t.equal((await raw(gateway.port, lines('GET', path, [`Cookie: ${cookie}`]))).status, 400, path)
  }
  t.same(reached(), [])
  t.equal((await raw(gateway.port, lines('GET', '/%64evices/%e4%bd%a0?q=%64', [`Cookie: ${cookie}`]))).status, 200)
  t.equal(upstream.hits.at(-1)?.url, '/devices/%E4%BD%A0?q=%64')
  for (const path of ['/settings', '/SETTINGS', '/settings/', '/%73ettings']) {
    t.equal((await raw(gateway.port, lines('POST', path, [`Cookie: ${cookie}`, 'Content-Type: application/json'], '{}'))).status, 401, `${path} asks for a step-up`)
  }
  t.equal(reached().length, 1)
})

t.test('bodies pass byte for byte: empty JSON, compressed answers, HEAD, 204, 304, early hints, odd types', async t => {
  const zipped = gzipSync('hello '.repeat(1000))
  const { gateway, cookie } = await setting(t, (request, response, body) => {
    switch (request.url) {
      case '/zip': response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': zipped.length }).end(request.method === 'HEAD' ? undefined : zipped); break
      case '/none': response.writeHead(204).end(); break
      case '/same': response.writeHead(304, { etag: '"a"' }).end(); break
      case '/hints': response.writeEarlyHints({ link: '</a.css>; rel=preload' }); response.end('hinted'); break
      case '/cookies': response.writeHead(200, [['Set-Cookie', 'a=1'], ['Set-Cookie', 'b=2'], ['X-Name', 'caf\u00e9']] as never).end(); break
      default: void body().then(text => response.end(JSON.stringify({ text, type: request.headers['content-type'] ?? null, length: request.headers['content-length'] ?? null })))
    }
  })
  const at = async (path: string, options: Parameters<typeof send>[1] = {}) =>
    await send(gateway.url + path, { ...options, headers: { cookie, ...options.headers } })
  const empty = await at('/api/ab/settings', { method: 'POST', headers: { 'content-type': 'application/json', 'content-length': '0' } })
  t.same(JSON.parse(String(await whole(empty))), { text: '', type: 'application/json', length: '0' })
  for (const type of ['garbage', 'application/json; charset', 'multipart/form-data; boundary=x', 'application/x-www-form-urlencoded']) {
    const answer = await at('/echo', { method: 'POST', headers: { 'content-type': type }, body: Buffer.from('{not json') })
    t.match(JSON.parse(String(await whole(answer))), { text: '{not json', type }, type)
  }
  const zip = await at('/zip')
  t.equal(zip.headers['content-encoding'], 'gzip')
  t.ok((await whole(zip)).equals(zipped))
  const head = await at('/zip', { method: 'HEAD' })
  t.equal(head.headers['content-length'], String(zipped.length))
  t.equal((await whole(head)).length, 0)
  t.equal((await at('/none')).statusCode, 204)
  t.match((await at('/same')), { statusCode: 304, headers: { etag: '"a"' } })
  t.equal(String(await whole(await at('/hints'))), 'hinted')
  const set = await at('/cookies')
  t.same(set.headers['set-cookie'], ['a=1', 'b=2'])
  t.equal(set.headers['x-name'], 'caf\u00e9')
})

t.test('an answer is not lost for a length of no body, a reason phrase or a hint that this server would not write', async t => {
  const said = new Map([
    ['/same', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 50000\r\n\r\n'],
    ['/none', 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n'],
    ['/phrase', 'HTTP/1.1 404 \u4e0d\u5b58\u5728\r\nContent-Length: 2\r\n\r\nok'],
    ['/hints', 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload, </b.js>; title="a b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['/hint', 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok']
  ])
  const { gateway, cookie } = await setting(t, (request, response) => { response.socket?.end(said.get(request.url ?? '') ?? '') })
  for (const [path, status, body] of [['/same', 304, ''], ['/none', 204, ''], ['/phrase', 404, 'ok'], ['/hints', 200, 'ok'], ['/hint', 103, undefined]] as const) {
    const answer = await raw(gateway.port, lines('GET', path, [`Cookie: ${cookie}`]))
    t.equal(answer.status, status, path)
    if (body !== undefined) t.equal(answer.body, body, path)
  }
  const old = await raw(gateway.port, `GET /hint HTTP/1.0\r\nCookie: ${cookie}\r\n\r\n`)
  t.same([old.status, old.body], [200, 'ok'], 'HTTP/1.0 has no answers before the answer')
})

t.test('a gigabyte goes down and up unchanged, and memory stays small', { timeout: 280_000 }, async t => {
  const block = randomBytes(1 << 20)
  const blocks = 1024
  const expected = createHash('sha256')
  for (let i = 0; i < blocks; i++) expected.update(block)
  const sum = expected.digest('hex')
  const { gateway, cookie } = await setting(t, (request, response) => {
    if (request.method === 'POST') {
      const hash = createHash('sha256')
      request.on('data', part => hash.update(part))
      request.on('end', () => { response.end(hash.digest('hex')) })
      return
    }
    response.writeHead(200, { 'content-length': String(block.length * blocks) })
    let sent = 0
    const more = (): void => {
      while (sent < blocks) {
        sent++
        if (!response.write(block)) { response.once('drain', more); return }
      }
      response.end()
    }
    more()
  })
  const hash = createHash('sha256')
  let most = 0
  for await (const part of await send(`${gateway.url}/image`, { headers: { cookie } })) {
    hash.update(part)
    most = Math.max(most, process.memoryUsage().arrayBuffers)
  }
  t.equal(hash.digest('hex'), sum)
  async function * upload () {
    for (let i = 0; i < blocks; i++) {
      yield block
      most = Math.max(most, process.memoryUsage().arrayBuffers)
    }
  }
  const up = await send(`${gateway.url}/image`, { method: 'POST', headers: { cookie, 'content-length': String(block.length * blocks) }, body: upload() })
  t.equal(String(await whole(up)), sum)
  t.ok(most < 150_000_000, `client, gateway and console together held ${most} bytes`)
})

t.test('server-sent events arrive as they are sent, and a client that leaves ends the exchange', async t => {
  let gone = (): void => {}
  const left = new Promise<void>(resolve => { gone = resolve })
  let next = (): void => {}
  const { gateway, cookie } = await setting(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: one\n\n')
    next = () => { response.write('data: two\n\n') }
    response.on('close', gone)
  })
  const answer = await send(`${gateway.url}/events`, { headers: { cookie } })
  const events: string[] = []
  for await (const part of answer) {
    events.push(String(part))
    if (events.length === 1) next()
    else break
  }
  t.same(events, ['data: one\n\n', 'data: two\n\n'])
  answer.destroy()
  await left
})

t.test('an answer of a length that is known arrives as it comes too, and whole where it comes at once', async t => {
  for (const length of [1_000, 16_385, 65_536, 131_072, 131_073, 1_000_000]) {
    const body = randomBytes(length)
    const { gateway, cookie } = await setting(t, (request, response) => {
      response.writeHead(200, { 'content-length': String(length) })
      if (request.url === '/once') return response.end(body)
      const begin = (): void => { response.write(body.subarray(0, 500)) }
      parts.push(() => { response.end(body.subarray(500)) })
      // The headers of a small answer come with its first piece.
      if (length <= 16_384) return begin()
      parts.unshift(begin)
      response.flushHeaders()
    })
    const parts: (() => void)[] = []
    const at = async (path: string) => await send(`${gateway.url}${path}`, { headers: { cookie } })
    t.ok(body.equals(await whole(await at('/once'))), `${length} bytes at once`)
    // Nothing more is sent before what was sent has come.
    const answer = await at('/parted')
    if (length > 16_384) parts.shift()?.()
    const heard: Buffer[] = []
    for await (const part of answer) {
      heard.push(part as Buffer)
      if (Buffer.concat(heard).length === 500) parts.shift()?.()
    }
    t.ok(body.equals(Buffer.concat(heard)), `${length} bytes by parts`)
  }
})

t.test('a console that breaks off shows as broken off, and one that is away as 502 with a page', async t => {
  const { gateway, cookie, upstream } = await setting(t, (_request, response) => {
    response.writeHead(200, { 'content-length': '100' })
    response.write('half', () => { response.destroy() })
  })
  const answer = await send(`${gateway.url}/half`, { headers: { cookie } })
  await t.rejects(whole(answer))
  upstream.server.closeAllConnections()
  await new Promise(resolve => upstream.server.close(resolve))
  const away = await send(`${gateway.url}/x`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: Buffer.alloc(2_000_000) })
  t.equal(away.statusCode, 502)
  t.equal(away.headers['retry-after'], '5')
  t.equal(JSON.parse(String(await whole(away))).code, 'upstream_unreachable')
  const page = await send(`${gateway.url}/x`, { headers: { accept: 'text/html' } })
  t.equal(page.statusCode, 502)
  t.match(String(await whole(page)), /does not answer/)
})

t.test('C-20: a gateway that ends lets a slow client have the whole of an answer that was given', async t => {
  const length = 30_000_000
  const app = Fastify()
  createDrain(app)
  app.get('/image', async () => Buffer.alloc(length))
  const client = connect(Number(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port), '127.0.0.1')
  t.teardown(() => { client.destroy() })
  client.on('error', () => {})
  client.write('GET /image HTTP/1.1\r\nHost: x\r\n\r\n')
  let heard = 0
  const ended = new Promise(resolve => { client.on('close', resolve) })
  await new Promise<void>(resolve => { client.once('data', part => { heard += part.length; client.pause(); resolve() }) })
  client.on('data', part => { heard += part.length })
  const closed = app.close()
  client.resume()
  await Promise.all([ended, closed])
  t.ok(heard > length, `${heard} bytes came`)
})

t.test('a WebSocket passes after the gate, from this origin only, and nothing rides behind a refused one', async t => {
  const upstream = createServer((request, response) => {
    if (request.url === '/api/me') response.end(JSON.stringify({ user: { id: 'alice' } }))
    else {
      hits.push(request.url ?? '')
      response.end('plain')
    }
  })
  const hits: string[] = []
  const sockets = new WebSocketServer({ noServer: true })
  t.teardown(() => { sockets.close() })
  upstream.on('upgrade', (request, socket, head) => {
    hits.push(`upgrade ${request.url ?? ''}`)
    if (request.url === '/refuse') {
      socket.end('HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\n\r\nno.')
      return
    }
    sockets.handleUpgrade(request, socket, head, one => { one.on('message', data => { one.send(`echo ${String(data)}`) }) })
  })
  const service = await startService(t)
  await service.enrol(wire('alice', 'cookie', 's-alice', BROWSER))
  const gateway = await startGateway(t, {
    upstream: await listening(t, upstream),
    service: await served(service),
    key: service.keys.gate.key,
    preset: 'generic',
    env: { POSTERN_GATEWAY_GENERIC_COOKIE: 'sid', POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me', POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.id' }
  })
  const cookie = `sid=s-alice; ${bindingCookie(BROWSER)}`
  const open = (headers: Record<string, string>) => new Promise<WebSocket | number>(resolve => {
    const socket = new WebSocket(`${gateway.url.replace('http', 'ws')}/live`, { headers })
    socket.on('open', () => { resolve(socket) })
    socket.on('unexpected-response', (_request, response) => { resolve(response.statusCode ?? 0); response.resume() })
    socket.on('error', () => {})
  })
  t.equal(await open({ cookie: 'sid=s-alice' }), 401)
  t.equal(await open({ cookie, origin: 'https://evil.example' }), 403)
  t.same(hits, [])
  const socket = await open({ cookie, origin: 'http://127.0.0.1:1' })
  if (typeof socket === 'number') throw new Error(`refused with ${socket}`)
  const echoed = new Promise(resolve => { socket.on('message', data => { resolve(String(data)) }) })
  socket.send('hello')
  t.equal(await echoed, 'echo hello')
  socket.terminate()
  const handshake = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', `Cookie: ${cookie}`]
  const smuggled = await raw(gateway.port, `GET /refuse HTTP/1.1\r\nHost: x\r\n${handshake.join('\r\n')}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\nCookie: ${cookie}\r\n\r\n`)
  t.equal(smuggled.status, 426)
  const h2c = await raw(gateway.port, `GET /h2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nCookie: ${cookie}\r\n\r\n`)
  t.equal(h2c.status, 400)
  t.same(hits, ['upgrade /live', 'upgrade /refuse'])
})

t.test('all mistakes of a configuration are named at once, and unknown settings are refused', async t => {
  const named = (env: Record<string, string>): string => {
    try {
      readConfig(env, PRESETS)
      return ''
    } catch (error) {
      return String(error)
    }
  }
  const all = named({ POSTERN_GATEWAY_PORT: '99999', POSTERN_GATEWAY_NOPE: '1', POSTERN_GATEWAY_PRESET: 'generic', POSTERN_GATEWAY_SEAL_KEYS: 'k1:AAAA', POSTERN_GATEWAY_TRUSTED_PROXIES: '10.0.0.0/0' })
  for (const part of ['UPSTREAM is missing', 'SERVICE is missing', 'TENANT_KEY is missing', 'PUBLIC_ORIGIN is missing', 'NOPE is not a setting', 'PORT must be', 'GENERIC_WHO is missing', 'SEAL_KEYS: key 1', 'TRUSTED_PROXIES names']) t.match(all, part)
  t.notMatch(all, /AAAA/, 'never by value')
})
