// The client API behind the gateway, as unmodified RustDesk clients use it: a server written from its wire format, and
// a client that does field by field what the Flutter and the Sciter one do.

import { randomBytes } from 'node:crypto'
import t from 'tap'
import { lines, raw } from '../helpers/console.ts'
import { served, startGateway, startUpstream, wire } from '../helpers/gateway.ts'
import { startService, type StartOptions, type Teardown } from '../helpers/service.ts'

type Body = Record<string, any> // eslint-disable-line @typescript-eslint/no-explicit-any -- read field by field

const ALL = { id: '123456789', uuid: 'dXVpZA==', deviceInfo: { os: 'linux', type: 'client', name: 'desk' } }

/** A server that knows nothing of 2FA. `again`: it hands the same token to a second login of a user. */
async function startServer (t: Teardown, { again = false } = {}) {
  const tokens = new Map<string, string>()
  const upstream = await startUpstream(t, (request, response, body) => {
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json', 'x-server': 'api' }).end(JSON.stringify(value))
    }
    const login = (name: string): void => {
      const before = [...tokens].find(([, one]) => one === name)?.[0]
      const token = again && before !== undefined ? before : randomBytes(16).toString('hex')
      tokens.set(token, name)
      json(200, { type: 'access_token', access_token: token, user: { name, email: `${name}@console.example`, note: '', status: 1, is_admin: false, info: {} } })
    }
    void body().then(text => {
      const path = (request.url ?? '').split('?')[0] ?? ''
      // Any seven bytes before the token, as some servers do.
      const user = tokens.get((request.headers.authorization ?? '').slice(7))
      if (path === '/api/login') {
        const { username, password } = JSON.parse(text) as Body
        if (password === `${String(username).toLowerCase()}-password`) login(String(username).toLowerCase())
        else json(400, { error: 'Wrong credentials' })
      } else if (path === '/api/oidc/auth-query') {
        if (request.url?.includes('code=ready') === true) login('sam')
        else json(200, { message: 'pending', error: 'No authed oidc is found' })
      } else if (path === '/api/heartbeat' || path === '/api/sysinfo') json(200, { modified_at: 1 })
      else if (path === '/api/login-options') json(200, ['oidc/test'])
      else if (user === undefined) json(401, { error: 'Unauthorized' })
      else if (path === '/api/currentUser') json(200, { name: user, email: `${user}@console.example`, is_admin: false })
      else if (path === '/api/ab/personal') response.writeHead(200).end()
      else json(200, { seen: path, user })
    })
  })
  const own = new Set(['/api/currentUser'])
  return { ...upstream, tokens, reached: () => upstream.hits.filter(hit => !own.has(hit.url)).map(hit => `${hit.method} ${hit.url}`) }
}

interface Wanted { tenant?: StartOptions['tenant'], env?: Record<string, string>, again?: boolean }

async function setting (t: Teardown, { tenant = {}, env = {}, again = false }: Wanted = {}) {
  const service = await startService(t, { tenant })
  const server = await startServer(t, { again })
  const behind = { upstream: server.url, service: await served(service), key: service.keys.gate.key, preset: 'rustdesk', env }
  return { service, server, behind, gateway: await startGateway(t, behind) }
}

interface Got { status: number, body: Body, headers: Headers }

async function post (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Got> {
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: body === undefined ? '' : JSON.stringify(body) })
  const text = await answer.text()
  return { status: answer.status, body: text === '' ? {} : JSON.parse(text) as Body, headers: answer.headers }
}

/** What the Flutter client does with an answer of the first call: user_model.dart, login.dart. */
function flutterFirst ({ status, body }: { status: number, body: Body }): string {
  if (status !== 200 || body['error'] !== undefined) {
    if (typeof body['error'] !== 'string') throw new TypeError("type 'Null' is not a subtype of type 'String'")
    return `error ${body['error']}`
  }
  if (body['type'] === 'access_token') return body['access_token'] === undefined ? 'silent' : 'logged in'
  if (body['type'] !== 'email_check') return 'Failed, bad response from server'
  if (body['tfa_type'] === undefined || body['tfa_type'] === 'email_check') return `e-mail dialog ${body['user']?.email ?? ''}`
  return body['tfa_type'] === 'tfa_check' ? '2FA dialog' : 'Failed, bad tfa type from server'
}

/** The second call: no password; null fields are left out. */
const flutterSecond = (challenge: Body, code: string): Body => ({
  username: challenge['user']?.name,
  ...ALL,
  autoLogin: true,
  type: 'email_code',
  verificationCode: code,
  ...(challenge['tfa_type'] === 'tfa_check' ? { tfaCode: code } : {}),
  secret: challenge['secret']
})

