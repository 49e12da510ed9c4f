// Threat: many requests at once. Each test counts what was accepted and what was evaluated, on each pair of stores.

import { AsyncLocalStorage } from 'node:async_hooks'
import { EventEmitter, once } from 'node:events'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { App } from '../../service/src/app.ts'
import { createRandomness, createSealer } from '../../service/src/adapters/crypto.ts'
import { createRedisPending } from '../../service/src/adapters/redis.ts'
import { defaultLimits } from '../../service/src/domain/policy.ts'
import { toBy } from '../../service/src/http/ask.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import {
  by,
  startService,
  type Answer,
  type Service,
  type StartOptions,
  type Teardown,
  type WireBy
} from '../helpers/service.ts'

const N = 200

async function startOnRedis (t: Teardown, options: StartOptions = {}): Promise<Service> {
  const server = await startRedis(t)
  const redis = new Redis({
    port: server.port,
    host: '127.0.0.1',
    maxRetriesPerRequest: 1,
    enableOfflineQueue: true,
    commandTimeout: 2000
  })
  let offset = 0
  const sealer = createSealer({
    encryptionKeys: [{ id: 'k1', key: new Uint8Array(32).map((_, i) => i) }],
    serverKey: { id: 's1', key: new Uint8Array(32).map((_, i) => i + 1) }
  })
  const pending = createRedisPending({ redis, sealer, randomness: createRandomness(), offsetMs: () => offset })
  const service = await startService(t, { ...options, overrides: { ...options.overrides, pending } })
  t.teardown(() => {
    redis.disconnect()
  })
  // Redis has a clock of its own: each move of the service's is followed.
  const follow = () => { offset = service.clock.now() - Date.now() }
  follow()
  return {
    ...service,
    advance: (ms: number) => {
      service.advance(ms)
      follow()
    },
    nextStep: () => {
      service.nextStep()
      follow()
    }
  }
}

const postgres = await startPostgres(t)
/** With a connection for whoever waits, since what is counted here is not how long a queue may be. */
const onPostgres = async () => ({ database: (await postgres.fresh()).url, env: { POSTERN_DATABASE_POOL: '40' } })

const stores: readonly { readonly name: string; readonly start: (t: Teardown) => Promise<Service> }[] = [
  { name: 'SQLite, in-process', start: startService },
  { name: 'SQLite, Redis', start: startOnRedis },
  { name: 'PostgreSQL, in-process', start: async t => await startService(t, await onPostgres()) },
  { name: 'PostgreSQL, Redis', start: async t => await startOnRedis(t, await onPostgres()) }
]

const tally = (answers: readonly Answer[]) => {
  const counts: Record<string, number> = {}
  for (const { status, body } of answers) {
    counts[status === 200 ? 'accepted' : body.code] = (counts[status === 200 ? 'accepted' : body.code] ?? 0) + 1
  }
  return counts
}
const many = async <T>(work: (index: number) => Promise<T>): Promise<readonly T[]> =>
  await Promise.all(Array.from({ length: N }, async (_, index) => await work(index)))
const challengeOf = async (s: Service, who: WireBy): Promise<string> => (await s.open(who)).body.challenge.id

const oneByOne = async <T>(count: number, work: (index: number) => Promise<T>): Promise<readonly T[]> => {
  const all: T[] = []
  for (let index = 0; index < count; index++) all.push(await work(index))
  return all
}

/** Rounds of a race whose end is not known. */
const ROUNDS = 16

interface Round {
  readonly who: WireBy
  readonly key: string
  /** A challenge that the right code of the next step answers. */
  readonly id: string
  readonly epoch: number
}

/** Somebody with a TOTP key and an open challenge. */
async function openedBy (s: Service, who: WireBy): Promise<Round> {
  const { key } = await s.enrol(by(who.subject))
  const { epoch } = await s.app.records.subject(toBy(s.app.sealer, 't1', who), s.clock.now())
  return { who, key, epoch, id: await challengeOf(s, who) }
}

/**
 * Looks at all that an answer and a reset leave behind: a whole success that the reset then ended, or nothing of the
 * answer at all. Says whether the answer was accepted.
 */
