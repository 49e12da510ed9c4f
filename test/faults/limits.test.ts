// Three served replicas, and somebody who is faster than any limit: many at once, callers who leave before the answer,
// a Redis that forgets after every few guesses.

import { connect } from 'node:net'
import t from 'tap'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import { admin, until } from '../helpers/redis-shapes.ts'
import { encoded, enrolled, startReplicas, STEP_MS, wrongCode, type Answered, type Person } from '../helpers/replicas.ts'
import { by, totpCode } from '../helpers/service.ts'

const postgres = await startPostgres(t)
const redis = await startRedis(t)
const service = await startReplicas(t, {
  POSTERN_DATABASE: (await postgres.fresh()).url,
  POSTERN_REDIS: redis.url,
  // What is asked here is who wins, not who is shed.
  POSTERN_DATABASE_POOL: '30',
  POSTERN_REDIS_TIMEOUT_MS: '2000'
})

/** How often each came: `accepted`, or the code of its problem. */
function tally (answers: readonly Answered[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { status, body } of answers) {
    const what = status === 200 ? 'accepted' : String(body.code)
    counts[what] = (counts[what] ?? 0) + 1
  }
  return counts
}

/** The code of the next step that was not used yet; it is good when it was enrolled a moment ago. */
const rightCode = ({ key, step }: Person): string => totpCode(key, (step + 1) * STEP_MS)

const challengeOf = async (subject: string, session: string): Promise<string> => {
  const { status, body } = await service.open(by(subject, session, session))
  if (status !== 200) throw new Error(`open: ${status} ${JSON.stringify(body)}`)
  return body.challenge.id
}

const rejectedOf = async (subject: string): Promise<number> => {
  const { body } = await service.asAdmin('GET', `/v1/events?limit=1000&subject=${encoded(subject)}`)
  return (body.events as { outcome: string }[]).filter(({ outcome }) => outcome === 'rejected').length
}

t.test('of 100 submissions of one code to three replicas at once one succeeds, on one challenge or on 100', async t => {
  for (const challenges of [1, 100]) {
    const person = await enrolled(service, `owner of ${challenges}`)
    const sessions = await Promise.all(Array.from({ length: challenges }, async (_, index) => {
      const session = `session ${index}`
      return { who: by(person.name, session, session), id: await challengeOf(person.name, session) }
    }))
    const code = rightCode(person)
    const answers = await Promise.all(Array.from({ length: 100 }, async (_, index) => {
      const { who, id } = sessions[index % challenges] as typeof sessions[number]
      return await service.answer(who, id, code)
    }))
    const { accepted, code_rejected: rejected, ...others } = tally(answers)
    t.equal(accepted, 1, JSON.stringify(others))
    t.equal(rejected, undefined, 'who lost the race is not taken for a guesser')
    const verified = await Promise.all(sessions.map(async ({ who }) => (await service.question(who)).body.status))
    t.equal(verified.filter(one => one === 'verified').length, 1)
  }
})

t.test('of 200 challenges with five wrong codes each, all at once on three replicas, at most five codes are looked at', async t => {
  const victim = await enrolled(service, 'victim')
  const ids = await Promise.all(Array.from({ length: 200 }, async (_, index) => await challengeOf(victim.name, `thief ${index}`)))
  const storm = async (): Promise<Record<string, number>> =>
    tally(await Promise.all(ids.flatMap((id, index) => Array.from({ length: 5 }, async (_, guess) => {
      const session = `thief ${index}`
      return await service.answer(by(victim.name, session, session), id, wrongCode(victim.key, index * 5 + guess))
    }))))
  let looked = 0
  // A machine that is late sheds them all, which shows nothing: the five are five of all storms together.
  for (let round = 0; round < 5 && looked === 0; round++) {
    const { code_rejected: rejected = 0, waiting = 0, unavailable = 0, ...others } = await storm()
    looked += rejected
    t.same(others, {})
    t.equal(rejected + waiting + unavailable, 1000)
  }
  t.ok(looked > 0 && looked <= 5, `${looked} were looked at`)
  t.ok(await rejectedOf(victim.name) <= 5, 'and no more are in the log')
})

t.test('C-14: a guess whose caller leaves before the answer counts like any other', async t => {
  const victim = await enrolled(service, 'left alone')
  const [port, key] = [Number(new URL(service.replicas[0]?.url ?? '').port), service.gate]
  for (let index = 0; index < 30; index++) {
    const session = `leaver ${index}`
    const who = by(victim.name, session, session)
    const { body } = await service.open(who)
    const text = JSON.stringify({ by: who, code: wrongCode(victim.key, index) })
    await new Promise<void>(resolve => {
      const socket = connect(port, '127.0.0.1', () => {
        // Gone with a reset, as soon as the bytes are on their way.
        socket.write([
          `POST /v1/challenges/${body.challenge.id}/verification HTTP/1.1`, 'Host: x', `Authorization: Bearer ${key}`,
          'Content-Type: application/json', `Content-Length: ${text.length}`, '', text
        ].join('\r\n'), () => { socket.resetAndDestroy() })
      })
      socket.on('error', () => {}).on('close', () => { resolve() })
    })
    // Up to the fifth: what nobody waited for was looked at, and booked.
    if (index < 5) await until(`guess ${index + 1} to be booked`, async () => await rejectedOf(victim.name) === index + 1)
  }
  t.equal(await rejectedOf(victim.name), 5, 'of thirty five were looked at')
  const who = by(victim.name, 'owner', 'owner')
  const { body } = await service.open(who)
  t.match((await service.answer(who, body.challenge.id, rightCode(victim))).body, { code: 'waiting' }, 'and the next one waits')
})

t.test('C-05: Redis is emptied after every four wrong codes, 120 times: locked at 100, and a right code at 101 is refused', async t => {
  const victim = await enrolled(service, 'flushed')
  const server = admin(t, redis.port)
  let looked = 0
  let lockedAt = 0
  for (let round = 0; round < 120; round++) {
    const session = `guesser ${round}`
    const who = by(victim.name, session, session)
    const id = await challengeOf(victim.name, session)
    for (let guess = 0; guess < 4; guess++) {
      const { body } = await service.answer(who, id, wrongCode(victim.key, round * 4 + guess))
      if (body.code === 'code_rejected' || (body.code === 'locked' && lockedAt === 0)) looked += 1
      if (body.code === 'locked' && lockedAt === 0) lockedAt = looked
    }
    await server.flushall()
  }
  t.equal(lockedAt, 100)
  t.equal(looked, 100, 'no guess is looked at after that')
  t.equal(await rejectedOf(victim.name), 100)
  const who = by(victim.name, 'owner', 'owner')
  const { body } = await service.open(who)
  t.equal(body.challenge.locked, true)
  // Of the step that is now: it was never sent.
  t.match((await service.answer(who, body.challenge.id, totpCode(victim.key, Date.now()))).body, { code: 'locked' })
  t.match((await service.question(who)).body, { status: 'verification_required' })
})
