// Threat: answers, or the work behind them, tell somebody without a second factor who has one, which, and whether it is
// locked. B-23, B-38. Work is counted, not timed: what a busy machine measures says nothing.

import t from 'tap'
import { cookies, lines, raw, type Answered } from '../helpers/console.ts'
import { as, BROWSER, DOCUMENT, mounted, OWN_FORM, ORIGIN, who } from '../helpers/doors.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import { startGateway, startUpstream } from '../helpers/gateway.ts'
import { startService, type Answer, type Service, type WireBy } from '../helpers/service.ts'

const LIMITS = { tenant: { limits: { lock_in_a_row: 10, lock_in30_days: 10 } } }
const WRONG = { totp: '000000', backup_code: 'AAAA-AAAA-AAAA-AAAA' }

/** An answer without what is new in each: ids, tokens, times of day. */
const plain = ({ status, headers, body }: Answered): string => JSON.stringify([
  status,
  Object.entries(headers).filter(([name]) => !['date', 'set-cookie', 'content-length'].includes(name)),
  body.replace(/req-\w+|[0-9a-f]{8}-[0-9a-f-]{27}|[A-Za-z0-9_-]{22,}/g, '…')
])

/** Ten wrong codes, as far apart as the waits ask for. */
async function lock (service: Service, by: WireBy): Promise<void> {
  for (let i = 0; i < 10; i++) {
    service.advance(3_700_000)
    await service.verify(by, 'login', WRONG.totp)
  }
}

/** Subjects of every kind, each with a session that passed nothing. */
async function everybody (service: Service) {
  const keys = new Map<string, string>()
  for (const subject of ['with', 'waiting', 'locked']) {
    keys.set(subject, (await service.enrol(who(`${subject}.0`))).key)
  }
  await lock(service, who('locked.1'))
  await service.enrolEmail(who('mail.0'), 'mail@elsewhere.example')
  for (let i = 0; i < 5; i++) await service.verify(who('waiting.1'), 'login', WRONG.totp)
  return keys
}

t.test('without a login, pages and challenges of anybody look like those of nobody, and the service is not asked', async t => {
  const door = await mounted(t, LIMITS)
  const { service, ask } = door
  await everybody(service)
  const ids = new Map<string, string>()
  for (const subject of ['with', 'mail']) ids.set(subject, (await service.open(who(`${subject}.1`))).body.challenge.id)
  const before = await door.kept()
  let requests = 0
  service.app.api.server.on('request', ({ url }) => { if (url !== '/v1/changes') requests++ })
  const nobody = [...DOCUMENT]
  const reference = plain(await ask('GET', '/2fa/verify/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', nobody))
  for (const id of ids.values()) t.equal(plain(await ask('GET', `/2fa/verify/${id}`, nobody)), reference)
  const posted = plain(await ask('POST', '/2fa/verify/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', OWN_FORM, 'code=000000'))
  for (const id of ids.values()) {
    for (const path of [id, `${id}/email`]) t.equal(plain(await ask('POST', `/2fa/verify/${path}`, OWN_FORM, 'code=000000')), posted)
  }
  // A session that the console does not know is nobody, whoever it says it is.
  const kinds = ['unknown', 'plain', 'with', 'mail', 'waiting', 'locked']
  const settings = new Set<string>()
  for (const subject of kinds) {
    settings.add(plain(await ask('GET', '/2fa/settings', [...nobody, `Cookie: other=${subject}`, `X-User: ${subject}`])))
    settings.add(plain(await ask('GET', `/2fa/settings?user=${subject}`, nobody)))
  }
  t.equal(settings.size, 1)
  t.equal(await door.kept(), before)
  t.equal(requests, 0, 'the service was not asked')
  t.equal((await ask('GET', '/2fa/settings', [...DOCUMENT, as('plain.1')])).status, 200, 'who is logged in is served')
  t.ok(requests > 0)
})

t.test('somebody else\'s challenge looks like one that never was', async t => {
  const { service, ask } = await mounted(t, LIMITS)
  await everybody(service)
  await service.enrol(who('mallory.0'))
  const made = 'A'.repeat(38)
  for (const [method, body] of [['GET', ''], ['POST', 'code=000000']] as const) {
    const reference = plain(await ask(method, `/2fa/verify/${made}`, [...(body === '' ? DOCUMENT : OWN_FORM), as('mallory.1')], body))
    for (const subject of ['with', 'mail', 'waiting', 'locked']) {
      const { id } = (await service.open(who(`${subject}.1`))).body.challenge
      const answer = await ask(method, `/2fa/verify/${id}`, [...(body === '' ? DOCUMENT : OWN_FORM), as('mallory.1')], body)
      t.equal(plain(answer), reference, `${method} of ${subject}`)
    }
  }
})

