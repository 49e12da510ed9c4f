// What every implementation of Pending must do (domain/pending.ts), on the one in the process and on a real Redis.

import { Redis } from 'ioredis'
import t from 'tap'
import { createRandomness, createSealer } from '../../service/src/adapters/crypto.ts'
import { createMemoryPending } from '../../service/src/adapters/memory.ts'
import { createRedisPending } from '../../service/src/adapters/redis.ts'
import type { By, Purpose, SlotKind } from '../../service/src/domain/model.ts'
import { defaultLimits, waitAfter } from '../../service/src/domain/policy.ts'
import type { OpenOptions, Pending, Taken } from '../../service/src/domain/pending.ts'
import { startRedis } from '../helpers/redis.ts'
import type { Teardown } from '../helpers/service.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const limits = defaultLimits
const sealer = createSealer({
  encryptionKeys: [{ id: 'k1', key: new Uint8Array(32).map((_, i) => i) }],
  serverKey: { id: 's1', key: new Uint8Array(32).map((_, i) => i + 1) }
})
const randomness = createRandomness()

interface Store {
  readonly pending: Pending
  /** Another process that shares the store, where there can be one. */
  readonly replica: Pending
  readonly advance: (ms: number) => void
  /** Keys without an end; an implementation without keys has none. */
  readonly endless: () => Promise<readonly string[]>
}

const stores: readonly { readonly name: string; readonly start: (t: Teardown) => Promise<Store> }[] = [
  {
    name: 'in-process',
    start: async () => {
      let now = Date.UTC(2026, 0, 1)
      const pending = createMemoryPending({ clock: { now: () => now }, sealer, randomness })
      return { pending, replica: pending, advance: ms => { now += ms }, endless: async () => [] }
    }
  },
  {
    name: 'Redis',
    start: async t => {
      const { port } = await startRedis(t)
      let offset = 0
      const client = () => {
        const redis = new Redis({ port, host: '127.0.0.1' })
        t.teardown(() => { redis.disconnect() })
        return redis
      }
      const redis = client()
      const over = (redis: Redis) => createRedisPending({ redis, sealer, randomness, offsetMs: () => offset })
      return {
        pending: over(redis),
        replica: over(client()),
        advance: ms => { offset += ms },
        endless: async () => {
          const keys = await redis.keysBuffer('*')
          const lives = await Promise.all(keys.map(async key => await redis.pttl(key)))
          return keys.map(String).filter((_, index) => (lives[index] ?? -1) < 0)
        }
      }
    }
  }
]

const who = (subject = 'alice', session = 's1', browser = 'b1', tenant = 't1'): By => ({ tenant, subject, session, browser })
const others: readonly (readonly [string, By])[] = [
  ['another subject', who('bob')],
  ['another session', who('alice', 's2')],
  ['another browser', who('alice', 's1', 'b2')],
  ['no browser', who('alice', 's1', 'none')],
  ['another tenant', who('alice', 's1', 'b1', 't2')]
]
const opening = (more: Partial<OpenOptions> = {}): OpenOptions =>
  ({ epoch: 1, browserKnown: false, inARow: 0, limits, lifetimeMs: 10 * MINUTE, ...more })
const taking = (more: { readonly browserKnown?: boolean; readonly inARow?: number } = {}) =>
  ({ browserKnown: false, inARow: 0, limits, ...more })
const looking = (browserKnown = false) => ({ browserKnown, limits })
const sending = (codeHash: string, browserKnown = false) => ({ codeHash, browserKnown, limits })
const count = (taken: readonly Taken[], what: Taken['taken']) => taken.filter(one => one.taken === what).length
async function receiptOf (taking: Promise<Taken>) {
  const taken = await taking
  if (taken.taken !== 'taken') throw new Error(`expected an attempt, got ${taken.taken}`)
  return taken.receipt
}

