// What every implementation of Records must do (domain/records.ts), on an SQLite file and on a real PostgreSQL.

import { sql } from 'kysely'
import t from 'tap'
import { openDatabase } from '../../service/src/adapters/database.ts'
import { createRecords } from '../../service/src/adapters/sql.ts'
import type { By } from '../../service/src/domain/model.ts'
import { defaultLimits } from '../../service/src/domain/policy.ts'
import type { AcceptRequest, FactorChange, Records } from '../../service/src/domain/records.ts'
import { startPostgres } from '../helpers/postgres.ts'
import {
  accepting, administered, called, changing, count, DAY, event, MANY, methodsOf, MINUTE, MONTH, notice, NOW,
  openRecords, own, recordStores, rejecting, startRecords, TABLES, who
} from '../helpers/record-stores.ts'
import type { Teardown } from '../helpers/service.ts'

t.setTimeout(300_000)
const server = await startPostgres(t)

for (const [name, addressOf, seen] of recordStores) {
  const start = async (t: Teardown) => await startRecords(t, await addressOf(t, server), seen)

  t.test(`${name}: who was never seen has epoch 0 and nothing else, and names are compared byte for byte`, async t => {
    const { records, enrol, rows } = await start(t)
    t.same(await records.subject(who(), NOW), {
      subject: 'alice', epoch: 0, authenticators: [], lockedAt: null, inARow: 0, in30Days: 0, browserKnown: false, requiredFrom: null, fenced: false, enrolmentCodeHash: null, enrolmentCodeExpiresAt: null, contact: null, setAddress: null, locale: null, assurance: null
    })
    t.match(await records.question(who(), NOW), { state: { epoch: 0 }, change: 0 })
    t.same((await rows())['subjects'], [], 'to ask makes no row')
    await enrol(who())
    const { authenticators } = await records.subject(who(), NOW)
    t.match(authenticators.map(({ factor, secret, counter }) => [factor, secret, counter]).sort(),
      [['backup_code', 'secret of alice', 0], ['backup_code', 'secret of alice', 0], ['totp', 'secret of alice', 0]])
    for (const [subject, tenant] of [['ALICE', 't1'], ['alice ', 't1'], ['alic', 't1'], ['%', 't1'], ['alice', 'T1'], ['alice', 't2'], ['ａlice', 't1']] as const) {
      t.match(await records.subject(who(subject, 's1', 'b1', tenant), NOW), { epoch: 0, authenticators: { length: 0 } }, `${subject} of ${tenant}`)
    }
  })

  t.test(`${name}: a time step is accepted once and only forwards, also by many at once`, async t => {
    const { records, enrol, atOnce, rows, untouched } = await start(t)
    const epoch = await enrol(who())
    const advance = (to: number, by = who()) =>
      accepting(by, epoch, { use: { use: 'advance', authenticator: own(who(), 'totp').id, to }, notices: [notice()] })
    t.match(await records.accept(advance(10)), { result: 'accepted' })
    for (const to of [10, 9, 0]) {
      t.match(await untouched(t, `step ${to}`, async () => await records.accept(advance(to))), { result: 'used' })
    }
    const before = (await rows())['events']?.length ?? 0
    const results = await atOnce(async (records, index) => await records.accept(advance(11, who('alice', `one of many ${index}`))))
    t.equal(count(results, 'result', 'accepted'), 1)
    t.equal(count(results, 'result', 'used'), MANY - 1)
    const after = await rows()
    t.equal(after['events']?.length, before + 1, 'one record in the log')
    t.equal(after['assurances']?.length, 2, 'one session more')
    t.match(after['authenticators']?.find(one => one['factor'] === 'totp'), { counter: 11 })
    // The steps of many sessions at once: whatever the order, each is higher than the one before it.
    const steps = await atOnce(async (records, index) => ({ to: 20 + index, ...await records.accept(advance(20 + index, who('alice', `t${index}`))) }))
    t.ok(count(steps, 'result', 'accepted') >= 1)
    t.equal((await records.subject(who(), NOW)).authenticators.find(one => one.factor === 'totp')?.counter, 19 + MANY)
    t.equal(steps.at(-1)?.result, 'accepted', 'the highest was never passed before')
    const strange = accepting(who('bob'), 0, { use: { use: 'advance', authenticator: own(who(), 'totp').id, to: 99 } })
    t.match(await untouched(t, "somebody else's key", async () => await records.accept(strange)), { result: 'used' })
  })

  t.test(`${name}: a backup code is accepted once, and says how many are left`, async t => {
    const { records, enrol, atOnce, rows, untouched } = await start(t)
    const epoch = await enrol(who())
    const consume = (place: string, session: string) => accepting(who('alice', session), epoch, {
      use: { use: 'consume', authenticator: own(who(), 'backup_code', place).id }, factor: 'backup_code', whileLocked: true, notices: [notice({ message: 'backup_code_used' })]
    })
    const results = await atOnce(async (records, index) => await records.accept(consume(' 1', `s${index}`)))
    t.equal(count(results, 'result', 'accepted'), 1)
    t.equal(count(results, 'result', 'used'), MANY - 1)
    t.match(results.find(one => one.result === 'accepted'), { backupCodesLeft: 1 })
    t.equal((await rows())['notices']?.length, 1, 'one notice')
    t.match(await untouched(t, 'once more', async () => await records.accept(consume(' 1', 'later'))), { result: 'used' })
    t.match(await records.accept(consume(' 2', 'later')), { result: 'accepted', backupCodesLeft: 0 })
    t.match(await untouched(t, 'one that is not there', async () => await records.accept(consume(' 3', 'x'))), { result: 'used' })
  })

  t.test(`${name}: a challenge is accepted once, of this epoch, and not during a lock but by what may`, async t => {
    const { records, enrol, atOnce, rows, untouched } = await start(t)
    const epoch = await enrol(who())
    const results = await atOnce(async records => await records.accept(accepting(who(), epoch, { slot: { id: 'one' } })))
    t.equal(count(results, 'result', 'accepted'), 1)
    t.equal(count(results, 'result', 'gone'), MANY - 1)
    t.equal((await rows())['accepted']?.length, 1)
    for (const other of [epoch - 1, epoch + 1, 0]) {
      t.match(await untouched(t, `epoch ${other - epoch}`, async () => await records.accept(accepting(who(), other))), { result: 'gone' })
    }
    t.match(await untouched(t, 'nobody', async () => await records.accept(accepting(who('nobody'), epoch))), { result: 'gone' })
    await records.reject(...rejecting(who(), { limits: { ...defaultLimits, lockInARow: 1 } }))
    t.match(await untouched(t, 'locked', async () => await records.accept(accepting(who(), epoch))), { result: 'locked' })
    t.match(await records.accept(accepting(who(), epoch, { whileLocked: true })), { result: 'accepted' })
    t.ok((await records.subject(who(), NOW)).lockedAt, 'which ends no lock')
  })

  t.test(`${name}: a right answer records its login for one session and browser, and its step-up beside it`, async t => {
    const { records, replica, enrol, rows } = await start(t)
    const epoch = await enrol(who())
    await records.reject(...rejecting(who()))
    const request = accepting(who(), epoch, { bindTo: 'b2', slot: { id: 'first', returnPath: '/there' }, idempotencyKey: 'key', notices: [notice(), notice({ to: null })] })
    t.match(await records.accept(request), { result: 'accepted' })
    t.match(await replica.subject(who('alice', 's1', 'b2'), NOW), {
      inARow: 0, in30Days: 1, browserKnown: true, assurance: { loginAt: NOW, loginFactor: 'totp', loginExpiresAt: NOW + DAY, stepUpAt: null, stepUpScope: 'any' }
    })
    for (const by of [who(), who('alice', 's2', 'b2'), who('bob', 's1', 'b2'), who('alice', 's1', 'none')]) {
      t.match(await records.subject(by, NOW), { assurance: null, browserKnown: by.browser === 'b2' && by.subject === 'alice' }, JSON.stringify(by))
    }
    t.match(await records.subject(who('alice', 's1', 'b2'), NOW + DAY), { assurance: null }, 'it has its end')
    t.match(await records.subject(who('alice', 's1', 'b2'), NOW + MONTH), { browserKnown: false, in30Days: 0 })
    t.match(await records.acceptedBefore('t1', 'first'), { by: who(), factor: 'totp', purpose: 'login', returnPath: '/there', idempotencyKey: 'key', at: NOW, expiresAt: NOW + DAY })
    t.equal(await records.acceptedBefore('t1', 'second'), undefined)
    t.equal(await records.acceptedBefore('t2', 'first'), undefined)

    const by = who('alice', 's1', 'b2')
    const stepUp = (scope: 'any' | 'recovery') => accepting(by, epoch, { slot: { kind: 'step_up' }, now: NOW + MINUTE, record: { purpose: 'step_up', expiresAt: NOW + 15 * MINUTE, scope } })
    await records.accept(stepUp('recovery'))
    t.match((await records.subject(by, NOW)).assurance, { loginAt: NOW, stepUpAt: NOW + MINUTE, stepUpFactor: 'totp', stepUpScope: 'recovery' }, 'the login stays')
    await records.accept(stepUp('any'))
    t.match((await records.subject(by, NOW)).assurance, { loginAt: NOW, stepUpScope: 'any' })
    const before = await rows(['assurances', 'browsers'])
    await records.accept(accepting(by, epoch, { record: null, slot: { kind: 'step_up' }, now: NOW + MINUTE }))
    t.same(await rows(['assurances', 'browsers']), before, 'record null leaves no assurance behind')
    await records.rebind(by, 'b3')
    t.match(await records.subject(who('alice', 's1', 'b3'), NOW), { assurance: { loginAt: NOW } }, 'bound to another browser')
    t.match(await records.subject(by, NOW), { assurance: null })
    await records.rebind(who('bob', 's1', 'b3'), 'b4')
    t.match(await records.subject(who('alice', 's1', 'b3'), NOW), { assurance: { loginAt: NOW } }, 'but not by somebody else')
    const { length } = await records.changes.since('t1', 0, 100)
    await records.accept(accepting(who('alice', 's1', 'b3'), epoch, { bindTo: 'b5', record: { purpose: 'login', expiresAt: NOW + DAY, scope: 'recovery' } }))
    t.match((await records.subject(who('alice', 's1', 'b5'), NOW)).assurance, { loginAt: NOW, stepUpAt: NOW, stepUpScope: 'recovery' })
    t.match((await records.changes.since('t1', 0, 100)).slice(length), [{ kind: 'session', session: 's1' }], 'gates hear of the record that it replaced')
  })

  t.test(`${name}: what was read before an answer decides nothing, however old it is`, async t => {
    const { records, enrol, rows, untouched } = await start(t)
    const epoch = await enrol(who())
    const key = own(who(), 'totp').id
    const answer = (to: number, more: Parameters<typeof accepting>[2] = {}, by = who()) =>
      accepting(by, epoch, { use: { use: 'advance', authenticator: key, to }, ...more })
    const seen = await records.subject(who(), NOW)
    const late = async (request: AcceptRequest, read = seen) => await records.accept({ ...request, seen: read })

    t.match(await late(answer(10, { slot: { id: 'one' } })), { result: 'accepted' })
    t.match(await untouched(t, 'a step of before', async () => await late(answer(10))), { result: 'used' })
    t.match(await untouched(t, 'a lower one', async () => await late(answer(9))), { result: 'used' })
    t.match(await untouched(t, 'a challenge of before', async () => await late(answer(11, { slot: { id: 'one' } }))), { result: 'gone' })
    t.match(await untouched(t, 'a strange key', async () => await late(answer(12, { use: { use: 'advance', authenticator: 'another', to: 12 } }))), { result: 'used' })

    await records.reject(...rejecting(who()))
    t.match(await records.subject(who('alice', 's9', 'b9'), NOW), { inARow: 1 })
    t.match(await late(answer(13, {}, who('alice', 's2', 'none'))), { result: 'accepted' })
    t.match(await records.subject(who('alice', 's9', 'b9'), NOW), { inARow: 0 }, 'a failure since then is over too')

    const { length } = await records.changes.since('t1', 0, 100)
    t.match(await late(answer(14, { bindTo: 'b2' })), { result: 'accepted' })
    t.match((await records.changes.since('t1', 0, 100)).slice(length), [{ kind: 'session', session: 's1' }], 'gates hear of a login that is replaced')
    t.match(await late(answer(15, { slot: { kind: 'step_up' }, record: { purpose: 'step_up', expiresAt: NOW + MINUTE, scope: 'any' } }, who('alice', 's1', 'b2')), await records.subject(who('alice', 's1', 'b2'), NOW)), { result: 'accepted' })
    t.match(await records.subject(who('alice', 's1', 'b2'), NOW), { assurance: { loginAt: NOW, stepUpAt: NOW } })
    t.equal((await rows())['browsers']?.length, 1, 'only the browser that logged in is known')

    // Of a browser that is known, so that nobody's failures are in the way; by the challenge, so that no key is.
    const bob = who('bob', 's5', 'b5')
    const epochs = [await enrol(bob)]
    const mailed = (epoch: number) => accepting(bob, epoch, { factor: 'email' })
    t.match(await records.accept(mailed(epochs[0] ?? 0)), { result: 'accepted' })
    const before = await records.subject(bob, NOW)
    t.match(before, { browserKnown: true, epoch: epochs[0] })
    await records.reject(...rejecting(who('bob', 's6', 'b6'), { limits: { ...defaultLimits, lockInARow: 1 } }))
    t.match(await untouched(t, 'a lock since then', async () => await late(mailed(before.epoch), before)), { result: 'locked' })
    await enrol(bob, { remove: ['totp', 'backup_code'], allowedBy: { by: 'administrator' }, unlock: true })
    t.match(await records.subject(bob, NOW), { lockedAt: null })
    t.match(await untouched(t, 'an epoch since then', async () => await late(mailed(before.epoch), before)), { result: 'gone' })
  })

  if (name.startsWith('PostgreSQL')) {
    t.test(`${name}: an answer waits for a change of its subject that is under way, and is judged by it`, async t => {
      const { db, records, enrol, rows } = await start(t)
      const epoch = await enrol(who())
      const seen = await records.subject(who(), NOW)
      const { answer } = await db.transaction().execute(async tx => {
        await tx.updateTable('subjects').set(eb => ({ epoch: eb('epoch', '+', 1) })).execute()
        const said: unknown[] = []
        const answer = records.accept({ ...accepting(who(), epoch), seen }).finally(() => { said.push('something') })
        for (let waits = false; !waits && said.length === 0;) {
          const { rows: [row] } = await sql<{ waits: boolean }>`
            select exists (select 1 from pg_locks where not granted) as waits`.execute(db)
          waits = row?.waits === true
        }
        t.same(said, [], 'nothing is said before it ends')
        return { answer }
      })
      t.match(await answer, { result: 'gone' })
      t.same((await rows())['assurances'], [])
    })
  }

  t.test(`${name}: failures are counted one by one, for the subject or a known browser, and lock once`, async t => {
    const { records, enrol, atOnce, rows } = await start(t)
    const epoch = await enrol(who())
    const counts = await atOnce(async (records, index) => await records.reject(...rejecting(who('alice', `s${index}`))))
    t.same(counts.map(one => one.inARow).sort((a, b) => a - b), Array.from({ length: MANY }, (_, index) => index + 1), 'none is lost')
    t.match(await records.subject(who(), NOW), { inARow: MANY, in30Days: MANY, lockedAt: null })
    await records.accept(accepting(who('alice', 's1', 'mine'), epoch))
    t.match(await records.subject(who(), NOW), { inARow: 0, in30Days: MANY }, 'a success ends those in a row')
    t.match(await records.reject(...rejecting(who('alice', 's1', 'mine'), { browserKnown: true })), { inARow: 1, in30Days: MANY + 1 })
    t.match(await records.subject(who(), NOW), { inARow: 0, in30Days: MANY + 1 }, "a known browser's do not hold others out")
    t.match(await records.subject(who('alice', 's1', 'mine'), NOW), { inARow: 1 })
    t.match(await records.subject(who(), NOW + MONTH), { in30Days: 0 })
    t.match(await records.reject(...rejecting(who(), { now: NOW + MONTH })), { inARow: 1, in30Days: 1, locked: false })
    const before = await rows()
    await records.writeEvent(who().tenant, rejecting(who())[1].event, NOW)
    const after = await rows()
    t.same({ ...after, events: before['events'] }, before, 'what only the log says counts nowhere')
    t.equal(after['events']?.length, (before['events']?.length ?? 0) + 1)

    const limits = { ...defaultLimits, lockInARow: 10 }
    const locking = await atOnce(async (records, index) => await records.reject(...rejecting(who('bob', `s${index}`), { limits })))
    t.equal(count(locking, 'locked', true), MANY - 9, 'from the tenth on')
    const all = await rows()
    t.equal(all['events']?.filter(one => one['kind'] === 'locked').length, 1, 'one record of the lock')
    t.match(all['notices'], [{ subject: 'bob', message: 'locked' }])
    t.equal(all['notices']?.length, 1, 'one notice')
    t.equal(all['changes']?.filter(one => one['subject'] === 'bob').length, 1, 'one change')
    t.match(await records.subject(who('bob'), NOW), { lockedAt: NOW, inARow: MANY })
    for (let old = 0; old < 3; old++) {
      const { locked } = await records.reject(...rejecting(who('carol', 's1', `b${old}`), { now: NOW + old * DAY, limits: { ...defaultLimits, lockIn30Days: 3 } }))
      await records.accept(accepting(who('carol'), 0, { whileLocked: true }))
      t.equal(locked, old === 2, 'a success between them does not keep the third in 30 days from locking')
    }
    t.match((await rows(['events']))['events']?.find(one => one['kind'] === 'locked' && one['subject'] === 'carol'), { reason: 'in_30_days' })
  })

  t.test(`${name}: a change of factors needs its epoch, its slot and its step-up, and raises the epoch`, async t => {
    const { records, replica, enrol, atOnce, rows, untouched } = await start(t)
    const add = (index: number) => [own(who('many'), 'totp', ` ${index}`)]
    const many = await atOnce(async (records, index) => await records.changeFactors(changing(who('many'), 0, { add: add(index) })))
    t.equal(count(many, 'result', 'changed'), 1, 'of many first enrolments one')
    t.equal(count(many, 'result', 'gone'), MANY - 1)
    t.equal((await records.subject(who('many'), NOW)).authenticators.length, 1)
    const native = await records.changeFactors(changing(who('native', 's1', 'none'), 0, {
      add: [own(who('native'), 'totp')],
      record: { factor: 'totp', browser: 'none', login: true, stepUp: true, loginExpiresAt: NOW + DAY }
    }))
    t.match(native, { result: 'changed' }, 'where no browser is known there is none to remember')
    t.same((await rows(['browsers']))['browsers'], [])

    const epoch = await enrol(who())
    t.match(await records.accept(accepting(who(), epoch)), { result: 'accepted' })
    const stepUp = { by: 'step_up', stepUpMs: 5 * MINUTE, factors: ['totp'], recovery: false } as const
    const refused = async (words: string, change: FactorChange, result: string) => {
      t.match(await untouched(t, words, async () => await records.changeFactors(change)), { result }, words)
    }
    const removing = (more: Partial<FactorChange> = {}, by = who()) =>
      changing(by, epoch, { allowedBy: stepUp, remove: ['totp'], notices: [notice()], ...more })
    await refused('no step-up', removing(), 'step_up_required')
    await records.accept(accepting(who(), epoch, { slot: { kind: 'step_up' }, record: { purpose: 'step_up', expiresAt: NOW + 15 * MINUTE, scope: 'recovery' } }))
    await refused('one for recovery only', removing(), 'step_up_required')
    await records.accept(accepting(who(), epoch, { slot: { kind: 'step_up' }, record: { purpose: 'step_up', expiresAt: NOW + 15 * MINUTE, scope: 'any' } }))
    await refused('with another factor', removing({ allowedBy: { ...stepUp, factors: ['email'] } }), 'step_up_required')
    await refused('too old', removing({ now: NOW + 5 * MINUTE + 1 }), 'step_up_required')
    for (const by of [who('alice', 's2'), who('alice', 's1', 'b2')]) await refused('of another session or browser', removing({}, by), 'step_up_required')
    await refused('of another epoch', removing({ epoch: epoch + 1 }), 'gone')
    t.match(await records.accept(accepting(who('alice', 's9'), epoch, { slot: { id: 'spent' } })), { result: 'accepted' })
    await refused('a slot that was accepted', removing({ slot: 'spent' }), 'gone')

    // The clock stands, and the number rises all the same.
    const renewed = await records.changeFactors(removing({
      slot: 'enrolment', add: [own(who(), 'totp', ' new')], unlock: true, record: { factor: 'totp', browser: 'b7', login: true, stepUp: true, loginExpiresAt: NOW + DAY }
    }))
    t.match(renewed, { result: 'changed', epoch: epoch + 1 })
    const state = await replica.subject(who('alice', 's1', 'b7'), NOW)
    t.match(state, { epoch: epoch + 1, browserKnown: true, inARow: 0, in30Days: 0, assurance: { loginAt: NOW, stepUpAt: NOW, stepUpScope: 'any' } })
    t.same(state.authenticators.map(one => one.id).sort(), [own(who(), 'backup_code', ' 1'), own(who(), 'backup_code', ' 2'), own(who(), 'totp', ' new')].map(one => one.id).sort())
    t.match(await records.subject(who('alice', 's9'), NOW), { assurance: null }, 'other sessions ended')
    t.match((await records.changes.since('t1', 0, 100)).at(-1), { kind: 'subject', subject: 'alice' })
    t.match((await rows(['notices']))['notices'], [{ subject: 'alice' }])
    t.match((await records.events('t1', 0, 100, 'alice')).at(-1), { kind: 'enrolment', subject: 'alice', at: NOW })
    t.equal(await records.acceptedBefore('t1', 'enrolment'), undefined, 'no verification to repeat')
    t.match(await records.changeFactors(changing(who(), epoch + 1, { now: NOW - DAY, allowedBy: { by: 'administrator' } })), { epoch: epoch + 2 }, 'nor does a clock that went back lower it')

    await records.administer('t1', 'fenced', { act: 'reset', enrolmentCodeHash: 'hash', expiresAt: NOW + DAY }, administered('fenced'))
    const first = (enrolmentCodeHash: string | null, now = NOW) => changing(who('fenced'), NOW, { now, add: [own(who('fenced'), 'totp')], allowedBy: { by: 'first', enrolmentCodeHash } })
    for (const [words, change] of [['no code', first(null)], ['another', first('other')], ['too late', first('hash', NOW + DAY)]] as const) {
      t.match(await untouched(t, words, async () => await records.changeFactors(change)), { result: 'proof_required' }, words)
    }
    t.match(await records.changeFactors(first('hash')), { result: 'changed' })
    t.match(await records.subject(who('fenced'), NOW), { fenced: false, enrolmentCodeHash: null }, 'the code is used up')
  })

  t.test(`${name}: a session's record moves, ends, and never serves somebody else; a raised epoch keeps one`, async t => {
    const { records, replica, enrol, epochOf, untouched } = await start(t)
    const epoch = await enrol(who())
    const login = async (by: By, at = epoch) => { await records.accept(accepting(by, at)) }
    const assured = async (by: By) => (await replica.subject(by, NOW)).assurance !== null
    const newest = async () => (await records.changes.since('t1', await records.changes.newest('t1') - 1, 10))[0]
    await login(who())
    t.equal(await records.subjectOf('t1', 's1', NOW), 'alice')
    for (const [tenant, session, now] of [['t1', 's2', NOW], ['t2', 's1', NOW], ['t1', 's1', NOW + DAY]] as const) t.equal(await records.subjectOf(tenant, session, now), undefined)
    t.match(await records.sessions('t1', 'alice', NOW), [{ session: 's1', at: NOW, expiresAt: NOW + DAY, factor: 'totp' }])
    t.same([await records.sessions('t1', 'alice', NOW + DAY), await records.sessions('t1', 'bob', NOW), await records.sessions('t2', 'alice', NOW)], [[], [], []])

    t.equal(await untouched(t, 'nothing to move', async () => await records.move(who('alice', 's5'), 's6', NOW)), false)
    t.equal(await untouched(t, 'what has expired', async () => await records.move(who(), 's6', NOW + DAY)), false)
    t.equal(await untouched(t, 'to itself', async () => await records.move(who(), 's1', NOW)), true)
    await login(who('alice', 's2'))
    t.equal(await records.move(who(), 's2', NOW), true)
    t.same([await assured(who()), await assured(who('alice', 's2'))], [false, true], 'the record that stood there is replaced')
    t.match(await newest(), { kind: 'session', session: 's1' })

    t.match(await untouched(t, 'the same subject', async () => await records.question(who('alice', 's2'), NOW)), { state: { assurance: { loginAt: NOW } }, change: await records.changes.newest('t1') })
    t.match(await records.question(who('bob', 's2'), NOW), { state: { assurance: null } })
    t.equal(await assured(who('alice', 's2')), false, 'another subject in the same session ends its record')
    t.match(await newest(), { kind: 'session', session: 's2' })

    await login(who('alice', 's3'))
    const ended = async () => { await records.endSession('t1', 's3', NOW, event('alice', { kind: 'logout' })) }
    await untouched(t, 'of another tenant', async () => { await records.endSession('t2', 's3', NOW, event('alice')) })
    await ended()
    t.equal(await assured(who('alice', 's3')), false)
    t.match([await newest(), (await records.events('t1', 0, 100)).at(-1)], [{ kind: 'session', session: 's3' }, { kind: 'logout' }])
    await untouched(t, 'the end of what has ended', ended)

    for (const session of ['s1', 's2', 's3']) await login(who('alice', session))
    await records.reject(...rejecting(who('alice', 's9', 'b9')))
    const raise = async (more: Partial<Parameters<Records['raiseEpoch']>[2]>) => {
      await records.raiseEpoch('t1', 'alice', { clearWaits: false, now: NOW, event: event('alice', { kind: 'credentials_changed' }), ...more })
    }
    await raise({ keep: who() })
    t.equal(await epochOf(who()), epoch + 1)
    t.same([await assured(who()), await assured(who('alice', 's2')), await assured(who('alice', 's3'))], [true, false, false])
    t.match([await newest(), (await records.events('t1', 0, 100)).at(-1)], [{ kind: 'subject', subject: 'alice' }, { kind: 'credentials_changed' }])
    t.match(await records.subject(who('alice', 's9', 'b9'), NOW), { inARow: 1 })
    await raise({ keep: who('alice', 's1', 'b2'), clearWaits: true })
    t.equal(await assured(who()), false, 'another browser keeps nothing')
    t.match(await records.subject(who('alice', 's9', 'b9'), NOW), { inARow: 0, epoch: epoch + 2 })
    await raise({ now: NOW + DAY })
    t.equal(await epochOf(who()), NOW + DAY)
    await raise({ now: NOW })
    t.equal(await epochOf(who()), NOW + DAY + 1, 'a clock that went back lowers no epoch')
  })

  t.test(`${name}: of many that raise an epoch at once each raises it, and no change or event has another's number`, async t => {
    const { records, atOnce, epochOf } = await start(t)
    await atOnce(async (records, index) => {
      await records.raiseEpoch('t1', index % 4 === 0 ? 'bob' : 'alice', { clearWaits: false, now: NOW, event: event('alice', { reason: String(index) }) })
    })
    t.same([await epochOf(who()), await epochOf(who('bob'))], [NOW + MANY * 3 / 4 - 1, NOW + MANY / 4 - 1])
    const numbers = Array.from({ length: MANY }, (_, index) => index + 1)
    t.same((await records.changes.since('t1', 0, 100)).map(one => one.number), numbers)
    const reads = await atOnce(async records => (await records.events('t1', 0, 100)).map(one => one.id))
    for (const read of reads) t.same(read, numbers, 'whoever reads the log, and when, sees the same numbers')
    t.same((await records.changes.since('t1', 3, 2)).map(one => one.number), [4, 5])
    t.same((await records.events('t1', 3, 2)).map(one => one.id), [4, 5])
    t.same((await records.events('t1', 0, 100)).map(one => Number(one.reason)).sort((a, b) => a - b), numbers.map(one => one - 1), 'and each event once')
    t.equal(await records.changes.newest('t1'), MANY)
    t.same([...await records.changes.newestOf(['t1', 't2'])], [['t1', MANY]])
    t.same([await records.changes.newest('t2'), await records.changes.since('t2', 0, 10), await records.events('t2', 0, 10)], [0, [], []])
  })

  t.test(`${name}: what an administrator does is done whole, with its event and its change`, async t => {
    const { records, enrol, rows, untouched, epochOf } = await start(t)
    const epoch = await enrol(who())
    await records.remember('t1', 'alice', { contact: 'sealed contact', locale: 'zh-CN', notices: [notice()], now: NOW })
    t.match(await records.subject(who(), NOW), { contact: 'sealed contact', locale: 'zh-CN', epoch })
    await records.remember('t1', 'alice', { contact: null, notices: [], now: NOW })
    t.match(await records.subject(who(), NOW), { contact: null, locale: 'zh-CN' }, 'null is said, absent is not')
    await records.accept(accepting(who(), epoch))
    await records.reject(...rejecting(who('alice', 's2', 'b2'), { limits: { ...defaultLimits, lockInARow: 1 } }))
    const act = async (act: Parameters<Records['administer']>[2], subject = 'alice') => {
      const before = await rows(['events', 'changes'])
      const done = await records.administer('t1', subject, act, administered(subject))
      const after = await rows(['events', 'changes'])
      for (const table of ['events', 'changes']) t.ok((after[table]?.length ?? 0) > (before[table]?.length ?? 0), `${act.act}: ${table}`)
      return done
    }
    t.equal(await act({ act: 'unlock' }), 'done')
    t.match(await records.subject(who(), NOW), {
      lockedAt: null, inARow: 0, in30Days: 0, epoch, authenticators: { length: 3 }
    })
    await act({ act: 'require', from: NOW })
    await act({ act: 'address', sealed: 'sealed address' })
    await act({ act: 'enrolment_code', enrolmentCodeHash: 'hash', expiresAt: NOW + DAY })
    t.match(await records.subject(who(), NOW), { requiredFrom: NOW, setAddress: 'sealed address', enrolmentCodeHash: 'hash', enrolmentCodeExpiresAt: NOW + DAY, fenced: false, assurance: { loginAt: NOW } })
    await act({ act: 'reset', enrolmentCodeHash: 'another', expiresAt: NOW + DAY })
    t.match(await records.subject(who(), NOW), { epoch: epoch + 1, authenticators: { length: 0 }, fenced: true, enrolmentCodeHash: 'another', setAddress: null, assurance: null, requiredFrom: NOW })
    await act({ act: 'reset', enrolmentCodeHash: null, expiresAt: NOW + DAY })
    t.match(await records.subject(who(), NOW), {
      epoch: epoch + 2, fenced: false, enrolmentCodeHash: null, enrolmentCodeExpiresAt: null
    })

    await enrol(who('bob'))
    await enrol(who('carol'))
    await records.remember('t1', 'bob', { contact: 'contact', notices: [notice({ to: null })], now: NOW })
    await records.accept(accepting(who('bob'), await epochOf(who('bob'))))
    await records.reject(...rejecting(who('bob', 's2', 'b2')))
    const reseal = (sealed: string, place: string, factor: string, id: string) => `${sealed}, ${place} ${factor} ${id}`
    const rename = async (subject: string, to: string) =>
      await records.administer('t1', subject, { act: 'rename', to, reseal }, administered(subject))
    for (const [subject, to, result] of [['bob', 'carol', 'target_has_factors'], ['bob', 'bob', 'target_has_factors'], ['nobody', 'dora', 'unknown']] as const) {
      t.equal(await untouched(t, `${subject} to ${to}`, async () => await rename(subject, to)), result)
    }
    const before = await epochOf(who('bob'))
    t.equal(await rename('bob', 'dora'), 'done')
    const dora = await records.subject(who('dora', 's1', 'b1'), NOW)
    t.match(dora, { contact: 'contact, contact  ', browserKnown: true, in30Days: 1, assurance: null })
    t.same(dora.authenticators.map(one => one.secret).sort(), ['secret of bob', 'secret of bob', `secret of bob, authenticator totp ${own(who('bob'), 'totp').id}`].sort(), 'hashes are bound to nobody')
    t.ok(dora.epoch > before)
    t.match(await records.subject(who('bob'), NOW), { epoch: 0, authenticators: { length: 0 }, contact: null })

    await records.remember('t1', 'carol', { contact: 'contact', notices: [notice()], now: NOW })
    await records.reject(...rejecting(who('carol')))
    await records.accept(accepting(who('carol'), await epochOf(who('carol'))))
    t.equal(await act({ act: 'delete', keyed: 'deleted:1' }, 'carol'), 'done')
    for (const [table, all] of Object.entries(await rows())) {
      if (table !== 'changes') t.notMatch(JSON.stringify(all), 'carol', `nothing of carol in ${table}`)
    }
    t.match((await records.events('t1', 0, 100, 'deleted:1')).map(one => one.kind), ['enrolment', 'verification', 'verification', 'administered'])
  })

  t.test(`${name}: notices are taken by one worker at a time, sent, tried again, or shown until dismissed`, async t => {
    const { records, atOnce, rows } = await start(t)
    const notices = Array.from({ length: 6 }, (_, index) => notice({ message: `notice ${index}` }))
    await records.remember('t1', 'alice', { notices: [...notices, notice({ message: 'without address', to: null })], now: NOW })
    const taken = (await atOnce(async records => await records.notices.take(NOW, 2))).flat()
    t.same(taken.map(one => one.message).sort(), notices.map(one => one.message), 'each once, whoever takes them')
    t.match(taken[0], { tenant: 't1', subject: 'alice', at: NOW, to: 'sealed address', locale: 'en', values: { left: '2' } })
    t.same(await records.notices.take(NOW + MINUTE - 1, 10), [], 'for a minute nobody else')
    const id = (message: string): string => taken.find(one => one.message === message)?.id ?? ''
    await records.notices.sent(id('notice 0'), NOW)
    await records.notices.failed(id('notice 1'), NOW + 5 * MINUTE)
    await records.notices.failed(id('notice 2'), null)
    const again = await records.notices.take(NOW + MINUTE, 10)
    t.same(again.map(one => one.message).sort(), ['notice 3', 'notice 4', 'notice 5'], 'of a worker that died, once more')
    for (const one of again) await records.notices.sent(one.id, NOW)
    t.match(await records.notices.take(NOW + 5 * MINUTE, 10), [{ message: 'notice 1' }])
    const shown = async (tenant = 't1', subject = 'alice') => (await records.notices.shown(tenant, subject)).map(one => one.message).sort()
    t.same(await shown(), ['notice 2', 'without address'])
    t.same([await shown('t2'), await shown('t1', 'bob')], [[], []])
    await records.notices.dismiss('t1', 'bob', id('notice 2'), NOW + DAY)
    await records.notices.dismiss('t2', 'alice', id('notice 2'), NOW + DAY)
    t.equal((await shown()).length, 2, 'nobody dismisses what is not his')
    await records.notices.dismiss('t1', 'alice', id('notice 2'), NOW + DAY)
    t.same(await shown(), ['without address'])
    t.match(JSON.stringify((await rows()).notices), `"dismissed_at":${NOW + DAY}`, 'when, by the clock of whoever asks')
  })

  t.test(`${name}: one process holds the lease, rules that changed are told, and what no rule needs is pruned`, async t => {
    const { records, replica, atOnce, rows, enrol } = await start(t)
    const holder = (id: string) => ({ id, host: `host ${id}`, pid: id.length })
    const answers = await atOnce(async (records, index) => await records.lease.take(holder(String(index)), NOW, MINUTE))
    t.equal(answers.filter(one => one === undefined).length, 1)
    const held = answers.findIndex(one => one === undefined)
    t.match(answers.filter(one => one !== undefined), answers.filter(one => one !== undefined).map(() => ({ host: `host ${held}` })), 'the others hear who has it')
    t.equal(await records.lease.take(holder(String(held)), NOW + MINUTE, MINUTE), undefined, 'its holder renews it')
    t.match(await replica.lease.take(holder('later'), NOW + 2 * MINUTE - 1, MINUTE), { host: `host ${held}` })
    await records.lease.release('somebody')
    t.equal(await replica.lease.take(holder('later'), NOW + 2 * MINUTE, MINUTE), undefined, 'a stale one is taken over')
    await replica.lease.release('later')
    t.equal(await records.lease.take(holder('next'), NOW, MINUTE), undefined, 'and a released one is free')

    t.equal(await records.changes.rules('t1', 'digest 1', NOW), false, 'the first start tells nobody')
    t.equal(await records.changes.rules('t1', 'digest 1', NOW + 2 * 60 * MINUTE), false)
    t.equal(await records.changes.rules('t1', 'digest 2', NOW + DAY), true)
    t.equal(await replica.changes.rules('t1', 'digest 2', NOW + DAY + MINUTE), true, 'the other replicas of a roll-out too')
    t.equal(await replica.changes.rules('t1', 'digest 2', NOW + DAY + 60 * MINUTE), false)
    t.equal(await records.changes.rules('t2', 'digest 2', NOW), false)
    await records.changes.tenantChanged('t1', NOW)
    t.match(await records.changes.since('t1', 0, 10), [1, 2, 3].map(number => ({ number, kind: 'tenant', session: null, subject: null })))
    t.match(await records.events('t1', 0, 10), [{ kind: 'rules' }])

    t.same(await records.tenants(), [])
    for (const tenant of ['t1', 't2', 'a']) for (const subject of ['alice', 'bob']) await enrol(who(subject, 's1', 'b1', tenant))
    t.same([...await records.tenants()].sort(), ['a', 't1', 't2'])
    await records.accept(accepting(who(), NOW, { now: NOW }))
    await records.reject(...rejecting(who('alice', 's2', 'b2')))
    const noticed = { contact: null, notices: [notice({ to: null }), notice()], now: NOW }
    await records.remember('t1', 'alice', noticed)
    await records.writeEvent('t1', event('alice', { kind: 'old' }), NOW)
    const old = ['accepted', 'assurances', 'failures', 'browsers', 'changes', 'notices', 'events'] as const
    const before = await rows()
    for (const table of old) t.ok(before[table]?.length, table)
    await records.prune(NOW, MONTH)
    t.same(await rows(), before, 'nothing that is young')
    await records.prune(NOW + MONTH + 2 * DAY, MONTH)
    const after = await rows()
    t.same(Object.fromEntries(old.map(table => [table, table === 'notices' ? after[table]?.map(one => one['recipient']) : after[table]])),
      { accepted: [], assurances: [], failures: [], browsers: [], changes: [], notices: ['sealed address'], events: [] }, 'a notice that waits to be mailed stays')
    for (const table of TABLES) if (!(old as readonly string[]).includes(table)) t.same(after[table], before[table], `${table} stays`)
    t.equal(await records.changes.newest('t1'), before['change_numbers']?.find(one => one['tenant'] === 't1')?.['number'], 'no number is given twice')
  })

  t.test(`${name}: a step commits with its audit row, its change and its notices, or not at all`, async t => {
    const { db, records, enrol, rows } = await start(t)
    const tight = { ...defaultLimits, lockInARow: 1 }
    const by = (subject: string) => who(subject, `session of ${subject}`)
    /** Each method that writes, on a subject of its own, with the tables that it must write to. */
    const steps: readonly (readonly [string, readonly ('events' | 'changes' | 'notices')[], (subject: string, epoch: number) => Promise<unknown>])[] = [
      ['accept', ['events', 'notices'], async (subject, epoch) => await records.accept(accepting(by(subject), epoch, { use: { use: 'advance', authenticator: own(by(subject), 'totp').id, to: 1 }, notices: [notice()] }))],
      ['reject', ['events', 'changes', 'notices'], async subject => await records.reject(...rejecting(by(subject), { limits: tight }))],
      ['changeFactors', ['events', 'changes', 'notices'], async (subject, epoch) => await records.changeFactors(changing(by(subject), epoch, { allowedBy: { by: 'administrator' }, remove: ['totp'], notices: [notice()], slot: `of ${subject}` }))],
      ['remember', ['notices'], async subject => { await records.remember('t1', subject, { contact: 'x', notices: [notice()], now: NOW }) }],
      ['move', ['changes'], async subject => await records.move(by(subject), `moved ${subject}`, NOW)],
      ['question of another subject', ['changes'], async subject => await records.question(who('stranger', by(subject).session), NOW)],
      ['endSession', ['events', 'changes'], async subject => { await records.endSession('t1', by(subject).session, NOW, event(subject)) }],
      ['raiseEpoch', ['events', 'changes'], async subject => { await records.raiseEpoch('t1', subject, { clearWaits: true, now: NOW, event: event(subject) }) }],
      ...([
        { act: 'unlock' }, { act: 'reset', enrolmentCodeHash: 'x', expiresAt: NOW }, { act: 'enrolment_code', enrolmentCodeHash: 'x', expiresAt: NOW }, { act: 'require', from: NOW }, { act: 'address', sealed: 'x' },
        { act: 'delete', keyed: 'y' }, { act: 'rename', to: 'renamed', reseal: (sealed: string) => sealed }
      ] as const).map(act => [
        `administer ${act.act}`, act.act === 'delete' ? ['events', 'changes'] as const : ['events', 'changes', 'notices'] as const,
        async (subject: string) => await records.administer('t1', subject, act, administered(subject, { notices: [notice()] }))
      ] as const),
      ['changes.rules', ['events', 'changes'], async (_subject, epoch) => await records.changes.rules('t1', `digest ${epoch}`, NOW)]
    ]
    await records.changes.rules('t1', 'before', NOW)
    const epochs = new Map<string, number>()
    for (const [step] of steps) {
      epochs.set(step, await enrol(by(step)))
      await records.accept(accepting(by(step), epochs.get(step) ?? 0))
    }
    for (const away of ['events', 'changes', 'notices'] as const) {
      await sql.raw(`alter table ${away} rename to away`).execute(db)
      const left = TABLES.filter(table => table !== away)
      for (const [step, writes, work] of steps) {
        if (!writes.includes(away)) continue
        const before = await rows(left)
        await t.rejects(work(step, epochs.get(step) ?? 0), { code: 'unavailable' }, `${step} without ${away}`)
        t.same(await rows(left), before, `${step} without ${away}: nothing was written`)
      }
      await t.rejects(records.check(), { code: 'unavailable' }, 'and the check says so')
      await sql.raw(`alter table away rename to ${away}`).execute(db)
    }
    await records.check()
    for (const [step, writes, work] of steps) {
      const before = await rows(writes)
      await work(step, epochs.get(step) ?? 0)
      const after = await rows(writes)
      for (const table of writes) t.ok((after[table]?.length ?? 0) > (before[table]?.length ?? 0), `${step} writes ${table}`)
    }
  })

  t.test(`${name}: what one tenant does leaves another's rows as they are, whatever names they share`, async t => {
    const { records, enrol, rows } = await start(t)
    const mine = async () => Object.fromEntries(Object.entries(await rows())
      .map(([table, all]) => [table, all.filter(one => one['tenant'] === 't1' && table !== 'event_numbers').map(one => ({ ...one, number: table === 'changes' ? one['number'] : null }))]))
    for (const tenant of ['t1', 't2']) {
      const by = who('alice', 's1', 'b1', tenant)
      const epoch = await enrol(by)
      await records.accept(accepting(by, epoch, { slot: { id: 'the same' }, use: { use: 'advance', authenticator: own(by, 'totp').id, to: 5 } }))
      await records.reject(...rejecting(who('alice', 's2', 'b2', tenant)))
      await records.remember(tenant, 'alice', { contact: 'x', notices: [notice({ to: null })], now: NOW })
    }
    const before = await mine()
    const theirs = who('alice', 's1', 'b1', 't2')
    t.match(await records.accept(accepting(theirs, NOW, { use: { use: 'advance', authenticator: own(who(), 'totp').id, to: 9 } })), { result: 'used' }, "a key of the other's")
    t.match(await records.accept(accepting(theirs, NOW, { slot: { id: 'the same' } })), { result: 'gone' }, 'its own challenge was accepted')
    await records.reject(...rejecting(theirs, { limits: { ...defaultLimits, lockInARow: 1 } }))
    await records.changeFactors(changing(theirs, NOW, { allowedBy: { by: 'administrator' }, remove: ['totp', 'backup_code'], unlock: true }))
    await records.rebind(theirs, 'b9')
    await records.move(theirs, 's7', NOW)
    await records.question(who('bob', 's7', 'b1', 't2'), NOW)
    await records.endSession('t2', 's1', NOW, event('alice'))
    await records.raiseEpoch('t2', 'alice', { clearWaits: true, now: NOW + DAY, event: event('alice') })
    await records.changes.tenantChanged('t2', NOW)
    await records.writeEvent('t2', event('alice'), NOW)
    await records.events('t2', 0, 100)
    for (const notice of await records.notices.shown('t1', 'alice')) await records.notices.dismiss('t2', 'alice', notice.id, NOW + DAY)
    for (const act of [{ act: 'unlock' }, { act: 'reset', enrolmentCodeHash: 'x', expiresAt: NOW }, { act: 'require', from: 1 }, { act: 'delete', keyed: 'y' }] as const) {
      await records.administer('t2', 'alice', act, administered('alice'))
    }
    t.same(await mine(), before)
    t.same((await rows(['subjects', 'authenticators']))['authenticators']?.filter(one => one['tenant'] === 't2'), [], 'they did happen')
  })

  t.test(`${name}: it has a clock, and a store that was closed says that it is unavailable, not that nobody is there`, async t => {
    const { url } = await start(t)
    const { records } = await openRecords(t, url)
    const [before, now, after] = [Date.now(), await records.now(), Date.now()]
    t.ok(now >= before - MINUTE && now <= after + MINUTE, 'the one of this machine')
    await records.check()
    await records.close()
    await t.rejects(records.subject(who(), NOW), { code: 'unavailable' })
    await t.rejects(records.question(who(), NOW), { code: 'unavailable' })
    await t.rejects(records.acceptedBefore('t1', 'x'), { code: 'unavailable' })
    await t.rejects(records.notices.take(NOW, 1), { code: 'unavailable' })
    await t.rejects(records.check(), { code: 'unavailable' })
  })
}

t.test('PostgreSQL: columns that a newer version adds beside a running one break no statement that is planned already', async t => {
  const { name, url } = await server.fresh()
  const { records, enrol } = await startRecords(t, url)
  const epoch = await enrol(who())
  const use = async (id: string): Promise<void> => {
    t.match(await records.accept(accepting(who(), epoch, { slot: { id } })), { result: 'accepted' })
    t.match(await records.acceptedBefore('t1', id), { factor: 'totp' })
    t.match(await records.subject(who(), NOW), { epoch, assurance: { loginAt: NOW } })
  }
  await use('before')
  for (const table of TABLES) await server.query(`alter table ${table} add column later text`, name)
  await use('after')
})

t.test('the contract calls each method of the port', async t => {
  const database = await openDatabase('sqlite::memory:')
  t.teardown(async () => { await database.close() })
  const methods = methodsOf(createRecords(database, ''))
  t.ok(methods.length > 25)
  t.same(methods.filter(method => !called.has(method)), [])
})
