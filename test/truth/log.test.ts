// Threat: a reader of the audit log or of changes that passes over a row, because it was committed later than one after
// it; and what happened without a record.

import { join } from 'node:path'
import t from 'tap'
import { openDatabase } from '../../service/src/adapters/database.ts'
import { databaseId } from '../../service/src/adapters/key-ring.ts'
import { createRecords } from '../../service/src/adapters/sql.ts'
import { until } from '../helpers/browser.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { dataFolder } from '../helpers/processes.ts'
import { by, startService, type Teardown } from '../helpers/service.ts'

const server = await startPostgres(t)

async function recordsAt (t: Teardown, url: string) {
  const database = await openDatabase(url)
  await database.migrate()
  const records = createRecords(database, await databaseId(database, 1))
  t.teardown(async () => { await records.close() })
  return records
}

for (const [kind, place] of [
  ['SQLite', async (t: Teardown) => ({ url: `sqlite:${join(dataFolder(t), 'p.db')}`, name: undefined })],
  ['PostgreSQL', async () => await server.fresh()]
] as const) {
  t.test(`on ${kind} no change and no event is lost or out of order for a reader that follows many writers`, async t => {
    const { url } = await place(t)
    // Three replicas write, one reads.
    const writers = [await recordsAt(t, url), await recordsAt(t, url), await recordsAt(t, url)]
    const reader = await recordsAt(t, url)
    const SUBJECTS = 10
    const EACH = 12
    const writing = { on: true }
    const seen = {
      changes: Array<number>(), subjects: Array<string | null>(), events: Array<string>(), ids: Array<number>()
    }
    const read = async () => {
      for (const change of await reader.changes.since('t1', seen.changes.at(-1) ?? 0, 7)) {
        seen.changes.push(change.number)
        seen.subjects.push(change.subject)
      }
      for (const event of await reader.events('t1', seen.ids.at(-1) ?? 0, 7)) {
        seen.ids.push(event.id)
        seen.events.push(`${event.subject}: ${event.reason}`)
      }
    }
    const following = (async () => {
      while (writing.on) {
        await read()
        // SQLite answers without a turn of the event loop; the others want one.
        await new Promise(resolve => { setImmediate(resolve) })
      }
    })()
    await Promise.all(Array.from({ length: SUBJECTS }, async (_, i) => {
      for (let n = 0; n < EACH; n++) {
        const write = async (): Promise<void> => {
          await (writers[(i + n) % 3] ?? reader).raiseEpoch('t1', `s${i}`, {
            clearWaits: false, now: n + 1, event: { kind: 'x', subject: `s${i}`, outcome: 'done', actor: 'host', reason: String(n) }
          })
        }
        // A busy machine may answer 503; whoever asked asks again.
        await until('the write', async () => await write().then(() => true, () => undefined))
      }
    }))
    writing.on = false
    await following
    for (let before = -1; before !== seen.ids.length;) {
      before = seen.ids.length
      await read()
    }
    t.same(seen.changes, Array.from({ length: SUBJECTS * EACH }, (_, i) => i + 1), 'every number once, in order')
    t.same([...seen.ids].sort((a, b) => a - b), seen.ids)
    for (let i = 0; i < SUBJECTS; i++) {
      t.same(seen.events.filter(one => one.startsWith(`s${i}:`)), Array.from({ length: EACH }, (_, n) => `s${i}: ${n}`))
      t.equal(seen.subjects.filter(one => one === `s${i}`).length, EACH)
    }
  })
}