for (const { name, start } of stores) {
  t.test(`${name}: there is one live slot for each "by" and kind, and it is returned until it ends`, async t => {
    const { pending, replica, advance } = await start(t)
    const first = await pending.open(who(), 'login', opening({ returnPath: '/a' }))
    t.match(first, { fresh: true, waitForMs: 0, mailWaitMs: 0, slot: { kind: 'login', attemptsLeft: 5, returnPath: '/a', payload: null, mailedHash: null } })
    t.equal(first.slot.expiresAt, first.now + 10 * MINUTE)
    const again = await replica.open(who(), 'login', opening({ returnPath: '/b' }))
    t.match(again, { fresh: false, slot: { id: first.slot.id, returnPath: '/b' } }, 'a new return path replaces the old one')
    t.match(await pending.open(who(), 'login', opening()), { fresh: false, slot: { returnPath: '/b' } }, 'none keeps it')
    const ids = new Set([first.slot.id])
    for (const kind of ['step_up', 'enrol_totp', 'enrol_email', 'proof'] as const satisfies readonly SlotKind[]) {
      const slot = await pending.open(who(), kind, opening({ payload: `payload of ${kind}` }))
      ids.add(slot.slot.id)
      t.match(await pending.read(who(), slot.slot.id, looking()), { slot: { kind, payload: `payload of ${kind}` } })
    }
    for (const [, by] of others) ids.add((await pending.open(by, 'login', opening())).slot.id)
    t.equal(ids.size, 5 + others.length, 'every kind and every part of "by" has its own')
    t.equal(await replica.find(who(), 'login'), first.slot.id)

    t.match(await pending.open(who(), 'login', opening({ epoch: 2 })), { fresh: true, slot: { epoch: 2 } }, 'another epoch replaces it')
    const replaced = await pending.open(who(), 'login', opening({ epoch: 2, replace: true }))
    t.equal(replaced.fresh, true)
    t.equal(await pending.read(who(), first.slot.id, looking()), undefined, 'an id of a slot that was replaced is gone')
    advance(10 * MINUTE + 1)
    t.equal(await pending.read(who(), replaced.slot.id, looking()), undefined)
    t.equal(await pending.find(who(), 'login'), undefined)
    t.equal((await pending.open(who(), 'login', opening({ epoch: 2 }))).fresh, true, 'an expired one is not returned')
  })

  t.test(`${name}: an id counts only for the "by" that it was made for; whoever else brings it spends nothing`, async t => {
    const { pending } = await start(t)
    for (const held of [undefined, 'a held answer']) {
      const { slot } = await pending.open(who(), 'login', opening({ held }))
      for (const [words, by] of others) {
        for (const budget of ['subject', 'backup_code'] as const) {
          t.match(await pending.takeAttempt(by, slot.id, budget, taking()), { taken: 'gone' }, words)
        }
        t.match(await pending.send(by, slot.id, sending('h')), { sent: 'gone' }, words)
        t.equal(await pending.read(by, slot.id, looking()), undefined, words)
        await pending.end(by, slot.id)
      }
      for (const id of ['', 'x', 'A'.repeat(39), `${slot.id.slice(0, -1)}${slot.id.endsWith('A') ? 'B' : 'A'}`, `${slot.id}A`, `${slot.id}=`]) {
        t.match(await pending.takeAttempt(who(), id, 'subject', taking()), { taken: 'gone' }, id)
      }
      t.match(await pending.read(who(), slot.id, looking()), { slot: { attemptsLeft: 5, mailedHash: null }, waitForMs: 0 }, 'nothing was counted')
    }
  })

  t.test(`${name}: an attempt is booked before it is known to be wrong; the fifth in a row begins a wait that doubles`, async t => {
    const { pending, replica, advance } = await start(t)
    let expected = 0
    for (let failures = 1; failures <= 9; failures++) {
      const { slot, waitForMs } = await pending.open(who('alice', `s${failures}`), 'login', opening({ inARow: failures - 1 }))
      t.equal(waitForMs, 0)
      t.match(await replica.takeAttempt(who('alice', `s${failures}`), slot.id, 'subject', taking()), { taken: 'taken', slot: { attemptsLeft: 4 } })
      expected = waitAfter(failures, limits)
      const next = await pending.takeAttempt(who('alice', `s${failures}`), slot.id, 'subject', taking())
      if (expected === 0) {
        t.equal(next.taken, 'taken')
        await pending.giveBack(await receiptOf(Promise.resolve(next)), 'used')
        continue
      }
      t.equal(next.taken, 'waiting', `after ${failures}`)
      if (next.taken === 'waiting') t.ok(next.waitForMs > expected - 5_000 && next.waitForMs <= expected, `${next.waitForMs} of ${expected}`)
      t.match(await pending.read(who('alice', `s${failures}`), slot.id, looking()), { slot: { attemptsLeft: 4 } }, 'waiting spends nothing')
      advance(expected + 1)
    }
    t.equal(expected, 480_000)
    t.equal((await pending.open(who('bob'), 'login', opening())).waitForMs, 0, 'another subject does not wait')
  })

  t.test(`${name}: a slot takes five attempts and is then spent, also by a hundred at once from two replicas`, async t => {
    const { pending, replica } = await start(t)
    const { slot } = await pending.open(who(), 'login', opening())
    const loose = { browserKnown: false, inARow: 0, limits: { ...limits, waitAfterFailures: 10 } }
    const taken = await Promise.all(Array.from({ length: 100 }, async (_, index) =>
      await (index % 2 === 0 ? pending : replica).takeAttempt(who(), slot.id, 'subject', loose)))
    t.equal(count(taken, 'taken'), 5)
    t.equal(count(taken, 'spent'), 95)
    t.equal(await pending.find(who(), 'login'), undefined)
    t.equal((await pending.open(who(), 'login', opening())).fresh, true)
  })

  t.test(`${name}: of attempts on many slots of one subject at once only five are booked`, async t => {
    const { pending, replica } = await start(t)
    const slots = await Promise.all(Array.from({ length: 50 }, async (_, index) =>
      await pending.open(who('alice', `s${index}`, `b${index}`), index % 2 === 0 ? 'login' : 'step_up', opening())))
    const taken = await Promise.all(slots.flatMap(({ slot }, index) => [1, 2, 3].map(async () =>
      await (index % 3 === 0 ? pending : replica).takeAttempt(who('alice', `s${index}`, `b${index}`), slot.id, 'subject', taking()))))
    t.equal(count(taken, 'taken'), 5)
    t.equal(count(taken, 'waiting'), 145)
  })

  t.test(`${name}: what is given back was never booked, and an accepted one ends slot, count and wait`, async t => {
    const { pending, advance } = await start(t)
    const { slot } = await pending.open(who(), 'login', opening({ inARow: 4 }))
    const used = await receiptOf(pending.takeAttempt(who(), slot.id, 'subject', taking({ inARow: 4 })))
    t.match(await pending.takeAttempt(who(), slot.id, 'subject', taking()), { taken: 'waiting' })
    await pending.giveBack(used, 'used')
    t.match(await pending.read(who(), slot.id, looking()), { slot: { attemptsLeft: 5 }, waitForMs: 0 }, 'the wait that it began ends with it')
    const wrong = await pending.takeAttempt(who(), slot.id, 'subject', taking())
    t.equal(wrong.taken, 'taken')
    advance(31_000)
    const right = await receiptOf(pending.takeAttempt(who(), slot.id, 'subject', taking()))
    await pending.giveBack(right, 'accepted')
    t.equal(await pending.read(who(), slot.id, looking()), undefined)
    const fresh = await pending.open(who(), 'login', opening())
    t.match(fresh, { fresh: true, waitForMs: 0 })
    for (let i = 0; i < 4; i++) t.equal((await pending.takeAttempt(who(), fresh.slot.id, 'subject', taking())).taken, 'taken', 'the count began anew')
    t.equal((await pending.open(who(), 'login', opening())).waitForMs, 0)
  })

  t.test(`${name}: a later failure's wait is not ended by giving an earlier attempt back`, async t => {
    const { pending } = await start(t)
    const { slot } = await pending.open(who(), 'login', opening({ inARow: 3 }))
    const early = await receiptOf(pending.takeAttempt(who(), slot.id, 'subject', taking({ inARow: 3 })))
    t.equal((await pending.takeAttempt(who(), slot.id, 'subject', taking())).taken, 'taken')
    await pending.giveBack(early, 'used')
    t.match(await pending.takeAttempt(who(), slot.id, 'subject', taking()), { taken: 'waiting' })
  })

  t.test(`${name}: a count that was lost is brought from SQL, and one in flight is not lowered by it`, async t => {
    const { pending, advance } = await start(t)
    const { slot } = await pending.open(who(), 'login', opening({ inARow: 20 }))
    const taken = await pending.takeAttempt(who(), slot.id, 'subject', taking({ inARow: 20 }))
    t.equal(taken.taken, 'taken')
    const waiting = await pending.takeAttempt(who(), slot.id, 'subject', taking())
    t.ok(waiting.taken === 'waiting' && waiting.waitForMs > limits.waitLongestSeconds * 1000 - 5_000, 'the 21st in a row waits longest')
    t.ok((await pending.open(who(), 'login', opening({ inARow: 0 }))).waitForMs > 0)
    advance(HOUR + 1)
    await pending.open(who(), 'login', opening({ inARow: 0 }))
    t.equal((await pending.takeAttempt(who(), slot.id, 'subject', taking())).taken, 'gone', 'the slot is long gone')
    const next = await pending.open(who(), 'login', opening({ inARow: 0 }))
    for (let i = 0; i < 4; i++) t.equal((await pending.takeAttempt(who(), next.slot.id, 'subject', taking())).taken, 'taken')
  })

  t.test(`${name}: a browser that is known has a wait of its own`, async t => {
    const { pending } = await start(t)
    const thief = await pending.open(who('alice', 'thief', 'b9'), 'login', opening({ inARow: 30 }))
    t.equal((await pending.takeAttempt(who('alice', 'thief', 'b9'), thief.slot.id, 'subject', taking({ inARow: 30 }))).taken, 'taken')
    t.equal((await pending.takeAttempt(who('alice', 'thief', 'b9'), thief.slot.id, 'subject', taking())).taken, 'waiting')
    const owner = await pending.open(who(), 'login', opening({ browserKnown: true }))
    t.equal(owner.waitForMs, 0)
    t.equal((await pending.takeAttempt(who(), owner.slot.id, 'subject', taking({ browserKnown: true }))).taken, 'taken')
    await pending.clearBudget('t1', 'alice')
    t.equal((await pending.open(who('alice', 'thief', 'b9'), 'login', opening())).waitForMs, 0, 'administration ends all waits')
  })

  t.test(`${name}: wrong backup codes spend the slot and an allowance an hour, never the subject's budget`, async t => {
    const { pending, advance } = await start(t)
    let taken = 0
    for (let slots = 0; slots < 3; slots++) {
      const { slot } = await pending.open(who(), 'login', opening())
      for (let i = 0; i < 5; i++) if ((await pending.takeAttempt(who(), slot.id, 'backup_code', taking())).taken === 'taken') taken += 1
    }
    t.equal(taken, limits.backupWrongPerHour)
    const { slot, waitForMs } = await pending.open(who(), 'login', opening())
    t.equal(waitForMs, 0)
    t.match(await pending.takeAttempt(who(), slot.id, 'backup_code', taking()), { taken: 'waiting' })
    const other = await pending.open(who('alice', 's1', 'b2'), 'login', opening())
    t.equal((await pending.takeAttempt(who('alice', 's1', 'b2'), other.slot.id, 'backup_code', taking())).taken, 'taken', 'another browser has its own')
    t.equal((await pending.takeAttempt(who(), slot.id, 'subject', taking())).taken, 'taken')
    advance(HOUR + 1)
    const later = await pending.open(who(), 'login', opening())
    const receipt = await receiptOf(pending.takeAttempt(who(), later.slot.id, 'backup_code', taking()))
    await pending.giveBack(receipt, 'used')
    for (let i = 0; i < 5; i++) t.equal((await pending.takeAttempt(who(), later.slot.id, 'backup_code', taking())).taken, 'taken')
  })

  t.test(`${name}: a code is mailed once a minute, five times an hour, twenty times a day, whichever slot asks`, async t => {
    const { pending, advance } = await start(t)
    let sent = 0
    for (let minute = 0; minute < 24 * 60; minute += 2) {
      const by = who('alice', `s${minute}`)
      const { slot } = await pending.open(by, 'login', opening())
      const first = await pending.send(by, slot.id, sending(`hash ${minute}`))
      if (first.sent === 'sent') {
        sent += 1
        t.match(first.slot, { mailedHash: `hash ${minute}`, mailedAt: Number })
        t.match(await pending.send(by, slot.id, sending('second')), { sent: 'waiting' })
        t.match(await pending.read(by, slot.id, looking()), { slot: { mailedHash: `hash ${minute}` } })
      }
      if (minute === 58) t.equal(sent, 5)
      advance(2 * MINUTE)
    }
    t.equal(sent, 20)
    const known = await pending.open(who(), 'login', opening({ browserKnown: true }))
    t.equal((await pending.send(who(), known.slot.id, sending('h', true))).sent, 'sent', 'a known browser has its own quota')
  })

  t.test(`${name}: nothing is mailed while the budget waits, nor for a slot that is spent`, async t => {
    const { pending } = await start(t)
    const { slot } = await pending.open(who(), 'login', opening())
    for (let i = 0; i < 5; i++) await pending.takeAttempt(who(), slot.id, 'backup_code', taking())
    t.match(await pending.send(who(), slot.id, sending('h')), { sent: 'gone' })
    const next = await pending.open(who(), 'login', opening())
    for (let i = 0; i < 5; i++) await pending.takeAttempt(who(), next.slot.id, 'subject', taking())
    const open = await pending.open(who('alice', 's5'), 'login', opening())
    t.match(await pending.send(who('alice', 's5'), open.slot.id, sending('h')), { sent: 'waiting' })
  })

  t.test(`${name}: a held answer has a slot of its own each time, and outlives it for an equal repeat`, async t => {
    const { pending, replica, advance } = await start(t)
    const shared = await pending.open(who(), 'login', opening())
    const one = await pending.open(who(), 'login', opening({ held: 'one' }))
    const two = await pending.open(who(), 'login', opening({ held: 'two' }))
    t.equal(new Set([shared, one, two].map(({ slot }) => slot.id)).size, 3)
    t.equal(await replica.held(who(), one.slot.id), 'one')
    t.equal(await replica.held(who(), shared.slot.id), undefined)
    t.equal(await replica.held(who('bob'), one.slot.id), undefined)
    await pending.giveBack(await receiptOf(pending.takeAttempt(who(), one.slot.id, 'subject', taking())), 'accepted')
    t.equal(await pending.read(who(), one.slot.id, looking()), undefined)
    t.equal(await pending.held(who(), one.slot.id), 'one')
    t.equal(await pending.held(who(), two.slot.id), 'two')
    t.match(await pending.read(who(), two.slot.id, looking()), { slot: { attemptsLeft: 5 } })
    advance(11 * MINUTE + 1)
    t.equal(await pending.read(who(), two.slot.id, looking()), undefined)
  })

  t.test(`${name}: a look shows the waits that the asking browser would meet, on every replica`, async t => {
    const { pending, replica } = await start(t)
    const thief = who('alice', 'thief', 'b9')
    const theirs = await pending.open(thief, 'login', opening({ inARow: 30 }))
    await pending.takeAttempt(thief, theirs.slot.id, 'subject', taking({ inARow: 30 }))
    const own = await pending.open(who(), 'login', opening({ browserKnown: true }))
    await pending.send(who(), own.slot.id, sending('h', true))
    for (const one of [pending, replica]) {
      t.match(await one.read(who(), own.slot.id, looking(true)), { waitForMs: 0 }, 'a known browser does not wait for a thief')
      const known = await one.read(who(), own.slot.id, looking(true))
      t.ok((known?.mailWaitMs ?? 0) > 50_000, `mailed a moment ago: ${known?.mailWaitMs ?? 'gone'}`)
      const thiefs = await one.read(thief, theirs.slot.id, looking())
      t.ok((thiefs?.waitForMs ?? 0) > 0, 'the thief does')
    }
  })

  t.test(`${name}: a held answer is only for the "by" it was held for, and what is gone tells the time`, async t => {
    const { pending, replica } = await start(t)
    const { slot } = await pending.open(who(), 'login', opening({ held: 'kept' }))
    for (const [words, by] of others) t.equal(await replica.held(by, slot.id), undefined, words)
    t.equal(await replica.held(who(), slot.id), 'kept')
    const now = await pending.now()
    for (const gone of [
      await pending.send(who('bob'), slot.id, sending('h')),
      await pending.takeAttempt(who('bob'), slot.id, 'subject', taking())
    ]) t.ok(Math.abs(gone.now - now) < 60_000, `${gone.now} of ${now}`)
  })

  t.test(`${name}: no key is without an end, the clock is the store's own, and names move no key`, async t => {
    const { pending, endless } = await start(t)
    const names = ['t1}', '{t1', 'a:b', 'ALICE', 'a'.repeat(255), '…', '*', '\u0000'.replace('\u0000', 'x y')]
    for (const subject of names) {
      for (const kind of ['login', 'step_up'] as const satisfies readonly Purpose[]) {
        const { slot } = await pending.open(who(subject), kind, opening({ returnPath: '/x', payload: 'p' }))
        await pending.takeAttempt(who(subject), slot.id, 'subject', taking())
        await pending.takeAttempt(who(subject), slot.id, 'backup_code', taking())
        await pending.send(who(subject), slot.id, sending('h'))
        t.match(await pending.read(who(subject), slot.id, looking()), { slot: { by: { subject }, attemptsLeft: 3, returnPath: '/x' } }, subject)
      }
      await pending.open(who(subject), 'login', opening({ held: 'h' }))
    }
    t.same(await endless(), [])
    await pending.check()
    const { now } = await pending.open(who(), 'login', opening())
    t.ok(Math.abs(await pending.now() - now) < 5_000)
    await pending.close()
  })
}