/** index.tis: `user` is read without a look, and `tfaCode` is there and empty for e-mail. */
const sciterSecond = (challenge: Body, code: string): Body => {
  const { name } = challenge['user'] as Body
  return {
    username: name,
    id: ALL.id,
    uuid: ALL.uuid,
    type: 'email_code',
    verificationCode: code,
    tfaCode: challenge['tfa_type'] === 'tfa_check' ? code : '',
    secret: challenge['secret'],
    deviceInfo: ALL.deviceInfo
  }
}

const first = (name: string): Body => ({ username: name, password: `${name.toLowerCase()}-password`, ...ALL, autoLogin: true, type: 'account' })

t.test('a user without a factor gets the server\'s own answer, and a wrong password the server\'s own error', async t => {
  const { gateway } = await setting(t)
  const login = await post(`${gateway.url}/api/login`, first('plain'))
  t.equal(flutterFirst(login), 'logged in')
  t.equal(login.headers.get('x-server'), 'api')
  t.equal(flutterFirst(await post(`${gateway.url}/api/login`, { ...first('plain'), password: 'no' })), 'error Wrong credentials')
  t.match((await post(`${gateway.url}/api/currentUser`, ALL, { authorization: `Bearer ${login.body['access_token']}` })).body, { name: 'plain' })
})

t.test('Flutter and Sciter log in with a TOTP code; the second call never reaches the server', async t => {
  const { gateway, service, server } = await setting(t)
  const { key, backupCodes } = await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  for (const second of [flutterSecond, sciterSecond]) {
    service.nextStep()
    const challenge = await post(`${gateway.url}/api/login`, first('Alice'))
    t.equal(flutterFirst(challenge), '2FA dialog')
    t.match(challenge.body, { type: 'email_check', tfa_type: 'tfa_check', user: { name: 'alice', info: {} } })
    const token = [...server.tokens.keys()].at(-1) ?? ''
    t.notMatch(JSON.stringify(challenge.body), token)
    t.equal((await post(`${gateway.url}/api/ab`, {}, { authorization: `Bearer ${token}` })).status, 401, 'the held token opens nothing')
    const before = server.reached().length
    const wrong = await post(`${gateway.url}/api/login`, second(challenge.body, '000000'))
    t.match(wrong, { status: 400, body: { error: 'The verification code is incorrect or has expired' } })
    const code = service.code(key)
    const right = await post(`${gateway.url}/api/login`, second(challenge.body, code))
    t.match(right, { status: 200, body: { type: 'access_token', access_token: token, user: { name: 'alice', status: 1 } } })
    t.equal(right.headers.get('x-server'), 'api', 'released unchanged')
    t.equal((await post(`${gateway.url}/api/login`, second(challenge.body, code))).body['access_token'], token, 'the dialog submits twice')
    t.equal(server.reached().length, before, 'nothing was forwarded')
    t.match((await post(`${gateway.url}/api/ab/get`, {}, { authorization: `Bearer ${token}` })).body, { user: 'alice' })
    t.equal((await post(`${gateway.url}/api/ab/personal`, undefined, { authorization: `Bearer ${token}` })).status, 200, 'an empty JSON body')
  }
  const challenge = await post(`${gateway.url}/api/login`, first('alice'))
  t.equal((await post(`${gateway.url}/api/login`, sciterSecond(challenge.body, backupCodes[0] ?? ''))).status, 200, 'a backup code, where it can be typed')
})

t.test('two replicas and a restart answer for one another; a secret is worth nothing elsewhere', async t => {
  const { gateway, behind, service } = await setting(t)
  const { key } = await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  const replica = await startGateway(t, behind)
  service.nextStep()
  const challenge = await post(`${gateway.url}/api/login`, first('alice'))
  await gateway.app.close()
  const code = service.code(key)
  const second = flutterSecond(challenge.body, code)
  for (const forged of [{ ...second, uuid: 'b3RoZXI=' }, { ...second, id: '1' }, { ...second, secret: `${String(second['secret'])}A` }, { ...second, secret: 'k.AAAA' }, { ...second, secret: '' }]) {
    t.equal((await post(`${replica.url}/api/login`, forged)).status, 400)
  }
  t.equal((await post(`${replica.url}/api/login`, second)).body['type'], 'access_token')
  t.equal((await post(`${replica.url}/api/login`, second)).body['type'], 'access_token', 'an equal repeat')
  t.equal((await post(`${replica.url}/api/login`, { ...second, tfaCode: '111111' })).status, 400)
})