async function wonWhole (t: Test, s: Service, { who, id, epoch }: Round, answered: Answer): Promise<boolean> {
  const accepted = answered.status === 200
  if (!accepted) t.equal(answered.body.code, 'challenge_gone', answered.text)
  const { records, pending } = s.app
  const asker = toBy(s.app.sealer, 't1', who)
  t.match((await s.question(who)).body, { status: 'enrolment_required', login: null, step_up: null }, 'nothing passes')
  const state = await records.subject(asker, s.clock.now())
  t.match(state, { authenticators: { length: 0 }, assurance: null, fenced: true })
  t.match(state, { lockedAt: null, inARow: 0, in30Days: 0 })
  t.ok(state.epoch > epoch)
  t.same(await records.sessions('t1', who.subject, s.clock.now()), [], 'no session is left')
  const verified = accepted ? [['verification', 'accepted', null]] : []
  t.same(
    (await records.events('t1', 0, 10_000, who.subject)).slice(1)
      .map(one => [one.kind, one.outcome, one.reason ?? null]),
    [...verified, ['reset', 'done', null]],
    'the log has what happened, in its order'
  )
  t.equal((await records.acceptedBefore('t1', id)) !== undefined, accepted, 'the challenge was used up, or was not')
  const left = (await pending.read(asker, id, { browserKnown: false, limits: defaultLimits }))?.slot.attemptsLeft
  t.ok(left === undefined || (!accepted && left === 5), `${left} attempts left`)
  // Five codes are looked at and no sixth: of what was booked for the answer nothing stayed.
  const options = { browserKnown: false, inARow: 0, limits: defaultLimits }
  const { slot, waitForMs } = await pending.open(asker, 'proof', { ...options, epoch: state.epoch, lifetimeMs: 60_000 })
  t.equal(waitForMs, 0)
  const taken = await oneByOne(5, async () => (await pending.takeAttempt(asker, slot.id, 'subject', options)).taken)
  t.same(taken, Array<string>(5).fill('taken'), 'the count begins at nothing')
  return accepted
}

for (const { name, start } of stores) {
  t.test(
    `${name}: of 200 submissions of one right code exactly one succeeds, and the losers lock nobody out`,
    async t => {
      const s = await start(t)
      const { key, backupCodes } = await s.enrol(by('alice'))
      s.nextStep()

      await t.test('a TOTP code, on one challenge', async t => {
        const id = await challengeOf(s, by('alice', 'one'))
        const code = s.code(key)
        const counts = tally(await many(async () => await s.answer(by('alice', 'one'), id, code)))
        t.equal(counts.accepted, 1, JSON.stringify(counts))
        t.equal(counts.code_rejected, undefined)
      })

      await t.test('a TOTP code, on 200 challenges', async t => {
        s.nextStep()
        const ids = await oneByOne(N, async index => await challengeOf(s, by('alice', `session ${index}`)))
        const code = s.code(key)
        const counts = tally(
          await many(async index => await s.answer(by('alice', `session ${index}`), ids[index] ?? '', code))
        )
        t.equal(counts.accepted, 1, JSON.stringify(counts))
        t.equal(counts.code_rejected, undefined)
        s.nextStep()
        t.equal(
          (await s.verify(by('alice', 'afterwards'), 'login', s.code(key))).status,
          200,
          'the subject is neither locked nor waiting'
        )
      })

      await t.test('a backup code', async t => {
        const ids = await oneByOne(N, async index => await challengeOf(s, by('alice', `backup ${index}`)))
        const counts = tally(
          await many(
            async index => await s.answer(by('alice', `backup ${index}`), ids[index] ?? '', backupCodes[0] ?? '')
          )
        )
        t.equal(counts.accepted, 1, JSON.stringify(counts))
        s.nextStep()
        t.equal((await s.verify(by('alice', 'after backup'), 'login', s.code(key))).status, 200)
      })

      await t.test('an e-mailed code', async t => {
        await s.enrolEmail(by('carol'), 'carol@example.org')
        s.advance(61_000)
        const id = await challengeOf(s, by('carol', 'one'))
        const code = s.mails.at(-1)?.values.code ?? ''
        const counts = tally(await many(async () => await s.answer(by('carol', 'one'), id, code)))
        t.equal(counts.accepted, 1, JSON.stringify(counts))
        t.equal(counts.code_rejected, undefined)
        s.advance(61_000)
        const next = await challengeOf(s, by('carol', 'two'))
        t.equal((await s.answer(by('carol', 'two'), next, s.mails.at(-1)?.values.code ?? '')).status, 200)
      })
    }
  )

  t.test(
    `${name}: 200 challenges of one subject with five wrong codes each, all at once: at most five are evaluated`,
    async t => {
      const s = await start(t)
      const { key } = await s.enrol(by('alice'))
      s.nextStep()
      const right = new Set([-2, -1, 0, 1, 2].map(off => s.code(key, off)))
      const wrong = Array.from({ length: 10 }, (_, digit) => String(digit).repeat(6))
        .filter(one => !right.has(one))
        .slice(0, 5)
      const ids = await oneByOne(N, async index => await challengeOf(s, by('alice', `thief ${index}`)))
      const answers = (
        await many(
          async index =>
            await Promise.all(
              wrong.map(async code => await s.answer(by('alice', `thief ${index}`), ids[index] ?? '', code))
            )
        )
      ).flat()
      const counts = tally(answers)
      const { code_rejected: rejected = 0, waiting = 0, unavailable = 0, ...others } = counts
      t.ok(rejected <= 5, JSON.stringify(counts))
      t.ok(rejected + unavailable > 0)
      t.same(others, {}, 'whoever is not looked at waits, or finds no connection in time')
      t.equal(rejected + waiting + unavailable, answers.length)
      if (name.startsWith('SQLite')) t.equal(unavailable, 0)
    }
  )

  t.test(`${name}: a reset that runs at the same time as a right answer: one of them wins whole`, async t => {
    const s = await start(t)
    const rounds = await oneByOne(ROUNDS, async round => await openedBy(s, by(`alice ${round}`, 'racing')))
    s.nextStep()
    const accepted = await Promise.all(rounds.map(async (round, index) => {
      const reset = async () => {
        // A little later each time, so that it meets the answer at another place.
        for (let hops = 0; hops < index; hops++) await new Promise(resolve => { setImmediate(resolve) })
        return await s.call('POST', `/v1/subjects/${s.encoded(round.who.subject)}/reset`, { actor: 'root' }, s.admin)
      }
      const [answered, done] = await Promise.all([s.answer(round.who, round.id, s.code(round.key)), reset()])
      t.equal(done.status, 200, done.text)
      return await wonWhole(t, s, round, answered)
    }))
    t.comment(`${name}: the answer won ${accepted.filter(one => one).length} of ${ROUNDS}`)
  })
}