t.test('a wrong password is answered by the console alone, whoever it was for', async t => {
  const fake = await startFakeService(t)
  fake.plain.add('plain')
  const upstream = await startUpstream(t, (request, response, body) => {
    response.setHeader('content-type', 'application/json')
    if (request.url !== '/login') {
      const subject = /^Bearer token-(\w+)$/.exec(request.headers.authorization ?? '')?.[1]
      response.end(JSON.stringify(subject === undefined ? {} : { id: subject }))
      return
    }
    void body().then(text => {
      const { name, password } = JSON.parse(text) as { name: string, password: string }
      if (password === 'right') response.end(JSON.stringify({ token: `token-${name}` }))
      else response.writeHead(401).end('{"error":"wrong name or password"}')
    })
  })
  const gateway = await startGateway(t, {
    upstream: upstream.url,
    service: fake.url,
    key: fake.tenantKey,
    preset: 'generic',
    env: {
      POSTERN_GATEWAY_GENERIC_TOKEN_HEADER: 'Authorization',
      POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me',
      POSTERN_GATEWAY_GENERIC_LOGIN: 'POST /login',
      POSTERN_GATEWAY_GENERIC_LOGIN_TOKEN: 'token'
    }
  })
  const login = async (name: string, password: string): Promise<Answered> => await raw(gateway.port, lines('POST', '/login',
    ['Content-Type: application/json', `Origin: ${ORIGIN}`, cookies('none', BROWSER)], JSON.stringify({ name, password })))
  const asked = (): number => fake.seen.filter(one => one.url !== '/v1/changes').length
  const answers = new Set<string>()
  for (const name of ['unknown', 'plain', 'with']) answers.add(plain(await login(name, 'wrong')))
  t.equal(answers.size, 1)
  t.match([...answers][0], /401.*wrong name or password/)
  t.equal(asked(), 0, 'the service was not asked about anybody')
  t.match(JSON.parse((await login('with', 'right')).body), { code: 'login_required' }, 'with the right password it is')
  t.ok(asked() > 0)
})

t.test('B-03: before the code an answer holds a challenge and a masked address, and nothing else of whom it is for', async t => {
  const { service, ask } = await mounted(t)
  const { key, backupCodes } = await service.enrol(who('with.0'))
  await service.enrolEmail(who('mail.0'), 'mail@elsewhere.example')
  const allowed = new Set(['type', 'title', 'status', 'code', 'request_id', 'verify_url', 'id', 'purpose', 'methods', 'attempts_left',
    'expires_in', 'wait_for', 'locked', 'masked_address', 'mailed', 'resend_in', 'csrf'])
  for (const subject of ['with', 'mail']) {
    const sid = `${subject}.1`
    const json = ['Accept: application/json', as(sid)]
    const opened = await ask('GET', '/protected', [...DOCUMENT, as(sid)])
    const location = opened.headers['location'] ?? ''
    const answers: Answered[] = []
    for (const path of ['/protected', location, '/2fa/settings']) answers.push(await ask('GET', path, json))
    t.same(answers.map(({ status }) => status), [401, 200, 303])
    for (const { body } of answers.slice(0, 2)) {
      t.same(Object.keys(JSON.parse(body) as object).filter(name => !allowed.has(name)), [])
    }
    const everything = JSON.stringify([opened, ...answers, await ask('GET', location, [...DOCUMENT, as(sid)])])
    for (const secret of [key, ...backupCodes, 'mail@elsewhere.example', `${subject}@console.example`]) t.notOk(everything.includes(secret), secret)
  }
})

t.test('B-54: no call returns a key or a backup code once it was shown, to anybody', async t => {
  const { service, ask } = await mounted(t)
  const { key, backupCodes } = await service.enrol(who('ann.1'))
  const subject = service.encoded('ann')
  const told = [
    ...await Promise.all(['', '/sessions'].map(async path => await service.call('GET', `/v1/subjects/${subject}${path}`, undefined, service.admin))),
    await service.call('GET', '/v1/events', undefined, service.admin)
  ]
  t.same(told.map(({ status }) => status), [200, 200, 200])
  const pages = await Promise.all(['settings', 'settings/totp', 'settings/backup-codes', 'enrol'].flatMap(path =>
    ['text/html', 'application/json'].map(async accept => await ask('GET', `/2fa/${path}`, [`Accept: ${accept}`, as('ann.1')]))))
  t.equal(backupCodes.length, 6)
  const everything = JSON.stringify([told.map(({ text }) => text), pages])
  t.match(everything, /"left\\*":6/)
  for (const secret of [key, ...backupCodes, ...backupCodes.map(code => code.replaceAll('-', ''))]) t.notOk(everything.includes(secret))
})

