// Threat: somebody with only the password spells a request so that the gate and the console read it differently.

import { connect } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { Teardown } from '../helpers/service.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import { bindingName, binding, cookies, lines, makeVerified, raw, startConsole } from '../helpers/console.ts'

const BROWSER = binding('one')

async function both (t: Teardown, options: Parameters<typeof startConsole>[1]['server'] = {}, more: object = {}) {
  const fake = await startFakeService(t)
  const console = await startConsole(t, {
    service: { url: fake.url, tenantKey: fake.tenantKey }, server: options, ...more
  })
  return { fake, console }
}

const TARGETS = [
  '/settings', '/%73ettings', '/setting%73', '/settings#f', '/protected#', 'http://x/settings', 'HTTP://127.0.0.1/protected',
  'https://evil.example/settings', '/./settings', '/%2e/settings', '/settings;a', '//settings', '///settings', '/SETTINGS',
  '/settings/', '/settings%2fa', '/settings%00', '/settings%20', '/settings%3fx', '/%2Fsettings', '/%2fsettings', '/x/../settings',
  '/x/%2e%2e/settings', '/x/%252e%252e/settings', '/x\\..\\settings', '/\\settings', '*', '/settings?x=/2fa/verify', '/settings?public',
  '/2fa/../settings', '/2fa/%2e%2e/settings', '/2fa//settings', '/2fa/assets/../../settings', '/items/1', '/items/%31', '/items/a%2fb',
  '/settings%', '/settings%zz', `/settings?${'a'.repeat(9000)}`, '/\u00e9', '/settings\u00a0', '/settings\t', '/settings?a=%00'
]

t.test('no spelling of a path reaches a handler before verification, whatever the router folds', async t => {
  for (const routerOptions of [
    {},
    { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, useSemicolonDelimiter: true }
  ]) {
    const { console } = await both(t, { routerOptions })
    for (const target of TARGETS) {
      for (const method of ['GET', 'POST', 'HEAD', 'OPTIONS']) {
        const { status } = await raw(console.port, lines(method, target, [cookies('ann.1')]))
        t.ok(status >= 300 || status === 0, `${method} ${encodeURI(target).slice(0, 60)}: ${status}`)
      }
    }
    t.same(console.hits, [])
  }
})

t.test('targets that are not a path, hold a fragment or foreign bytes are refused with 400 also for who has verified', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER, 1)
  const mine = cookies('ann.1', BROWSER)
  for (const target of ['/protected#f', 'http://x/protected', '*', '/protected\u00e9', '/prot\\ected', `/protected?${'a'.repeat(9000)}`]) {
    t.equal((await raw(console.port, lines('GET', target, [mine]))).status, 400, encodeURI(target).slice(0, 40))
  }
  t.same(console.hits, [])
  t.equal((await raw(console.port, lines('GET', '/%70rotected', [mine]))).status, 200, 'the router\'s own reading is one reading')
})

t.test('unknown methods, TRACE and CONNECT reach nothing', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  for (const method of ['TRACE', 'CONNECT', 'PROPFIND', 'BREW', 'constructor', 'get']) {
    const answer = await raw(console.port, lines(method, '/protected', [cookies('ann.1', BROWSER)]), 1500)
    t.ok(answer.status >= 400 || answer.status === 0, `${method}: ${answer.status}`)
  }
  t.same(console.hits, [])
})

t.test('requests whose boundary two servers could see elsewhere are refused', async t => {
  const { console } = await both(t)
  const head = (...more: string[]): string => ['POST /protected HTTP/1.1', 'Host: 127.0.0.1', cookies('ann.1'), 'Connection: close', ...more, '', ''].join('\r\n')
  for (const request of [
    `${head('Transfer-Encoding: chunked', 'Content-Length: 4')}0\r\n\r\nGET /protected HTTP/1.1\r\nHost: x\r\n\r\n`,
    `${head('Transfer-Encoding : chunked')}0\r\n\r\n`,
    `${head('Content-Length: 4', 'Content-Length: 5')}abcd`,
    `${head('Content-Length: +4')}abcd`,
    head('X-A: b', ' folded: c'),
    head('Host: evil.example'),
    head('Content-Length: 0').replace('Content-Length', 'Content\nLength')
  ]) {
    const answer = await raw(console.port, request, 1500)
    t.ok(answer.status === 400 || answer.status === 0, `${answer.status}: ${JSON.stringify(request.slice(90, 160))}`)
  }
  t.same(console.hits, [])
})