t.test('on PostgreSQL a row that was begun first and committed last is still read', async t => {
  const { url, name } = await server.fresh()
  const records = await recordsAt(t, url)
  const slow = await server.session(name)
  await slow.query("begin; insert into events (tenant, at, subject, kind, outcome, actor) values ('t1', 1, 'slow', 'x', 'done', 'host')")
  for (const subject of ['a', 'b']) await records.writeEvent('t1', { kind: 'x', subject, outcome: 'done', actor: 'host' }, 2)
  const first = await records.events('t1', 0, 10)
  t.same(first.map(one => one.subject), ['a', 'b'])
  await slow.query('commit')
  const rest = await records.events('t1', first.at(-1)?.id ?? 0, 10)
  t.same(rest.map(one => one.subject), ['slow'])
  t.same((await records.events('t1', 0, 10)).map(one => one.subject), ['a', 'b', 'slow'], 'the log is the same for who reads it later')
  t.same((await records.events('t1', 0, 10, 'slow')).map(one => one.id), rest.map(one => one.id))

  // A change whose writer is slow holds up those of its tenant, and nobody's number is ever given twice or skipped.
  await records.raiseEpoch('t1', 'a', { clearWaits: false, now: 1, event: { kind: 'x', subject: 'a', outcome: 'done', actor: 'host' } })
  await slow.query("begin; update change_numbers set number = number + 1 where tenant = 't1'; insert into changes (tenant, number, at, kind, subject) values ('t1', 2, 1, 'subject', 'slow')")
  const waiting = records.raiseEpoch('t1', 'b', { clearWaits: false, now: 1, event: { kind: 'x', subject: 'b', outcome: 'done', actor: 'host' } })
  t.equal(await records.changes.newest('t1'), 1)
  await slow.query('commit')
  await waiting
  t.same((await records.changes.since('t1', 0, 10)).map(one => `${one.number} ${one.subject}`), ['1 a', '2 slow', '3 b'])
})