t.test('a reset and a right answer in every order of their steps: the one that writes first wins whole', async t => {
  const s = await startService(t)
  const inOrder = stepByStep(s.app)
  const orders = ordersOf('answer', 4, 'reset', 3)
  t.equal(orders.length, 35)
  const rounds = await oneByOne(orders.length, async round => await openedBy(s, by(`alice ${round}`, 'racing')))
  s.nextStep()
  for (const [index, order] of orders.entries()) {
    const round = rounds[index]
    if (round === undefined) throw new Error('a round is missing')
    let answered: Answer | undefined
    await inOrder(order, {
      answer: async () => { answered = await s.answer(round.who, round.id, s.code(round.key)) },
      reset: async () => { await s.call('POST', `/v1/subjects/${s.encoded(round.who.subject)}/reset`, { actor: 'root' }, s.admin) }
    })
    if (answered === undefined) throw new Error('no answer')
    // Third in an answer comes `accept`, second in a reset `administer`.
    const answersFirst = placeOf(order, 'answer', 3) < placeOf(order, 'reset', 2)
    t.equal(await wonWhole(t, s, round, answered), answersFirst, order.join(' '))
  }
})

/** Calls of the two parts, one after another in each, in every order that there is. */
function ordersOf (one: string, ones: number, other: string, others: number): readonly (readonly string[])[] {
  if (ones === 0) return [Array<string>(others).fill(other)]
  if (others === 0) return [Array<string>(ones).fill(one)]
  return [
    ...ordersOf(one, ones - 1, other, others).map(rest => [one, ...rest]),
    ...ordersOf(one, ones, other, others - 1).map(rest => [other, ...rest])
  ]
}

function placeOf (order: readonly string[], part: string, nth: number): number {
  return order.map((one, place) => one === part ? place : -1).filter(place => place >= 0)[nth - 1] ?? -1
}

/** Runs parts so that each call of a port waits for its part's turn in the order; what is left over runs freely. */
function stepByStep (app: App) {
  const part = new AsyncLocalStorage<string>()
  const moves = new EventEmitter()
  let left: string[] = []
  const leave = (fits: (name: string, place: number) => boolean): void => {
    left = left.filter((name, place) => !fits(name, place))
    moves.emit('moved')
  }
  const running = new Set<Promise<unknown>>()
  const step = async <T>(work: () => Promise<T>): Promise<T> => {
    const name = part.getStore()
    if (name === undefined) return await work()
    while (![undefined, name].includes(left[0])) await once(moves, 'moved')
    try {
      return await work()
    } finally {
      if (left[0] === name) leave((_, place) => place === 0)
    }
  }
  for (const port of [app.records, app.pending]) {
    for (const [name, method] of Object.entries(port)) {
      if (typeof method !== 'function') continue
      Object.assign(port, {
        [name]: (...args: unknown[]) => {
          const stepped = step(async () => await (Reflect.apply(method, port, args) as Promise<unknown>))
          running.add(stepped)
          return stepped
        }
      })
    }
  }
  return async (order: readonly string[], parts: Readonly<Record<string, () => Promise<void>>>): Promise<void> => {
    left = [...order]
    await Promise.all(Object.entries(parts).map(async ([name, work]) => {
      await part.run(name, work)
      leave(one => one === name)
    }))
    await Promise.all(running)
    running.clear()
  }
}
