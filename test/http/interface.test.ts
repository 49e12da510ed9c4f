// The HTTP interface itself: strictness, problem documents, OpenAPI, operations, the stream of changes, and what is
// logged.

import { request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { ConfigError, readConfig, SETTINGS } from '../../service/src/config.ts'
import { PROBLEMS } from '../../service/src/domain/problems.ts'
import { problemFrom } from '../../service/src/http/problem-document.ts'
import { by, startService, tenantKey } from '../helpers/service.ts'

t.test('what is not understood is refused by name, never dropped or coerced', async t => {
  const s = await startService(t)
  const who = by('alice')
  for (const [body, where] of [
    [{ by: who, purpose: 'login', extra: 1 }, 'additionalProperties'],
    [{ by: who }, 'required'],
    [{ by: who, purpose: 'admin' }, 'purpose'],
    [{ by: { ...who, browser: 5 }, purpose: 'login' }, 'browser'],
    [{ by: { ...who, session: 'short' }, purpose: 'login' }, 'session'],
    [{ by: who, purpose: 'login', return_path: '//evil.example' }, 'return_path'],
    [{ by: who, purpose: 'login', return_path: '/\\evil.example' }, 'return_path'],
    [{ by: who, purpose: 'login', return_path: 'https://evil.example/' }, 'return_path'],
    [{ by: who, purpose: 'login', return_path: '/a\tb' }, 'return_path'],
    [{ by: who, purpose: 'login', return_path: '/' + 'x'.repeat(512) }, 'return_path'],
    [[], 'type']
  ] as const) {
    const answer = await s.call('POST', '/v1/challenges', body)
    t.match([answer.status, answer.body.code], [400, 'bad_request'])
    t.match(answer.headers['content-type'], /^application\/problem\+json/)
    t.match(answer.body.errors.join(' '), where)
  }
  const invalid = await s.app.api.inject({
    method: 'POST',
    url: '/v1/challenges',
    headers: { authorization: `Bearer ${s.keys.gate.key}`, 'content-type': 'application/json' },
    payload: '{"code":123456'
  })
  t.match([invalid.statusCode, invalid.json().code], [400, 'bad_request'])
  t.notMatch(invalid.payload, '123456', 'no value stands in a message')
  const xml = await s.app.api.inject({
    method: 'POST',
    url: '/v1/challenges',
    headers: { authorization: `Bearer ${s.keys.gate.key}`, 'content-type': 'text/xml' },
    payload: '<a/>'
  })
  t.match([xml.statusCode, xml.json().code], [415, 'unsupported_media_type'])
  const large = await s.call('POST', '/v1/challenges', {
    by: who,
    purpose: 'login',
    about: { action: 'x'.repeat(200_000) }
  })
  t.match([large.status, large.body.code], [413, 'payload_too_large'])
  t.match(await s.call('GET', '/v1/nothing'), {
    status: 404,
    body: { code: 'not_found', type: 'urn:postern:problem:not_found' }
  })
})

t.test('every error is one of the table, and what is not meant to be seen is one 500', async t => {
  t.equal(problemFrom(new Error('SELECT secret FROM authenticators')).code, 'internal')
  t.equal(problemFrom(Object.assign(new Error('x'), { code: 'OTHER', statusCode: 418 })).code, 'bad_request')
  t.equal(problemFrom(Object.assign(new Error('x'), { code: 'OTHER' })).code, 'internal')
  const s = await startService(t)
  const real = s.app.records.subject
  t.teardown(() => {
    Object.assign(s.app.records, { subject: real })
  })
  Object.assign(s.app.records, {
    subject: async () => {
      throw new Error('SELECT secret')
    }
  })
  const answer = await s.open(by('alice'))
  t.match([answer.status, answer.body.code], [500, 'internal'])
  t.notMatch(answer.text, 'SELECT')
})

t.test('one client address may open, send, answer and enrol so often a minute; the gate\'s question is not counted', async t => {
  const s = await startService(t, { smtp: false, tenant: { limits: { calls_per_minute: 10 } } })
  const ann = by('ann')
  const from = async (address: string) => await s.open(ann, 'login', { about: { address } })
  for (let i = 0; i < 10; i++) t.equal((await from('192.0.2.7')).status, 200)
  const refused = await from('192.0.2.7')
  t.match([refused.status, refused.body.code], [429, 'rate_limited'])
  const wait = Number(refused.headers['retry-after'])
  t.ok(wait > 0 && wait <= 60, `Retry-After ${wait}`)
  t.equal(refused.body.retry_after, wait)

  t.equal((await from('::ffff:192.0.2.7')).status, 429, 'the same address, written as IPv6')
  t.equal((await from('::ffff:c000:207')).status, 429)
  t.equal((await from('192.0.2.8')).status, 200, 'another address')
  const elsewhere = { authorization: `Bearer ${s.keys.other.key}` }
  const body = { by: ann, purpose: 'login', about: { address: '192.0.2.7' } }
  t.equal((await s.call('POST', '/v1/challenges', body, elsewhere)).status, 200, 'another tenant')
  for (let i = 0; i < 10; i++) t.equal((await from(`2001:db8:1:2::${i}`)).status, 200)
  t.equal((await from('2001:db8:1:2:ffff::1')).status, 429, 'IPv6 is counted by its network of 64 bits')
  t.equal((await from('2001:db8:1:3::1')).status, 200)

  const about = { address: '192.0.2.7' }
  const path = `/v1/subjects/${s.encoded('ann')}`
  const id = 'A'.repeat(39)
  for (const [url, more] of [
    [`/v1/challenges/${id}/verification`, { code: '123456' }], [`/v1/challenges/${id}/email`, {}], [`${path}/totp`, {}], [`${path}/proof`, {}],
    [`${path}/totp/${id}/confirm`, { code: '123456' }], [`${path}/email`, {}], [`${path}/email/${id}/confirm`, { code: '123456' }],
    [`${path}/backup-codes`, {}]
  ] as const) {
    const { status, body } = await s.call('POST', url, { by: ann, about, ...more })
    t.match([status, body.code], [429, 'rate_limited'], url)
  }
  const page = async (accept: string) => await s.call('GET', '/pages/settings', undefined, {
    accept,
    'postern-subject': s.encoded('ann'),
    'postern-session': ann.session,
    'postern-browser': ann.browser,
    'postern-about': s.encoded(JSON.stringify(about))
  })
  const html = await page('text/html')
  t.equal(html.status, 429)
  t.match(html.headers['content-type'], 'text/html')
  t.ok(Number(html.headers['retry-after']) > 0)
  t.match(html.text, 'busy right now')
  t.match((await page('application/json')).body, { code: 'rate_limited' })
  for (let i = 0; i < 30; i++) t.equal((await s.question(ann)).status, 200)
  t.equal((await s.call('POST', '/v1/challenges', { by: ann, purpose: 'login' })).status, 200, 'a console that names no address')
})

t.test('the OpenAPI document describes every call, and the operations port answers for the service', async t => {
  const s = await startService(t)
  const operations = async (url: string) => await s.app.operations.inject({ url })
  const document = (await operations('/openapi.json')).json()
  t.match(document.openapi, /^3\.1/)
  for (const path of [
    '/v1/assurances/{session}',
    '/v1/challenges',
    '/v1/challenges/{id}/verification',
    '/v1/subjects/{subject}/totp',
    '/v1/changes',
    '/v1/events'
  ]) { t.ok(document.paths[path], path) }
  for (const [path, methods] of Object.entries<Record<string, { summary?: string }>>(document.paths)) {
    if (path.startsWith('/v1')) {
      for (const [method, call] of Object.entries(methods)) t.ok(call.summary, `${method} ${path} has a summary`)
    }
  }
  t.match((await operations('/livez')).json(), { status: 'live' })
  t.match((await operations('/readyz')).json(), {
    status: 'ready',
    checks: { records: 'ok', pending: 'ok', mail: 'ok' }
  })
  await s.open(by('alice'))
  t.match(
    (await operations('/metrics')).payload,
    /postern_request_seconds_count\{route="\/v1\/challenges",method="POST",status="2xx"\} 1/
  )
  t.equal((await operations('/nothing')).statusCode, 404)
  s.app.drain()
  const draining = await operations('/readyz')
  t.match([draining.statusCode, draining.json().status], [503, 'draining'])
  t.equal((await operations('/livez')).statusCode, 200)
  t.equal((await s.app.api.inject({ url: '/livez' })).statusCode, 404, 'not on the port that consoles reach')
})

t.test("changes reach a listener in order, only its tenant's, and go on after the last one it saw", async t => {
  const s = await startService(t)
  await s.app.api.listen({ host: '127.0.0.1', port: 0 })
  s.app.start()
  const { port } = s.app.api.server.address() as AddressInfo
  const listen = (key: string, last?: string) => {
    interface Change { readonly number: number; readonly kind?: string; readonly session_ref?: string }
    const events: { readonly event: string; readonly id: string | undefined; readonly data: Change }[] = []
    let wake = () => {}
    const request = httpRequest(
      {
        port,
        host: '127.0.0.1',
        path: '/v1/changes',
        headers: { authorization: `Bearer ${key}`, ...(last === undefined ? {} : { 'last-event-id': last }) }
      },
      response => {
        let rest = ''
        response
          .setEncoding('utf8')
          .on('data', (chunk: string) => {
            const parts = (rest + chunk).split('\n\n')
            rest = parts.pop() ?? ''
            for (const part of parts) {
              const field = (name: string) =>
                part
                  .split('\n')
                  .find(line => line.startsWith(`${name}: `))
                  ?.slice(name.length + 2)
              events.push({ event: field('event') ?? '', id: field('id'), data: JSON.parse(field('data') ?? 'null') })
            }
            wake()
          })
          .on('error', () => {})
      }
    )
    request.on('error', () => {}).end()
    t.teardown(() => request.destroy())
    return {
      events,
      until: async (fits: (all: typeof events) => boolean) => {
        while (!fits(events)) {
          await new Promise<void>(resolve => {
            wake = resolve
          })
        }
      }
    }
  }
  const mine = listen(s.keys.gate.key)
  const theirs = listen(s.keys.other.key)
  await mine.until(all => all.some(one => one.event === 'newest'))
  await theirs.until(all => all.some(one => one.event === 'newest'))
  const alice = by('alice')
  await s.enrol(alice)
  await s.call('DELETE', `/v1/assurances/${alice.session}`)
  await mine.until(all => all.some(one => one.event === 'change' && one.data.kind === 'session'))
  const changes = mine.events.filter(one => one.event === 'change')
  t.match(
    changes.map(one => one.data),
    [{ kind: 'subject', subject: 'alice' }, { kind: 'session' }]
  )
  t.same(
    changes.map(one => Number(one.id)),
    [...changes.map(one => Number(one.id))].sort((a, b) => a - b)
  )
  const ref = (await s.question(alice)).body.session_ref
  t.equal(changes.at(-1)?.data.session_ref, ref, 'named as the gate knows it')
  const again = listen(s.keys.gate.key, changes[0]?.id)
  await again.until(all => all.some(one => one.event === 'change'))
  t.same(again.events.find(one => one.event === 'change')?.id, changes[1]?.id)
  await theirs.until(all => all.filter(one => one.event === 'newest').length > 1)
  t.equal(
    theirs.events.some(one => one.event === 'change'),
    false
  )
})

t.test('nothing secret is logged: no code, key, secret, address or key of a tenant', async t => {
  const s = await startService(t)
  const alice = by('alice')
  const { key, backupCodes } = await s.enrol(alice, { about: { email: 'alice@example.org', address: '192.0.2.7' } })
  s.nextStep()
  const used = s.code(key)
  await s.verify(by('alice', 'a'), 'login', used)
  await s.verify(by('alice', 'b'), 'login', backupCodes[0] ?? '')
  await s.verify(by('alice', 'c'), 'login', '987654')
  await s.enrolEmail(by('bob'), 'bob@example.org')
  await s.call('POST', '/v1/challenges', { by: alice, purpose: 'login', code: '555555x', nonsense: '444444' })
  const all = s.log.join('\n')
  t.match(all, 'answered', 'the log was looked at')
  for (const secret of [
    key,
    used,
    ...backupCodes,
    '987654',
    '555555x',
    '444444',
    'alice@example.org',
    'bob@example.org',
    '192.0.2.7',
    s.keys.gate.key,
    ...s.mails.map(mail => mail.values.code ?? 'none')
  ]) { t.notMatch(all, secret) }
})

t.test('a configuration with mistakes is refused with all of them, by name and never by value', async t => {
  const good = {
    POSTERN_ENCRYPTION_KEYS: 'k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=',
    POSTERN_SERVER_KEY: 's1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=',
    POSTERN_TENANTS: JSON.stringify([
      { id: 'demo', name: 'Demo', keys: [{ id: 'k1', scope: 'gate', sha256: tenantKey('demo', 'k1').sha256 }] }
    ])
  }
  const config = readConfig(good)
  t.match(config, {
    port: 7070,
    migrateOnStart: true,
    tenants: [
      {
        id: 'demo',
        issuer: 'Demo',
        policy: { require: 'nobody', email: 'on', stepUp: 'any', firstEnrolment: 'none' }
      }
    ]
  })
  t.throws(() => Object.assign(config, { port: 1 }), 'it is frozen')
  const mistakes = (env: Record<string, string>): string => {
    try {
      readConfig(env)
      return ''
    } catch (error) {
      return error instanceof ConfigError ? error.message : 'another error'
    }
  }
  const bad = mistakes({
    ...good,
    POSTERN_PORT: 'eighty',
    POSTERN_REDIS: 'hunter2://x',
    POSTERN_UNKNOWN: '1',
    POSTERN_DRAIN_SECONDS: '61',
    POSTERN_SMTP_TLS: 'maybe',
    POSTERN_ENCRYPTION_KEYS: 'k1:c2hvcnQ=',
    POSTERN_MIGRATE_ON_START: 'yes',
    POSTERN_DATABASE: 'mysql://x',
    POSTERN_SMTP: 'hunter2'
  })
  for (const name of [
    'POSTERN_PORT',
    'POSTERN_REDIS',
    'POSTERN_UNKNOWN',
    'POSTERN_DRAIN_SECONDS',
    'POSTERN_SMTP_TLS',
    'POSTERN_ENCRYPTION_KEYS',
    'POSTERN_MIGRATE_ON_START',
    'POSTERN_DATABASE',
    'POSTERN_SMTP must'
  ]) { t.match(bad, name) }
  t.notMatch(bad, /hunter2|c2hvcnQ/)
  t.match(
    mistakes({}),
    /POSTERN_ENCRYPTION_KEYS is missing[\s\S]*POSTERN_SERVER_KEY is missing[\s\S]*tenants is missing|tenants is missing/
  )
  t.match(mistakes({ ...good, POSTERN_SERVER_KEY: `s1:${Buffer.alloc(32).toString('base64')}` }), 'is not random')
  const tenants = (more: unknown) => mistakes({ ...good, POSTERN_TENANTS: JSON.stringify(more) })
  const key = { id: 'k1', scope: 'gate', sha256: 'a'.repeat(64) }
  t.match(
    tenants([{ id: 'Bad Id', name: '', keys: [] }]),
    /tenants\[0\]\.id[\s\S]*tenants\[0\]\.name[\s\S]*tenants\[0\]\.keys/
  )
  t.match(
    tenants([
      {
        id: 'a',
        name: 'A',
        keys: [key],
        require: 'some',
        email: 'maybe',
        limits: { totp_window_steps: 9, nothing: 1 },
        exempt: ['x'],
        extra: 1,
        require_from: 'soon',
        issuer: 'a:b'
      }
    ]),
    /extra[\s\S]*issuer[\s\S]*exempt[\s\S]*require_from[\s\S]*require[\s\S]*limits/
  )
  t.match(
    tenants([
      { id: 'a', name: 'A', keys: [key, key] },
      { id: 'a', name: 'A', keys: [{ ...key, scope: 'x' }, { ...key, sha256: 'x' }, 5] }
    ]),
    'two keys have the same id'
  )
  t.match(tenants('x'), 'tenants is missing')
  t.match(mistakes({ ...good, POSTERN_TENANTS: '{' }), 'POSTERN_TENANTS is not JSON')
  t.match(mistakes({ ...good, POSTERN_CONFIG: '/nonexistent/file.json' }), 'POSTERN_CONFIG')
  for (const [name, row] of Object.entries(SETTINGS)) t.match(row.text, /\.$/, `${name} is described`)
  t.ok(Object.keys(PROBLEMS).length > 20)
})
