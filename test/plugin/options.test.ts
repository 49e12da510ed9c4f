// Wrong options stop the start with one clear sentence; patterns and paths have one reading.

import fastify from 'fastify'
import t from 'tap'
import postern, { printedReport, type PosternOptions } from '../../plugin/src/index.ts'
import { STEP_UP } from '../../plugin/src/options.ts'
import { canonicalTarget, pattern, returnPath } from '../../plugin/src/path.ts'

const GOOD: PosternOptions = {
  service: 'http://127.0.0.1:7070',
  tenantKey: `pk_t1_g1_${'x'.repeat(32)}`,
  publicOrigin: 'https://console.example',
  identify: () => null,
  credentials: { cookies: ['sid'] }
}

/** What the start says, or nothing where it goes well. */
async function start (
  options: Record<string, unknown>,
  server: { readonly trustProxy?: boolean | string } = {}
): Promise<string | undefined> {
  const app = fastify({ ...server })
  try {
    await app.register(postern, { ...GOOD, ...options } as PosternOptions)
    await app.ready()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    await app.close()
  }
}

t.test('the good options start', async t => {
  t.equal(await start({}), undefined)
  t.equal(await start({ service: 'https://postern.example/base/' }), undefined)
  t.equal(await start({ publicOrigin: 'http://localhost:8080' }), undefined)
  t.equal(await start({ publicOrigin: 'http://127.0.0.1' }), undefined)
  t.equal(await start({ publicOrigin: 'http://[::1]:80'.replace(':80', ':81') }), undefined)
  t.equal(await start({ publicOrigin: 'http://console.lan', insecureCookies: true }), undefined)
  t.equal(await start({ trustProxy: undefined, mode: 'observe', stepUpPatterns: ['POST /x/*', { pattern: '/y', maxAge: 0 }] }), 'postern cannot start: there is no option "trustProxy".')
  t.equal(await start({}, { trustProxy: '10.0.0.0/8' }), undefined)
})

t.test('a wrong option stops the start with a sentence that names it, and all mistakes stand in it', async t => {
  const wrong: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ tenantKey: undefined }, /"tenantKey" is missing; make one with "postern tenants key"/],
    [{ tenantKey: '' }, /"tenantKey" is missing/],
    [{ tenantKey: 'secret' }, /"tenantKey" is not a key of the form/],
    [{ tenantKey: 7 }, /"tenantKey" is not a key of the form/],
    [{ service: 'not a url' }, /"service" must be the URL of the 2FA service/],
    [{ service: 'ftp://x' }, /"service" must be the URL/],
    [{ service: 'http://user@x/' }, /"service" must be the URL/],
    [{ service: 'http://x/?a=1' }, /"service" must be the URL/],
    [{ service: 'http://x/#a' }, /"service" must be the URL/],
    [{ service: undefined }, /"service" must be the URL/],
    [{ publicOrigin: 'https://console.example/' }, /"publicOrigin" must be the origin/],
    [{ publicOrigin: 'console.example' }, /"publicOrigin" must be the origin/],
    [{ publicOrigin: 'http://console.lan' }, /plain HTTP off loopback/],
    [{ identify: 'me' }, /"identify" must be a function/],
    [{ prefix: '2fa' }, /"prefix" must be a path like \/2fa/],
    [{ prefix: '/' }, /"prefix"/],
    [{ credentials: { cookies: ['a b'] } }, /cannot be the name of a cookie/],
    [{ credentials: { headers: [7] } }, /cannot be the name/],
    [{ credentials: { query: [''] } }, /cannot be the name/],
    [{ sealKeys: ['k1:AAAA'] }, /"sealKeys": key 1 is not <id>:<base64 of 32 random bytes>/],
    [{ sealKeys: 'secret' }, /"sealKeys": key 1/],
    [{ graceSeconds: -1 }, /"graceSeconds" must be a whole number from 0 to 900/],
    [{ graceSeconds: '5' }, /"graceSeconds"/],
    [{ timeoutMs: 10 }, /"timeoutMs" must be a whole number from 50 to 10000/],
    [{ cacheSize: 0 }, /"cacheSize" must be a whole number/],
    [{ deniedStatus: 404 }, /"deniedStatus" must be 401 or 403/],
    [{ mode: 'maybe' }, /"mode" must be/],
    [{ mode: null }, /"mode" must be|^undefined$/],
    [{ mode: { off: { until: 'soon' } } }, /"mode" must be/],
    [{ mode: { off: { until: '2999-01-01' } } }, /off for more than 7 days/],
    [{ stepUpPatterns: ['settings'] }, /is not a pattern/],
    [{ stepUpPatterns: [{ pattern: '/x', maxAge: STEP_UP.ceiling + 1 }] }, /"maxAge" that is not a whole number from 0 to 900/],
    [{ publicPatterns: ['/a?b'] }, /is not a pattern/],
    [{ unknown: 1 }, /there is no option "unknown"/]
  ]
  for (const [options, sentence] of wrong) {
    const said = await start(options)
    t.match(String(said), sentence, JSON.stringify(options))
    if (said !== undefined) t.equal(said.split('\n').length, 1, 'one sentence')
  }
  const all = String(await start({ service: 'x', tenantKey: 'secret-of-mine', prefix: 'y' }))
  t.match(all, /"service".*"tenantKey".*"prefix"/)
  t.notMatch(all, 'secret-of-mine', 'values are never shown')
  for (const trustProxy of [true, 1 as never]) {
    t.match(String(await start({}, { trustProxy })), /"trustProxy: (true|1)", which lets any client choose its address/)
  }
})