t.test('B-21: guesses from a fresh address each are counted together', async t => {
  const service = await startService(t)
  await service.enrol(who('ann.0'))
  const codes: string[] = []
  for (let i = 0; i < 6; i++) {
    const by = who(`ann.${i + 1}`)
    const { body } = await service.open(by, 'login', { about: { address: i % 2 === 0 ? `2001:db8::${i}` : `::ffff:192.0.2.${i}` } })
    codes.push((await service.answer(by, body.challenge.id, WRONG.totp)).body.code)
  }
  t.same(codes, [...Array<string>(5).fill('code_rejected'), 'waiting'])
})

/** Counts the calls of what the service is made of while `work` runs. */
async function counted (service: Service, work: () => Promise<Answer>) {
  const calls: Record<string, number> = {}
  const { records, pending, sealer } = service.app
  const undo: Array<() => void> = []
  for (const [part, names] of [[records, Object.keys(records)], [pending, Object.keys(pending)], [sealer, ['scrypt']]] as const) {
    for (const name of names) {
      const original: unknown = Reflect.get(part, name)
      if (typeof original !== 'function') continue
      Reflect.set(part, name, (...args: unknown[]): unknown => {
        calls[name] = (calls[name] ?? 0) + 1
        return Reflect.apply(original, part, args)
      })
      undo.push(() => { Reflect.set(part, name, original) })
    }
  }
  try {
    const { status, body } = await work()
    return { status, body, calls }
  } finally {
    for (const one of undo) one()
  }
}

t.test('a wrong code is the same answer and the same work, whatever kind of code it was', async t => {
  const service = await startService(t)
  await service.enrol(who('ann.0'))
  await service.enrolEmail(who('mail.0'), 'mail@elsewhere.example')
  const tried = []
  for (const [sid, code] of [['ann.1', WRONG.totp], ['ann.2', WRONG.backup_code], ['mail.1', WRONG.totp]] as const) {
    const { body: { challenge } } = await service.open(who(sid))
    tried.push(await counted(service, async () => await service.answer(who(sid), challenge.id, code)))
  }
  // One that counts in SQL is written with its count, any other by itself: who typed it knows which it is.
  const work = ({ reject = 0, writeEvent = 0, ...others }: Readonly<Record<string, number>>) =>
    ({ ...others, written: reject + writeEvent })
  const [first] = tried
  t.match(first, { status: 403, body: { code: 'code_rejected', attempts_left: 4 } })
  t.match(first && work(first.calls), { takeAttempt: 1, written: 1 }, 'the calls were counted')
  for (const { status, body, calls } of tried) {
    t.equal(status, first?.status)
    t.same({ ...body, request_id: '' }, { ...first?.body, request_id: '' })
    t.same(work(calls), first && work(first.calls), 'no slow hash, and not one query more')
  }
})

t.test('while it waits or is locked, a right code is the same answer and the same work as a wrong one, and stays good', async t => {
  const service = await startService(t, LIMITS)
  const keys = await everybody(service)
  for (const subject of ['waiting', 'locked']) {
    const by = who(`${subject}.2`)
    const right = service.code(keys.get(subject) ?? '')
    const { body: { challenge } } = await service.open(by)
    // The first of its kind within a minute is written down, whichever it is.
    await service.answer(by, challenge.id, '111111')
    const [wrong, good] = [
      await counted(service, async () => await service.answer(by, challenge.id, '000000')),
      await counted(service, async () => await service.answer(by, challenge.id, right))
    ]
    t.equal(wrong.body.code, subject)
    t.same({ ...good.body, request_id: '' }, { ...wrong.body, request_id: '' }, subject)
    t.same([good.status, good.calls], [wrong.status, wrong.calls], subject)
    t.equal(good.calls['accept'], undefined, 'nothing was accepted')
  }
  service.advance(3_700_000)
  t.match(await service.verify(who('waiting.3'), 'login', service.code(keys.get('waiting') ?? '')), { status: 200 })
})

t.test('the gate\'s question costs the same for a subject that is unknown, has no factor, has one, waits or is locked', async t => {
  const service = await startService(t, LIMITS)
  await everybody(service)
  await service.begin(who('plain.0'))
  const asked = []
  for (const subject of ['unknown', 'plain', 'with', 'mail', 'waiting', 'locked']) {
    asked.push({ subject, ...await counted(service, async () => await service.question(who(`${subject}.9`))) })
  }
  t.same(asked.map(({ body }) => body.status), ['not_required', 'not_required', ...Array<string>(4).fill('verification_required')])
  for (const { subject, calls, body } of asked) {
    t.same(calls, asked[0]?.calls, subject)
    t.same(Object.keys(body), Object.keys(asked[0]?.body), subject)
  }
  t.ok(Object.keys(asked[0]?.calls ?? {}).length > 0)
})