t.test('pipelined requests are decided one by one', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  const one = (cookie: string, close = false): string =>
    ['GET /protected HTTP/1.1', 'Host: 127.0.0.1', cookie, `Connection: ${close ? 'close' : 'keep-alive'}`, '', ''].join('\r\n')
  const text = await new Promise<string>(resolve => {
    const socket = connect(console.port, '127.0.0.1')
    let all = ''
    socket.on('data', data => { all += data.toString('latin1') })
    socket.on('close', () => { resolve(all) })
    socket.write(one(cookies('ann.1', BROWSER)) + one(cookies('bob.1')) + one(cookies('ann.1', BROWSER)) + one(cookies('ann.1'), true))
  })
  t.same([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status), ['200', '401', '200', '401'])
  t.equal(console.hits.length, 2)
})

t.test('no header marks a request as already checked, and ours never reach the console', async t => {
  const { fake, console } = await both(t)
  const marks = ['X-Original-URL: /', 'X-Rewrite-URL: /', 'X-Forwarded-Uri: /', 'X-Forwarded-Prefix: /2fa', 'X-HTTP-Method-Override: GET',
    'X-Middleware-Subrequest: 1', 'Postern-Subject: YW5u', 'Postern-Session: x', 'Postern-Browser: none', 'Postern-Exempt: sso',
    'Postern_Subject: YW5u', 'X-Forwarded-For: 127.0.0.1', 'Forwarded: for=127.0.0.1', 'User-Agent: kube-probe/1.30',
    'Connection: close, cookie', 'Upgrade-Insecure-Requests: 1', 'Purpose: prefetch', 'Sec-Fetch-Mode: cors']
  for (const mark of marks) {
    const { status } = await raw(console.port, lines('GET', '/protected', [cookies('ann.1'), mark]))
    t.ok(status === 401 || status === 303 || status === 400, `${mark}: ${status}`)
  }
  t.same(console.hits, [])
  makeVerified(fake, 'ann.1', BROWSER)
  await raw(console.port, lines('GET', '/protected', [cookies('ann.1', BROWSER), 'Postern-Subject: YQ', 'postern_session: x', 'POSTERN-About: e30']))
  t.equal(console.hits.length, 1)
  t.notMatch(Object.keys(console.hits[0]?.headers ?? {}).join(' '), /postern/)
})

t.test('a page, a script, a fetch without Accept: all are stopped alike', async t => {
  const { console } = await both(t)
  for (const headers of [['Accept: text/html'], ['Accept: application/json'], ['Accept: */*'], [], ['X-Requested-With: XMLHttpRequest'],
    ['Sec-Fetch-Mode: navigate'], ['Sec-Fetch-Mode: no-cors', 'Sec-Fetch-Dest: image'], ['Range: bytes=0-1'], ['If-None-Match: "x"']]) {
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS']) {
      for (const target of ['/protected', '/settings', '/nowhere']) {
        const { status, headers: given } = await raw(console.port, lines(method, target, [cookies('ann.1'), ...headers]))
        t.ok([303, 401, 403].includes(status), `${method} ${target} ${headers.join()}: ${status}`)
        t.equal(given['cache-control'], 'no-store')
      }
    }
  }
  t.same(console.hits, [])
})

t.test('the 404 handler is gated, and asked with a body it runs no parser first', async t => {
  let parsed = 0
  const { console } = await both(t, {}, {
    after: (app: FastifyInstance) => {
      app.setNotFoundHandler((_request, reply) => { parsed++; reply.send({ all: 'routes of a single-page console' }) })
      app.addContentTypeParser('text/x-count', { parseAs: 'string' }, (_request, body, done) => { parsed++; done(null, body) })
    }
  })
  t.equal((await raw(console.port, lines('GET', '/nowhere', [cookies('ann.1')]))).status, 401)
  t.equal((await raw(console.port, lines('POST', '/protected', [cookies('ann.1'), 'Content-Type: text/x-count'], 'x'))).status, 401)
  t.equal(parsed, 0)
  t.equal((await raw(console.port, lines('GET', '/nowhere'))).status, 200, 'nobody is logged in: the console\'s own login deals with it')
})