t.test('a second login that gets a verified token is held all the same, and the first goes on', async t => {
  const { gateway, service } = await setting(t, { again: true })
  const { key } = await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  service.nextStep()
  const challenge = await post(`${gateway.url}/api/login`, first('alice'))
  const { access_token: token } = (await post(`${gateway.url}/api/login`, flutterSecond(challenge.body, service.code(key)))).body
  const thief = await post(`${gateway.url}/api/login`, { ...first('alice'), id: '9' })
  t.equal(flutterFirst(thief), '2FA dialog')
  t.notMatch(JSON.stringify(thief.body), String(token))
  t.equal((await post(`${gateway.url}/api/ab`, {}, { authorization: `Bearer ${String(token)}` })).status, 200)
})

t.test('guesses on one secret end, however many at once', async t => {
  const { gateway, service } = await setting(t)
  const { key } = await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  service.nextStep()
  const challenge = await post(`${gateway.url}/api/login`, first('alice'))
  const right = service.code(key)
  const guesses = ['100001', '100002', '100003', '100004', '100005', '100006', '100007', '100008'].filter(code => code !== right)
  const answers = await Promise.all(guesses.map(async code => await post(`${gateway.url}/api/login`, flutterSecond(challenge.body, code))))
  t.ok(answers.every(({ status, body }) => status >= 400 && status < 500 && typeof body['error'] === 'string'))
  t.not((await post(`${gateway.url}/api/login`, flutterSecond(challenge.body, right))).status, 200)
})

t.test('an e-mail code: the masked address, spaces around the code, and the wait in words', async t => {
  const { gateway, service } = await setting(t)
  await service.enrolEmail(wire('erin', 'bearer', 'elsewhere', 'x'), 'erin@console.example')
  service.advance(120_000)
  const challenge = await post(`${gateway.url}/api/login`, first('erin'))
  t.match(flutterFirst(challenge), /^e-mail dialog e•+@/)
  t.match(flutterFirst(await post(`${gateway.url}/api/login`, first('erin'))), /^error Please try again in \d+ seconds$/)
  const code = String(service.mails.at(-1)?.values['code'])
  t.equal((await post(`${gateway.url}/api/login`, flutterSecond(challenge.body, ` ${code} `))).body['type'], 'access_token')
})

t.test('who must enrol hears where, and single sign-on is challenged in the form that its client reads', async t => {
  const must = await setting(t, { tenant: { require: 'everyone' } })
  t.match(flutterFirst(await post(`${must.gateway.url}/api/login`, first('alice'))), /^error .*http:\/\/127\.0\.0\.1:1\/2fa\/settings/)
  const { gateway, service, server } = await setting(t)
  const { key } = await service.enrol(wire('sam', 'bearer', 'elsewhere', 'x'))
  service.nextStep()
  const query = (code: string): string => `${gateway.url}/api/oidc/auth-query?code=${code}&id=${ALL.id}&uuid=${encodeURIComponent(ALL.uuid)}`
  t.match(await (await fetch(query('wait'))).json(), { error: 'No authed oidc is found' })
  const challenge = await (await fetch(query('ready'))).json() as Body
  t.match(challenge, { type: 'email_check', tfa_type: 'tfa_check', access_token: '', user: { name: 'sam', info: {} } })
  t.equal((await post(`${gateway.url}/api/login`, flutterSecond(challenge, service.code(key)))).body['access_token'], [...server.tokens.keys()].at(-1))
})

t.test('single sign-on is exempt only where preset and tenant both say so', async t => {
  for (const [tenant, expected] of [[{ exempt: ['sso'] }, 'access_token'], [{}, 'email_check']] as const) {
    const { gateway, service } = await setting(t, { tenant, env: { POSTERN_GATEWAY_RUSTDESK_SSO: 'exempt' } })
    await service.enrol(wire('sam', 'bearer', 'elsewhere', 'x'))
    const answer = await (await fetch(`${gateway.url}/api/oidc/auth-query?code=ready`)).json() as Body
    t.equal(answer['type'], expected)
    if (expected === 'access_token') t.equal((await post(`${gateway.url}/api/ab`, {}, { authorization: `Bearer ${answer['access_token']}` })).status, 200)
  }
})