t.test('a wrong declaration of a route stops the start and names the route', async t => {
  const declare = async (config: unknown): Promise<string> => {
    const app = fastify()
    await app.register(postern, GOOD)
    try {
      app.get('/settings', { config: { postern: config as never } }, async () => ({}))
      await app.ready()
      return ''
    } catch (error) {
      return error instanceof Error ? error.message : ''
    } finally {
      await app.close()
    }
  }
  t.match(await declare({ stepup: true }), /the route GET \/settings declares "stepup"/)
  t.match(await declare({ public: 'yes' }), /declares "public" as something else/)
  t.match(await declare({ stepUp: false }), /declares "stepUp" as something else/)
  t.match(await declare({ stepUp: 300 }), /declares "stepUp" as something else/)
  t.match(await declare({ stepUp: { maxAgeSeconds: 60 } }), /"stepUp" with "maxAgeSeconds", which is not "maxAge" or "action"/)
  t.match(await declare({ stepUp: { maxAge: 901 } }), /"maxAge" that is not a whole number/)
  t.match(await declare({ stepUp: true, public: true }), /public and step-up at once/)
  t.equal(await declare({ public: false }), '')
})

t.test('a route that was added out of the gate\'s reach stops the start', async t => {
  const early = fastify()
  let ran = false
  early.get('/early', async () => { ran = true })
  await early.register(async scope => { scope.get('/scoped', async () => { ran = true }) })
  await early.register(postern, { ...GOOD, identify: () => ({ subject: 'ann', session: 's', kind: 'cookie' }) })
  for (const url of ['/early', '/scoped']) {
    t.equal((await early.inject(url)).statusCode, 503, `${url} stood before the plugin and is gated all the same`)
  }
  t.equal(ran, false)
  await early.close()

  const nested = fastify()
  await nested.register(async scope => { await scope.register(postern, GOOD) })
  nested.get('/beside', async () => ({}))
  await t.rejects(async () => { await nested.ready() }, /out of the gate's reach/)
  await nested.close()
})

t.test('the report names every route with its rule and warns of settings without a step-up', async t => {
  const app = fastify()
  await app.register(postern, { ...GOOD, publicPatterns: ['GET /open/*'], stepUpPatterns: [{ pattern: '/admin/*', maxAge: 60 }] })
  app.get('/', { config: { postern: { public: true } } }, async () => ({}))
  app.get('/open/:id', async () => ({}))
  app.post('/account/password', async () => ({}))
  app.put('/admin/users', async () => ({}))
  app.get('/things', { config: { postern: { stepUp: { maxAge: 30, action: 'see things' } } } }, async () => ({}))
  await app.ready()
  const { routes, mode } = app.posternReport()
  const rule = (method: string, url: string) => routes.find(one => one.method === method && one.url === url)
  t.equal(mode, 'enforce')
  t.match(rule('GET', '/'), { rule: 'public' })
  t.match(rule('GET', '/open/:id'), { rule: 'public' })
  t.match(rule('POST', '/account/password'), { rule: 'gated', warning: /looks like settings/ })
  t.match(rule('PUT', '/admin/users'), { rule: 'step-up', maxAge: 60 })
  t.match(rule('GET', '/things'), { rule: 'step-up', maxAge: 30 })
  t.match(rule('GET', '/2fa/verify'), { rule: 'own' })
  const printed = printedReport(app.posternReport())
  t.match(printed, /POST \/account\/password +gated +! looks like settings/)
  t.match(printed, /GET \/things +step-up \(at most 30 s old\)/)
  await app.close()
})

t.test('a target has one canonical path, and what two servers could read in two ways has none', async t => {
  const same = (target: string, path: string, query = ''): void => { t.same(canonicalTarget(target), { path, query }, target) }
  same('/', '/')
  same('/settings', '/settings')
  same('/settings/', '/settings/')
  same('/%73ettings', '/settings')
  same('/a%2db', '/a-b')
  same('/%e4%bd%a0', '/%E4%BD%A0')
  same('/a%20b', '/a%20b')
  same('/a%25', '/a%25')
  same('/x?a=/../b;c//%2f', '/x', '?a=/../b;c//%2f')
  same('/SETTINGS', '/SETTINGS')
  for (const target of [
    '*', '', 'settings', 'http://x/settings', 'HTTPS://x/', '//x/settings', '/a//b', '/./settings', '/a/..', '/x/../settings',
    '/%2e/settings', '/x/%2E%2e/settings', '/x/.%2e/settings', '/x/%252e%252e/settings', '/settings#f', '/settings\\', '/a\\..\\b',
    '/settings;a', '/settings;', '/%2Fsettings', '/settings%2f', '/settings%5c', '/settings%00', '/settings%0a', '/settings%7f',
    '/settings%3fx', '/settings%23', '/settings%3b', '/%', '/%zz', '/%4', '/settings%20', '/%20settings', '/%c0%ae', '/%ff',
    '/%ef%bc%8fsettings', '/%ef%bc%8e%ef%bc%8e/x', '/%c2%85', '/a b', '/caf\u00e9', '/\u0000', `/${'a'.repeat(9000)}`
  ]) t.ok('refused' in canonicalTarget(target), JSON.stringify(target.slice(0, 40)))
})

t.test('patterns of step-up match whatever case or escaping, public ones byte for byte', async t => {
  const loose = pattern('POST /api/Settings/*', 'loose')
  t.equal(loose.method, 'POST')
  for (const path of ['/api/settings/x', '/API/SETTINGS/a/b', '/api/settings', '/api/%73ettings/x']) t.ok(loose.test(path), path)
  for (const path of ['/api/settingsx', '/x/api/settings']) t.notOk(loose.test(path), path)
  const exact = pattern('/public/*', 'exact')
  t.equal(exact.method, undefined)
  t.ok(exact.test('/public/a/b'))
  for (const path of ['/public', '/PUBLIC/a', '/publicx', '/x/public/a', '/%70ublic/a']) t.notOk(exact.test(path), path)
  t.ok(pattern('/users/*/mail', 'exact').test('/users/7/mail'))
  t.notOk(pattern('/users/*/mail', 'exact').test('/users/7/8/mail'))
  t.ok(pattern('/a.b', 'exact').test('/a.b'))
  t.notOk(pattern('/a.b', 'exact').test('/axb'), 'a dot is a dot')
  for (const text of ['', 'x', 'POST', 'post /x', '/a b', '/a?b', '/a#', '/a\\b', '/a;b']) t.throws(() => pattern(text, 'exact'), /is not a pattern/, text)
})

t.test('the place to return to is a path of the same origin', async t => {
  for (const path of ['/', '/a?b=c&d', '/a/%2e%2e/b']) t.equal(returnPath(path), path)
  for (const path of [
    '//evil.example', '/\\evil.example', '/\\/evil', 'https://evil.example', 'javascript:alert(1)', '', 'a', '/\t/evil.example',
    '/a\nb', '/ /x', `/${'x'.repeat(512)}`, '/\u2028', '/\u0000'
  ]) t.equal(returnPath(path), '/', encodeURIComponent(path.slice(0, 30)))
})

t.test('B-47: a server with middleware that runs before any gate does not start, unless it is allowed', async t => {
  for (const decorated of [false, true]) {
    for (const allowMiddleware of [false, true]) {
      const app = fastify()
      t.teardown(async () => { await app.close() })
      if (decorated) app.decorate('use', () => app)
      await app.register(postern, { ...GOOD, allowMiddleware })
      const started = await app.ready().then(() => 'started', String)
      if (decorated && !allowMiddleware) t.match(started, /runs middleware before any gate can/)
      else t.equal(started, 'started')
    }
  }
})