t.test('credentials that two servers could read differently are refused, never taken for nobody', async t => {
  const { fake, console } = await both(t, {}, {
    postern: { credentials: { cookies: ['sid'], headers: ['X-Api-Key'], query: ['token'] } }
  })
  makeVerified(fake, 'ann.1', BROWSER)
  const name = bindingName()
  const good = `sid=ann.1; ${name}=${BROWSER}`
  const ask = async (headers: readonly string[], target = '/protected'): Promise<number> =>
    (await raw(console.port, lines('GET', target, headers))).status
  t.equal(await ask([`Cookie: ${good}`]), 200)
  t.equal(await ask([`Cookie: other="a b"; ${good}; x={"a":1}`]), 200, 'other cookies are the console\'s business')
  const before = console.hits.length
  for (const cookie of [
    `${good}; sid=bob.1`, `sid=bob.1; ${good}`, `${good}; ${name}=${binding('two')}`, `sid=bob.1;sid=ann.1;${name}=${BROWSER}`,
    `${good}; SID=bob.1`, `${good}; "sid"=bob.1`, `${good}; s%69d=bob.1`, `${good}, sid=bob.1`, `${good}; sid`, `sid; ${name}=${BROWSER}`,
    `sid=ann.1\u0001; ${name}=${BROWSER}`, `sid=ann 1; ${name}=${BROWSER}`, `sid=%zz; ${name}=${BROWSER}`, `sid="ann.1; ${name}=${BROWSER}`
  ]) t.ok([400, 0].includes(await ask([`Cookie: ${cookie}`])), JSON.stringify(cookie))
  for (const headers of [
    [`Cookie: ${good}`, 'Cookie: sid=bob.1'], [`Cookie: ${good}`, 'Authorization: Bearer x'], [`Cookie: ${good}`, 'Authorization: Basic eDp5'],
    [`Cookie: ${good}`, 'X-Api-Key: k'], [`Cookie: ${good}`, 'X_Api_Key: k'], ['Authorization: Bearer a', 'Authorization: Bearer b'],
    ['Authorization: Bearer a', 'X-Api-Key: k'], ['X_API_KEY: k']
  ]) t.equal(await ask(headers), 400, headers.join(' | '))
  for (const target of ['/protected?token=a', '/protected?access_token=a', '/protected?TOKEN=a', '/protected?t%6fken=a', '/protected?token[]=a']) {
    t.equal(await ask([`Cookie: ${good}`], target), 400, target)
  }
  t.equal(await ask([], '/protected?token=a&token=b'), 400)
  t.equal(await ask(['Authorization: Bearer of nobody']), 401, 'a credential that the console does not know')
  t.equal(await ask(['Authorization: Basic YW5uLjE6']), 401, 'the session id as a Basic user')
  t.equal(await ask([], '/protected?token=ann.1'), 401)
  t.equal(console.hits.length, before)
})

t.test('a binding that another browser, another tenant or nobody made never passes', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  const name = bindingName()
  for (const value of ['', 'none', binding('two'), `${BROWSER}x`, BROWSER.slice(1), BROWSER.toLowerCase(), `${BROWSER}%20`, '"' + BROWSER + '"', 'A'.repeat(4000)]) {
    t.not((await raw(console.port, lines('GET', '/protected', [`Cookie: sid=ann.1; ${name}=${value}`]))).status, 200, value.slice(0, 30))
  }
  t.not((await raw(console.port, lines('GET', '/protected', [`Cookie: sid=ann.1; ${bindingName('t2')}=${BROWSER}`]))).status, 200)
  t.not((await raw(console.port, lines('GET', '/protected', [`Cookie: sid=ann.1; ${bindingName('t1', true)}=${BROWSER}`]))).status, 200)
  t.not((await raw(console.port, lines('GET', '/protected', [cookies('bob.1', BROWSER)]))).status, 200, 'another user in this browser')
  t.not((await raw(console.port, lines('GET', '/protected', [cookies('ann.2', BROWSER)]))).status, 200, 'another session of the same user')
  t.same(console.hits, [])
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1', BROWSER)]))).status, 200)
})