t.test('no form of an unverified token reaches the server, whatever the path, method or body', async t => {
  const { gateway, service, server } = await setting(t)
  await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
  const token = randomBytes(16).toString('hex')
  server.tokens.set(token, 'alice')
  for (const authorization of [`Bearer ${token}`, `bearer ${token}`, `1234567${token}`, `Bearer  ${token}`, `Basic: ${token}`, `Bearer\t${token}`, `Bearer ${token} x`]) {
    for (const path of ['/api/ab', '/api/currentUser', '/api/heartbeat', '/api/audit', '/API/ab', '/api/%61b', '/api/ab/', '/anything', '/api/loginX']) {
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'HEAD']) {
        const answer = await fetch(gateway.url + path, { method, headers: { authorization } })
        if (answer.status !== 401) t.fail(`${method} ${path} with ${authorization.slice(0, 8)}: ${answer.status}`)
      }
    }
  }
  for (const [type, body] of [['text/plain', JSON.stringify(first('alice'))], ['application/json', `{"username":"x",${JSON.stringify(first('alice')).slice(1)}`]] as const) {
    for (const path of ['/api/login', '/api/%6cogin', '/api/login/', '/API/LOGIN']) {
      const text = await (await fetch(gateway.url + path, { method: 'POST', headers: { 'content-type': type, 'accept-encoding': 'gzip' }, body })).text()
      if (/"access_token":"[^"]/.test(text)) t.fail(`${path} as ${type} gave a token`)
    }
  }
  t.same(server.reached().filter(one => !/\/api\/(?:%6c|l)ogin\/?$/i.test(one)), [])
  t.equal((await post(`${gateway.url}/api/heartbeat`, { id: '1' })).status, 200, 'without a token nobody is asked')
})

t.test('tokens of before pass until the date, where preset and tenant both say so; logins are asked all the same', async t => {
  const cases = [
    { exempt: ['api_token'], until: '2999-01-31', status: 200 },
    { exempt: [], until: '2999-01-31', status: 401 },
    { exempt: ['api_token'], until: '2020-01-31', status: 401 }
  ] as const
  for (const { exempt, until, status } of cases) {
    const env = { POSTERN_GATEWAY_RUSTDESK_OLD_TOKENS_UNTIL: until }
    const { gateway, service, server } = await setting(t, { tenant: { exempt: [...exempt] }, env })
    await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
    server.tokens.set('tokenofbefore', 'alice')
    const asked = await post(`${gateway.url}/api/ab`, {}, { authorization: 'Bearer tokenofbefore' })
    t.equal(asked.status, status, `${exempt.join()} until ${until}`)
    service.nextStep()
    t.equal(flutterFirst(await post(`${gateway.url}/api/login`, first('alice'))), '2FA dialog', `${exempt.join()} until ${until}`)
  }
})

t.test('in the mode observe nothing is held or refused; off does the same until its end', async t => {
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString()
  for (const mode of ['observe', `off until ${tomorrow}`]) {
    const { gateway, service, server } = await setting(t, { env: { POSTERN_GATEWAY_MODE: mode } })
    await service.enrol(wire('alice', 'bearer', 'elsewhere', 'x'))
    const login = await post(`${gateway.url}/api/login`, first('alice'))
    t.equal(flutterFirst(login), 'logged in', mode)
    t.match((await post(`${gateway.url}/api/ab`, {}, { authorization: `Bearer ${login.body['access_token']}` })).body, { user: 'alice' }, mode)
    t.ok(server.reached().includes('POST /api/ab'), mode)
  }
})

t.test('a login call that asks for another protocol is not tunnelled past the code, and a cookie is no token', async t => {
  const { gateway, service, server } = await setting(t, {
    tenant: { exempt: ['api_token'] }, env: { POSTERN_GATEWAY_RUSTDESK_OLD_TOKENS_UNTIL: '2100-01-01' }
  })
  await service.enrol(wire('sam', 'bearer', 'elsewhere', 'x'))
  for (const path of ['/api/oidc/auth-query?code=ready&id=1&uuid=u', '/API/oidc/auth-query/?code=ready', '/api/login']) {
    const { status, body } = await raw(gateway.port, lines('GET', path, ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']))
    t.same([status, body], [0, ''], path)
  }
  t.same(server.reached(), [])
  const token = 'f'.repeat(32)
  server.tokens.set(token, 'sam')
  const strict = await startGateway(t, { upstream: server.url, service: service.app.api.listeningOrigin, key: service.keys.gate.key, preset: 'rustdesk' })
  for (const cookie of [`authorization=${token}`, `authorization="Bearer ${token}"`, `a=1; authorization=${token}`]) {
    await fetch(`${strict.url}/api/ab`, { headers: { cookie } })
    t.notMatch(JSON.stringify(server.hits.at(-1)?.headers), token, cookie)
  }
})