t.test('each administrative call refuses a key of scope gate, changes nothing, and keeps a record of the attempt', async t => {
  const s = await startService(t)
  const ann = by('ann')
  await s.enrol(ann)
  const spec = JSON.parse((await s.app.operations.inject('/openapi.json')).payload) as { paths: Record<string, Record<string, unknown>> }
  // What a gate needs; everything else is administration.
  const gate = [
    'GET /v1/assurances/{session}', 'POST /v1/assurances/{session}/move', 'DELETE /v1/assurances/{session}', 'GET /v1/sessions/{session}',
    'POST /v1/challenges', 'POST /v1/challenges/{id}/email', 'POST /v1/challenges/{id}/verification', 'GET /v1/changes',
    'GET /v1/subjects/{subject}', 'POST /v1/subjects/{subject}/proof', 'POST /v1/subjects/{subject}/credentials-changed',
    'POST /v1/subjects/{subject}/totp', 'POST /v1/subjects/{subject}/totp/{enrolment}/confirm', 'DELETE /v1/subjects/{subject}/totp',
    'POST /v1/subjects/{subject}/email', 'POST /v1/subjects/{subject}/email/{enrolment}/confirm', 'DELETE /v1/subjects/{subject}/email',
    'POST /v1/subjects/{subject}/backup-codes'
  ]
  const all = Object.entries(spec.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method.toUpperCase()} ${path}`)).filter(call => call.includes(' /v1/'))
  t.same(gate.filter(call => !all.includes(call)), [], 'the list names calls that exist')
  const administrative = all.filter(call => !gate.includes(call))
  t.ok(administrative.length >= 9, administrative.join(', '))
  const count = async () => (await s.call('GET', '/v1/events?limit=1000', undefined, s.admin)).body.events.length
  const before = JSON.stringify((await s.call('GET', `/v1/subjects/${s.encoded('ann')}`)).body)
  for (const call of administrative) {
    const [method = 'GET', path = ''] = call.split(' ') as ['GET' | 'POST' | 'PUT' | 'DELETE', string]
    const had = await count()
    const body = method === 'GET' ? undefined : { actor: 'thief', address: 'evil@x.example', to: 'thief', from: null, open: true }
    const refused = await s.call(method, path.replace('{subject}', s.encoded('ann')), body)
    t.match(refused, { status: 403, body: { code: 'forbidden' } }, call)
    const { events } = (await s.call('GET', '/v1/events?limit=1000', undefined, s.admin)).body
    t.equal(events.length, had + 1, `${call} is kept`)
    t.match(events.at(-1), { kind: 'administration', outcome: 'refused', reason: 'gate_key', actor: 'gate:g1', subject: path.includes('{subject}') ? 'ann' : '' })
    t.ok(events.at(-1).request_id)
    const other = await s.call(method, path.replace('{subject}', s.encoded('ann')), body, { authorization: `Bearer ${s.keys.otherAdmin.key}` })
    if (path.includes('{subject}') && other.status < 300) {
      const { body } = await s.call('GET', `/v1/subjects/${s.encoded('ann')}`)
      t.equal(JSON.stringify(body), before, `${call} of another tenant`)
    }
  }
  t.equal(JSON.stringify((await s.call('GET', `/v1/subjects/${s.encoded('ann')}`)).body), before)
})

t.test('every attempt and act leaves its record: who, what for, with what, how it ended and why', async t => {
  const s = await startService(t)
  const ann = by('ann')
  const about = { address: '192.0.2.77' }
  const { key } = await s.enrol(ann, { about })
  s.nextStep()
  const later = by('ann', 'later')
  const id = (await s.open(later, 'login', { about })).body.challenge.id
  const answer = async (code: string) => await s.call('POST', `/v1/challenges/${id}/verification`, { by: later, code, about })
  await answer('000000')
  t.equal((await answer(s.code(key))).status, 200)
  const again = by('ann', 'again')
  const second = (await s.open(again)).body.challenge.id
  t.match((await s.answer(again, second, s.code(key))).body, { code: 'code_used' })
  const attacker = by('ann', 'x', 'unknown')
  for (let i = 0; i < 6; i++) {
    const { body } = await s.open(attacker)
    await s.answer(attacker, body.challenge.id, '111111')
  }
  t.equal((await s.call('POST', `/v1/subjects/${s.encoded('ann')}/unlock`, { actor: 'boss' }, s.admin)).status, 204)
  const { events } = (await s.call('GET', '/v1/events?limit=1000', undefined, s.admin)).body
  const has = (event: Record<string, unknown>) => t.ok(
    events.some((one: Record<string, unknown>) =>
      Object.entries(event).every(([name, value]) => one[name] === value)), JSON.stringify(event))
  has({ kind: 'verification', subject: 'ann', purpose: 'login', factor: 'totp', outcome: 'rejected', reason: 'wrong_code', address_prefix: '192.0.2.0/24' })
  has({ kind: 'verification', subject: 'ann', purpose: 'login', factor: 'totp', outcome: 'accepted', address_prefix: '192.0.2.0/24' })
  has({ kind: 'verification', subject: 'ann', factor: 'totp', outcome: 'refused', reason: 'used' })
  has({ kind: 'verification', subject: 'ann', outcome: 'refused', reason: 'waiting' })
  has({ kind: 'unlock', subject: 'ann', outcome: 'done', actor: 'admin:a1:boss' })
  t.equal(events.filter((one: { reason?: string }) => one.reason === 'waiting').length, 1, 'a flood of refusals is one record a minute')
  for (const one of events) t.ok(one.request_id && one.actor && one.at)

  // A cursor walks through the same log without a gap or a repeat.
  const walked: number[] = []
  for (let after = 0; ;) {
    const page = (await s.call('GET', `/v1/events?after=${after}&limit=3`, undefined, s.admin)).body
    if (page.events.length === 0) break
    walked.push(...page.events.map((one: { id: number }) => one.id))
    after = page.next
  }
  t.same(walked, events.map((one: { id: number }) => one.id))
  // What is older than its retention goes, and readers go on from where they were.
  await s.app.records.prune(s.clock.now() + 400 * 86_400_000 + 1, 400 * 86_400_000)
  t.same((await s.call('GET', '/v1/events', undefined, s.admin)).body.events, [])
  await s.call('POST', `/v1/subjects/${s.encoded('ann')}/unlock`, { actor: 'boss' }, s.admin)
  const [next] = (await s.call('GET', `/v1/events?after=${walked.at(-1)}`, undefined, s.admin)).body.events
  t.equal(next?.id, (walked.at(-1) ?? 0) + 1)
})
