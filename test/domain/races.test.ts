// Threat: many requests at once. Each test counts what was accepted and what was evaluated, on the in-process store
// and on Redis.

import { Redis } from 'ioredis'
import t from 'tap'
import { createRandomness, createSealer } from '../../service/src/adapters/crypto.ts'
import { createRedisPending } from '../../service/src/adapters/redis.ts'
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

const stores: readonly {
  readonly name: string
  readonly start: (t: Teardown, options?: StartOptions) => Promise<Service>
}[] = [
  { name: 'in-process', start: startService },
  {
    name: 'Redis',
    start: async (t, options = {}) => {
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
  }
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
        const ids = await many(async index => await challengeOf(s, by('alice', `session ${index}`)))
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
        const ids = await many(async index => await challengeOf(s, by('alice', `backup ${index}`)))
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
      const ids = await many(async index => await challengeOf(s, by('alice', `thief ${index}`)))
      const answers = (
        await many(
          async index =>
            await Promise.all(
              wrong.map(async code => await s.answer(by('alice', `thief ${index}`), ids[index] ?? '', code))
            )
        )
      ).flat()
      const counts = tally(answers)
      t.ok((counts.code_rejected ?? 0) <= 5 && (counts.code_rejected ?? 0) > 0, JSON.stringify(counts))
      t.equal(counts.accepted, undefined)
      t.equal(counts.waiting, answers.length - (counts.code_rejected ?? 0))
    }
  )

  t.test(`${name}: a reset that runs at the same time as a right answer: one of them wins whole`, async t => {
    const s = await start(t)
    for (let round = 0; round < 10; round++) {
      const subject = `alice ${round}`
      const { key } = await s.enrol(by(subject))
      s.nextStep()
      const who = by(subject, 'racing')
      const id = await challengeOf(s, who)
      const code = s.code(key)
      const [answered] = await Promise.all([
        s.answer(who, id, code),
        s.call('POST', `/v1/subjects/${s.encoded(subject)}/reset`, { actor: 'root' }, s.admin)
      ])
      t.ok(
        answered.status === 200 ||
          ['challenge_gone', 'enrolment_required', 'code_malformed', 'code_rejected'].includes(answered.body.code),
        answered.text
      )
      t.match(
        (await s.question(who)).body,
        { status: 'enrolment_required' },
        'whoever won, nothing passes after a reset'
      )
    }
  })
}
