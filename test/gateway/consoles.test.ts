// Web consoles behind their presets: servers and pages written from their wire formats, driven by Chromium, and the
// tokens and sessions that they hand out tried without a code.

import { randomBytes } from 'node:crypto'
import { chromium } from 'playwright-core'
import t from 'tap'
import { lines, raw } from '../helpers/console.ts'
import { bindingCookie, served, startGateway, startUpstream, wire } from '../helpers/gateway.ts'
import { freePort } from '../helpers/redis.ts'
import { startService, type StartOptions, type Teardown } from '../helpers/service.ts'
import { tool } from '../helpers/tools.ts'
import { startKingmo888, startLantongxue, startLejianwen } from '../helpers/web-consoles.ts'

type Body = Record<string, any> // eslint-disable-line @typescript-eslint/no-explicit-any -- read field by field

async function behind <T extends { readonly url: string }> (
  t: Teardown,
  preset: string,
  console: T,
  { tenant = {}, env = {} }: { tenant?: StartOptions['tenant'], env?: Record<string, string> } = {}
) {
  const service = await startService(t, { tenant })
  const port = await freePort()
  const origin = `http://localhost:${port}`
  const gateway = await startGateway(t, {
    upstream: console.url,
    service: await served(service),
    key: service.keys.gate.key,
    preset,
    port,
    env: { POSTERN_GATEWAY_PUBLIC_ORIGIN: origin, ...env }
  })
  return { console, service, gateway, origin }
}

async function visit (t: Teardown, origin: string) {
  const browser = await chromium.launch({ executablePath: tool('chromium'), args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage'] })
  t.teardown(async () => { await browser.close() })
  const context = await browser.newContext({ baseURL: origin, locale: 'en-US' })
  context.setDefaultTimeout(20_000)
  return { context, page: await context.newPage() }
}

interface Got { readonly status: number, readonly body: Body, readonly headers: Headers }

async function post (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Got> {
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
  return { status: answer.status, body: await answer.json() as Body, headers: answer.headers }
}

t.setTimeout(300_000)

t.test('lejianwen: the web login goes over our page and comes back with its token; a settings call asks again', { timeout: 120_000 }, async t => {
  const console = await startLejianwen(t)
  const { service, origin } = await behind(t, 'lejianwen', console)
  const { key } = await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  const { page } = await visit(t, origin)
  await page.goto('/_admin/#/login')
  await page.locator('#username').fill('Alice')
  await page.locator('#password').fill('alice-password')
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.waitForURL(/\/2fa\/verify\//)
  t.equal(await page.evaluate('localStorage.length'), 0, 'no token before the code')
  service.nextStep()
  await page.locator('#code').fill(service.code(key))
  await page.getByRole('button', { name: /Verify/ }).click()
  // A notice that could not be mailed is said first, and where else than on the settings page.
  await page.waitForURL(/\/2fa\/settings$/)
  await page.goto('/_admin/')
  await page.getByRole('heading', { name: 'Hello alice' }).waitFor()
  const token = await page.evaluate<string>('localStorage.getItem("access_token")')
  t.equal(await page.evaluate('localStorage.getItem("wc-option:local:access_token")'), token)
  t.equal(console.tokens.get(token), 'alice')

  service.advance(1_000_000)
  await page.getByRole('button', { name: 'Change password' }).click()
  await page.waitForURL(/\/2fa\/verify\//)
  t.notOk(console.reached().includes('POST /api/admin/user/changeCurPwd'), 'not before the code')
  service.nextStep()
  await page.locator('#code').fill(service.code(key))
  await page.getByRole('button', { name: /Verify/ }).click()
  await page.getByRole('link', { name: 'Continue' }).click()
  await page.getByRole('heading', { name: 'Hello alice' }).waitFor()
  t.equal(await page.evaluate('localStorage.getItem("access_token")'), token, 'the token is back')
  await page.getByRole('button', { name: 'Change password' }).click()
  await page.getByText('changed').waitFor()
  t.ok(console.reached().includes('POST /api/admin/user/changeCurPwd'))

  await page.goto('/2fa/settings')
  await page.getByRole('heading', { name: /Two-factor/i }).first().waitFor()
  t.match(await page.locator('main').innerText(), /Enabled/, 'the settings page knows whose token it is')
})

t.test('lejianwen: none of the calls that hand out a token does so without a code, and no token opens anything', { timeout: 120_000 }, async t => {
  const console = await startLejianwen(t)
  const { service, gateway } = await behind(t, 'lejianwen', console)
  for (const name of ['alice', 'sam']) await service.enrol(wire(name, 'bearer', `elsewhere ${name}`, 'x'))
  const calls: readonly (readonly [string, string, unknown?])[] = [
    ['POST', '/api/login', { username: 'alice', password: 'alice-password', id: '1', uuid: 'u' }],
    ['POST', '/api/admin/login', { username: 'Alice ', password: 'alice-password' }],
    ['POST', '/api/admin/user/register', { username: 'alice', password: 'x', confirm_password: 'x' }],
    ['GET', '/api/oidc/auth-query?code=ready&id=1&uuid=u'],
    ['GET', '/api/admin/oidc/auth-query?code=ready&uuid=']
  ]
  for (const [method, path, body] of calls) {
    const before = console.tokens.size
    const answer = await fetch(gateway.url + path, { method, headers: { 'content-type': 'application/json' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
    const text = await answer.text()
    t.equal(answer.status, 200, path)
    t.equal(console.tokens.size, before + 1, `${path}: the console did log in`)
    const token = [...console.tokens.keys()].at(-1) ?? ''
    t.notMatch(text, token, `${path}: and nobody has the token`)
    const said = JSON.parse(text) as Body
    t.match(path.startsWith('/api/admin') ? said['code'] : said['type'], path.startsWith('/api/admin') ? 403 : 'email_check', path)
    t.equal(/api\/admin/.test(path), answer.headers.getSetCookie().some(cookie => cookie.startsWith('__Host-postern-page-')), `${path}: a browser goes on at our page`)
  }
  t.match(await (await fetch(`${gateway.url}/api/admin/oidc/auth-query?code=wait`)).json(), { error: 'No authed oidc is found' })
  t.match((await post(`${gateway.url}/api/admin/login`, { username: 'alice', password: 'no' })).body, { code: 101 }, 'the console\'s own refusal')

  const token = [...console.tokens].find(([, name]) => name === 'alice')?.[0] ?? ''
  const before = console.reached().length
  for (const headers of [{ 'api-token': token }, { API_Token: token }, { authorization: `Bearer ${token}` }, { authorization: `1234567${token}` }, { 'api-token': ` ${token}` }, { 'api-token': token, authorization: `Bearer ${token}` }]) {
    for (const path of ['/api/admin/user/current', '/api/admin/user_token/list', '/api/ab', '/API/admin/user/current', '//api/admin/user/current', '/api/admin/%75ser/current', '/api/admin/peer/list?api-token=x', `/api/admin/user/current?api-token=${token}`]) {
      const answer = await fetch(gateway.url + path, { headers })
      const text = await answer.text()
      if (answer.status === 200 && !/"code":(?:403|101)/.test(text)) t.fail(`${path} with ${JSON.stringify(headers)}: ${text}`)
    }
  }
  t.same(console.reached().slice(before), [], 'nothing reached the console')
  const refusal = await fetch(`${gateway.url}/api/admin/user/current`, { headers: { 'api-token': token } })
  t.match(await refusal.json(), { code: 403, data: null }, 'in the words at which its page logs in again')
})

t.test('lejianwen: who must enrol is brought to the page where that is done', { timeout: 120_000 }, async t => {
  const console = await startLejianwen(t)
  const { origin } = await behind(t, 'lejianwen', console, { tenant: { require: 'everyone' } })
  const { page } = await visit(t, origin)
  await page.goto('/_admin/')
  await page.locator('#username').fill('plain')
  await page.locator('#password').fill('plain-password')
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.waitForURL(/\/2fa\/(?:enrol|settings)/)
  t.match(await page.locator('main').innerText(), /authenticator/i)
})

t.test('lejianwen: another user\'s token in the answer of who-am-I is a login like any other', { timeout: 120_000 }, async t => {
  const console = await startLejianwen(t)
  const { service, gateway } = await behind(t, 'lejianwen', console)
  const own = 'a'.repeat(32)
  console.tokens.set(own, 'plain')
  t.match(await (await fetch(`${gateway.url}/api/admin/user/current`, { headers: { 'api-token': own, cookie: bindingCookie('x') } })).json(), { code: 0, data: { username: 'plain', token: own } }, 'its own is echoed')
  await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  const swapped = await (await fetch(`${gateway.url}/api/admin/user/current`, { headers: { 'api-token': own, 'x-swap': '1' } })).text()
  t.match(JSON.parse(swapped), { code: 403, data: null })
  t.notMatch(swapped, [...console.tokens.keys()].at(-1) ?? '')
})

t.test('kingmo888: the web login withholds its session, goes over our page and ends at home', { timeout: 120_000 }, async t => {
  const console = await startKingmo888(t)
  const { service, origin } = await behind(t, 'kingmo888', console)
  const { key } = await service.enrol(wire('alice', 'cookie', 'elsewhere', 'x'))
  const { page, context } = await visit(t, origin)
  await page.goto('/api/user_action?action=login')
  await page.locator('#account').fill('ALICE')
  await page.locator('#password').fill('alice-password')
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.waitForURL(/\/2fa\/verify\//)
  t.notOk((await context.cookies()).some(one => one.name === 'sessionid'), 'no session before the code')
  service.nextStep()
  await page.locator('#code').fill(service.code(key))
  await page.getByRole('button', { name: /Verify/ }).click()
  await page.getByRole('link', { name: 'Continue' }).click()
  await page.getByRole('heading', { name: '/api/work' }).waitFor()
  t.equal(console.sessions.get((await context.cookies()).find(one => one.name === 'sessionid')?.value ?? ''), 'alice')
})

t.test('kingmo888: neither login, nor any spelling of one, hands out a session or token that opens anything', { timeout: 120_000 }, async t => {
  const console = await startKingmo888(t)
  const { service, gateway } = await behind(t, 'kingmo888', console)
  await service.enrol(wire('alice', 'cookie', 'elsewhere', 'x'))
  await service.enrol(wire('bo&b', 'cookie', 'elsewhere too', 'y'))
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  const login = async (path: string, fields: Record<string, string>) =>
    await fetch(gateway.url + path, { method: 'POST', headers: form, body: new URLSearchParams(fields), redirect: 'manual' })
  for (const name of ['alice', 'Alice', 'bo&b']) {
    const password = `${name.toLowerCase()}-password`
    for (const [path, fields] of [['/api/user_action?action=login', { account: name, password }], ['/admin/login/?next=/admin/', { username: name, password }]] as const) {
      const answer = await login(path, fields)
      t.notMatch(answer.headers.getSetCookie().join(), /sessionid/, `${path} as ${name}`)
      t.match(answer.headers.get('location') ?? await answer.text(), /\/2fa\/verify\//, `${path} as ${name}`)
    }
  }
  t.match(await (await login('/api/user_action?action=login', { account: 'alice', password: 'no' })).json(), { code: 0, msg: 'wrong' })
  const plain = await login('/api/user_action?action=login', { account: 'plain', password: 'plain-password' })
  t.match(plain.headers.getSetCookie().join(), /sessionid=\w+/, 'who has no factor is in, as before')

  // Names that anybody may register, and that are not alice's.
  for (const name of ['alice】', 'alice】x', 'x】【name:alice']) {
    const other = await login('/api/user_action?action=login', { account: name, password: `${name}-password` })
    t.match(other.headers.getSetCookie().join(), /sessionid=\w+/, `"${name}" is somebody else, without a factor`)
  }

  const before = console.hits.length
  for (const [session, name] of console.sessions) {
    if (name !== 'alice' && name !== 'bo&b') continue
    for (const path of ['/api/work', '/api/share', '/admin/', '/api/down_peers', '/webui/', '/api/Work', '/api/logout']) {
      const answer = await fetch(gateway.url + path, { headers: { cookie: `sessionid=${session}` }, redirect: 'manual' })
      if (answer.status === 200) t.fail(`${path} opened with a session that passed nothing`)
    }
  }
  t.same(console.hits.slice(before).filter(hit => hit.headers.cookie?.includes('sessionid') === true && hit.url !== '/api/work'), [])
  for (const path of ['/api/login', '/api/loginX', '/api/login/anything']) {
    await post(`${gateway.url}${path}`, { username: 'alice', password: 'alice-password', id: '1', uuid: 'u' })
    const token = [...console.tokens.keys()].at(-1) ?? ''
    t.equal((await fetch(`${gateway.url}/api/ab`, { headers: { authorization: `Bearer ${token}` } })).status, 401, `${path}: its token opens nothing`)
  }
})

/** A console with tokens that no preset knows. */
async function startTokens (t: Teardown) {
  const tokens = new Map<string, string>()
  const upstream = await startUpstream(t, (request, response, body) => {
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    void body().then(text => {
      const user = tokens.get(String(request.headers['x-token'] ?? ''))
      if (request.url === '/auth') {
        const { user: name, password } = JSON.parse(text) as Body
        if (password !== `${name}-password`) { json(403, { error: 'wrong' }); return }
        const token = randomBytes(16).toString('hex')
        tokens.set(token, String(name))
        json(200, { data: { jwt: token } })
      } else if (request.url === '/') response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>home</h1>')
      else if (user === undefined) json(401, {})
      else if (request.url === '/me') json(200, { user: { uid: user, mail: `${user}@console.example`, label: user.toUpperCase() } })
      else json(request.url === '/refuses' ? 409 : 200, { seen: request.url, user })
    })
  })
  return { ...upstream, tokens }
}

const TOKEN_ENV = {
  POSTERN_GATEWAY_GENERIC_TOKEN_HEADER: 'X-Token',
  POSTERN_GATEWAY_GENERIC_TOKEN_KEY: 'token',
  POSTERN_GATEWAY_GENERIC_WHO: 'GET /me',
  POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.uid',
  POSTERN_GATEWAY_GENERIC_EMAIL: 'user.mail',
  POSTERN_GATEWAY_GENERIC_DISPLAY_NAME: 'user.label',
  POSTERN_GATEWAY_GENERIC_LOGIN: 'POST /auth',
  POSTERN_GATEWAY_GENERIC_LOGIN_TOKEN: 'data.jwt',
  POSTERN_GATEWAY_GENERIC_PASSWORD: 'POST /password, POST /refuses',
  POSTERN_GATEWAY_GENERIC_LOGOUT: 'POST /logout'
}

const jar = (answer: { readonly headers: Headers }): string => answer.headers.getSetCookie().map(one => one.split(';')[0]).join('; ')

/** A browser without Chromium: the form of the verification page. */
async function answerPage (origin: string, path: string, cookie: string, code: string): Promise<Response> {
  const page = await (await fetch(origin + path, { headers: { cookie, accept: 'text/html' } })).text()
  const field = (name: string): string => new RegExp(`name="${name}" value="([^"]*)"`).exec(page)?.[1] ?? ''
  return await fetch(origin + path, {
    method: 'POST',
    redirect: 'manual',
    headers: { cookie, origin, accept: 'text/html', 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ csrf: field('csrf'), idempotency_key: field('idempotency_key'), code })
  })
}

t.test('generic with tokens: a login is held, its page puts the token where the console looks, and log-out ends it', { timeout: 120_000 }, async t => {
  const console = await startTokens(t)
  const { service, origin, gateway } = await behind(t, 'generic', console, { env: TOKEN_ENV })
  const { key } = await service.enrol(wire('alice', 'token', 'elsewhere', 'x'))
  t.match((await post(`${origin}/auth`, { user: 'alice', password: 'no' })).body, { error: 'wrong' })
  t.match((await post(`${origin}/auth`, { user: 'plain', password: 'plain-password' })).body, { data: { jwt: /^\w{32}$/ } })

  const held = await post(`${origin}/auth`, { user: 'alice', password: 'alice-password' })
  t.match(held, { status: 401, body: { code: 'login_required', verify_url: /^\/2fa\/verify\// } })
  const token = [...console.tokens.keys()].at(-1) ?? ''
  t.notMatch(JSON.stringify(held.body), token)
  const cookie = jar(held)
  const document = await raw(gateway.port, lines('GET', '/', [`Cookie: ${cookie}`, 'Accept: text/html', 'Sec-Fetch-Mode: navigate']))
  t.equal(document.headers['location'], held.body['verify_url'], 'the next document is our page')
  service.nextStep()
  const right = await answerPage(origin, String(held.body['verify_url']), cookie, service.code(key))
  const page = await right.text()
  t.match(page, /data-keys="[^"]*token[^"]*"/)
  t.match(page, new RegExp(`data-value="${token}"`))
  const bound = jar(right)
  const call = async (method: string, path: string, one = token): Promise<number> =>
    (await fetch(origin + path, { method, headers: { 'x-token': one, cookie: bound } })).status
  t.equal(await call('GET', '/devices'), 200)
  t.equal((await fetch(`${origin}/devices`, { headers: { 'x-token': token } })).status, 401, 'not in another browser')

  t.equal(await call('POST', '/refuses'), 409)
  t.equal(await call('GET', '/devices'), 200, 'a password call that failed changed nothing')
  t.equal(await call('POST', '/password'), 200)
  t.equal(await call('GET', '/devices'), 200, 'who changed the password stays')
  const out = await fetch(`${origin}/logout`, { method: 'POST', headers: { 'x-token': token, cookie: bound } })
  t.equal(out.status, 200)
  t.match(out.headers.getSetCookie().join(), /postern-page-\w+=; .*Max-Age=0/, 'and nothing brings the token back')
  t.equal(await call('GET', '/devices'), 401, 'logged out')
})

t.test('generic with tokens: who may not go on at a page, must enrol, or comes while the service is away', { timeout: 120_000 }, async t => {
  const console = await startTokens(t)
  const login = { user: 'alice', password: 'alice-password' }
  const refusing = await behind(t, 'generic', console, { env: { ...TOKEN_ENV, POSTERN_GATEWAY_GENERIC_LOGIN_CLIENT: 'refuse' } })
  await refusing.service.enrol(wire('alice', 'token', 'elsewhere', 'x'))
  t.match(await post(`${refusing.origin}/auth`, login), { status: 401, body: { code: 'login_required', verify_url: null } })
  const must = await behind(t, 'generic', console, { env: TOKEN_ENV, tenant: { require: 'everyone' } })
  t.match(await post(`${must.origin}/auth`, login), { status: 403, body: { code: 'enrolment_required', verify_url: `${must.origin}/2fa/enrol` } })
  await must.service.app.api.close()
  const away = await post(`${must.origin}/auth`, login)
  t.match(away, { status: 429, body: { code: 'unavailable' } })
  t.ok(Number(away.body['retry_after']) > 0)
  t.notMatch(JSON.stringify(away.body), [...console.tokens.keys()].at(-1) ?? '')
})

t.test('lantongxue: panel and client log in as the user name says, in every spelling, and the token is held', { timeout: 120_000 }, async t => {
  const console = await startLantongxue(t)
  const { service, origin, gateway } = await behind(t, 'lantongxue', console)
  const { key } = await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  for (const username of ['alice', 'ALICE', 'Alice ', '\uff21lice']) {
    const before = console.tokens.size
    const panel = await post(`${origin}/admin/auth/login`, { username, password: 'alice-password', code: 'x', captchaId: 'y' })
    if (console.tokens.size > before) t.match(panel.body, { code: 500, message: /reload this page/, data: null }, username)
    const client = await post(`${origin}/api/login`, { username, password: 'alice-password', id: '1', uuid: 'u' })
    if (client.body['error'] === undefined) t.match(client.body, { type: 'email_check', tfa_type: 'tfa_check', user: { name: 'alice' } }, username)
  }
  t.equal(console.tokens.size, 6, 'three of the spellings are the same user to the server')
  t.match((await post(`${origin}/admin/auth/login`, { username: 'bo\u00df', password: 'x' })).body, { code: 500, message: /cannot be used here/ })
  t.match((await post(`${origin}/api/login`, { username: 'bo\u00df', password: 'x' })).body, { error: /cannot be used here/ })
  for (const token of console.tokens.keys()) {
    for (const authorization of [token, `Bearer ${token}`, `bearer ${token}`, ` ${token}`]) {
      const answer = await fetch(`${origin}/admin/users/list`, { headers: { authorization } })
      if (/"user"/.test(await answer.text())) t.fail('a held token opened the panel')
    }
  }
  const held = await post(`${origin}/admin/auth/login`, { username: 'alice', password: 'alice-password' })
  const document = await raw(gateway.port, lines('GET', '/', [`Cookie: ${jar(held)}`, 'Accept: text/html', 'Sec-Fetch-Mode: navigate']))
  t.match(document.headers['location'], /^\/2fa\/verify\//)
  service.nextStep()
  const right = await answerPage(origin, String(document.headers['location']), jar(held), service.code(key))
  const token = [...console.tokens.keys()].at(-1) ?? ''
  t.match(await right.text(), new RegExp(`data-value="&#34;${token}&#34;"`), 'as its pages keep it')
  const cookie = jar(right)
  const call = async (method: string, path: string): Promise<Body> =>
    await (await fetch(origin + path, { method, headers: { authorization: token, cookie } })).json() as Body
  t.match(await call('GET', '/admin/users/list'), { code: 200, data: { user: 'alice' } })
  service.advance(1_000_000)
  t.match(await call('POST', '/admin/users/edit'), { code: 500, message: /fresh verification code/ })
  t.notOk(console.paths().includes('POST /admin/users/edit'))
  t.match(await (await fetch(`${origin}/admin/users/list`, { headers: { authorization: 'f'.repeat(64) } })).json(), { code: 8888 }, 'a token of nobody: log in again')
})

t.test('lantongxue: a call that names two users, or one in the form and another in JSON, logs nobody in as the other', { timeout: 120_000 }, async t => {
  const console = await startLantongxue(t)
  const { service, origin } = await behind(t, 'lantongxue', console)
  await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  const rest = '"password":"alice-password","id":"1","uuid":"u"'
  const form = 'application/x-www-form-urlencoded'
  for (const [body, type] of [
    [`{"username":"bob","Username":"alice",${rest}}`, 'application/json'],
    [`{"Username":"alice","username":"bob",${rest},"USERNAME":"alice"}`, 'application/json'],
    [`{"username":"bob","u\u017fername":"alice",${rest}}`, 'application/json'],
    [`{"username":"bob","username":"alice",${rest}}`, 'application/json'],
    [`{"x":"&username=bob&","username":"alice",${rest}}`, form],
    [`{"x":"&username=bob&","username":"alice",${rest}}`, `${form}; charset=utf-16`],
    [`{"Username":"alice",${rest}}`, 'text/plain']
  ] as const) {
    for (const path of ['/api/login', '/admin/auth/login']) {
      const answer = await (await fetch(origin + path, { method: 'POST', headers: { 'content-type': type }, body })).text()
      for (const token of console.tokens.keys()) {
        t.notMatch(answer, token, `${path} ${body}`)
        t.not((await fetch(`${origin}/api/ab`, { headers: { authorization: `Bearer ${token}` } })).status, 200, `${path} ${body}`)
      }
    }
  }
  t.ok([...console.tokens.values()].includes('alice'), 'the server itself did log her in')
  t.match((await post(`${origin}/api/login`, { Username: 'carl', password: 'carl-password' })).body, { type: 'access_token' }, 'one name in another case is one name')
})

t.test('kingmo888: while tokens of before are let through, no spelling of its login call hands out one without a code', { timeout: 120_000 }, async t => {
  const console = await startKingmo888(t)
  const { service, origin } = await behind(t, 'kingmo888', console, {
    tenant: { exempt: ['api_token'] }, env: { POSTERN_GATEWAY_KINGMO888_OLD_TOKENS_UNTIL: '2100-01-01' }
  })
  await service.enrol(wire('alice', 'cookie', 'elsewhere', 'x'))
  for (const path of ['/api/login', '/api/loginX', '/api/login/', '/api/login/anything/else', '/api/login.json']) {
    const { body } = await post(origin + path, { username: 'alice', password: 'alice-password', id: '1', uuid: 'u' })
    t.match(body, { access_token: '', tfa_type: 'tfa_check' }, path)
  }
  t.equal(console.tokens.size, 5, 'each of them did log in at the console')
})

t.test('rustdesk: whose client must enrol does so at the address it names, with the server\'s own user name and password', {
  timeout: 120_000
}, async t => {
  const console = await startLejianwen(t)
  const { service, gateway, origin } = await behind(t, 'rustdesk', console, { tenant: { require: 'everyone' } })
  const login = { username: 'alice', password: 'alice-password' }
  const refused = await post(`${origin}/api/login`, { ...login, id: '1', uuid: 'u', type: 'account' })
  t.equal(refused.status, 403)
  const address = /http\S+/.exec(String(refused.body['error']))?.[0] ?? ''
  t.equal(address, `${origin}/2fa/settings`)

  const { page, context } = await visit(t, origin)
  const signIn = async (password: string): Promise<void> => {
    await page.getByLabel('User name').fill('alice')
    await page.getByLabel('Password').fill(password)
    await page.getByRole('button', { name: 'Log in' }).click()
  }
  await page.goto(address)
  await signIn('no')
  t.match(await page.getByRole('alert').innerText(), /does not know this user name/)
  await signIn('alice-password')
  await page.waitForURL(/\/2fa\/(?:enrol|settings)/)
  await page.getByRole('button', { name: 'Enable 2FA' }).or(page.getByRole('link', { name: 'Enable 2FA' })).first().click()
  const key = (await page.getByLabel('Your key', { exact: true }).innerText()).replaceAll(' ', '')
  await page.locator('[autocomplete=one-time-code]').first().fill(service.code(key))
  await page.locator('form:has([autocomplete=one-time-code]) button[type=submit]').first().click()
  await page.getByLabel('I have kept these codes').waitFor()
  const kept = JSON.stringify([await context.cookies(), await page.evaluate('({ ...localStorage, ...sessionStorage })'), await page.content()])
  t.ok(console.tokens.size > 1)
  t.same([...console.tokens.keys()].filter(token => kept.includes(token)), [], 'the browser never has the server\'s token')
  t.equal(console.hits.filter(({ url }) => url === '/api/login').at(-1)?.headers['x-forwarded-for'], '127.0.0.1', 'guesses count for who makes them')
  t.match((await post(`${origin}/api/login`, { ...login, id: '1', uuid: 'u', type: 'account' })).body, { type: 'email_check', tfa_type: 'tfa_check' })

  const second = await context.browser()?.newContext({ baseURL: origin, locale: 'en-US' })
  const other = await second?.newPage() ?? page
  await other.goto('/2fa/settings')
  await other.getByLabel('User name').fill('alice')
  await other.getByLabel('Password').fill('alice-password')
  await other.getByRole('button', { name: 'Log in' }).click()
  await other.waitForURL(/\/2fa\/verify\//)
  service.nextStep()
  await other.locator('#code').fill(service.code(key))
  await other.getByRole('button', { name: /Verify/ }).click()
  await other.getByRole('link', { name: 'Continue' }).click()
  await other.waitForURL(/\/2fa\/settings$/)
  t.match(await other.locator('main').innerText(), /Enabled/, 'the password alone changes nothing; with the code the page is there')

  const before = console.hits.length
  for (const from of ['https://evil.example', 'null', undefined]) {
    const answer = await fetch(`${gateway.url}/2fa/own/sign-in`, {
      method: 'POST', headers: { ...(from === undefined ? {} : { origin: from }), accept: 'text/html' }, body: new URLSearchParams(login)
    })
    t.equal(answer.status, 403, `a form from ${String(from)}`)
    t.same(answer.headers.getSetCookie(), [])
  }
  t.equal(console.hits.length, before)
})
