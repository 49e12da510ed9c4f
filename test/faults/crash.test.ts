// A replica is killed at each step of a verification. Its relays hold back the answer that it waits for, so that it
// dies exactly there: nothing of the product knows of it.

import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { SCRIPTS } from '../../service/src/adapters/redis-scripts.ts'
import { printedTable, type Row } from '../helpers/fault-table.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/redis-shapes.ts'
import { startRelay } from '../helpers/relay.ts'
import { encoded, enrolled, startReplicas, STEP_MS, wrongCode } from '../helpers/replicas.ts'
import { by, totpCode, type WireBy } from '../helpers/service.ts'
import { handOver } from '../helpers/tables.ts'

const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
const { url } = await postgres.fresh()
const toRedis = await startRelay(t, redis.port)
const toPostgres = await startRelay(t, postgres.port)
const toService = await startRelay(t, 0)
const service = await startReplicas(t, {
  POSTERN_DATABASE: url.replace(`:${postgres.port}/`, `:${toPostgres.port}/`), POSTERN_REDIS: `redis://127.0.0.1:${toRedis.port}`
})
const rows: Row[] = []
t.teardown(() => { handOver('faults', rows, printedTable) })

const asksFor = (script: keyof typeof SCRIPTS) => {
  const { lua } = SCRIPTS[script]
  const sha = createHash('sha1').update(lua).digest('hex')
  // Whole where its connection had not sent it yet.
  return (text: string): boolean => text.includes(sha) || text.includes(lua)
}
const [takes, takesBackup] = [asksFor('posternTake'), asksFor('posternTakeBackup')]

const prepared = new WeakMap<Socket, Map<string, string>>()
/** What a message to PostgreSQL asks for. A statement comes with its text once a connection, and by its name then. */
const statements = (text: string, connection: Socket): string => {
  const known = prepared.get(connection) ?? new Map<string, string>()
  prepared.set(connection, known)
  for (const [, name = '', sql = ''] of text.matchAll(/(postern_\d+)\0([^\0]+)\0/g)) known.set(name, sql)
  return [text, ...[...known].filter(([name]) => text.includes(`${name}\0`)).map(([, sql]) => sql)].join('\n')
}
const passes = (text: string, connection: Socket): undefined => { statements(text, connection) }
toPostgres.hold = passes

/** The transaction of a right answer: the only one that ends on a connection where this was asked. */
const ACCEPTS = 'insert into "accepted"'
const accepts = (text: string, connection: Socket): boolean => statements(text, connection).includes(ACCEPTS)
const accepting = new WeakSet<Socket>()
const commits = (text: string, connection: Socket): boolean => {
  const asked = statements(text, connection)
  if (asked.includes(ACCEPTS)) accepting.add(connection)
  return accepting.has(connection) && /\bcommit\b/i.test(asked)
}

/** Where it dies: which relay holds the answer to what was asked for, and whether the code is consumed by then. */
const PLACES = [
  { name: 'the attempt was taken', relay: toRedis, asked: (text: string) => takes(text) || takesBackup(text), consumed: false },
  { name: 'the code matched', relay: toPostgres, asked: accepts, consumed: false },
  { name: 'the code was consumed', relay: toPostgres, asked: commits, consumed: true },
  { name: 'the answer was written', relay: toService, asked: (text: string) => text.includes('/verification'), consumed: true }
] as const

interface Sent {
  readonly who: WireBy
  readonly id: string
  readonly code: string
}

/** Sends a code to the first replica, which is killed at the place. */
async function dies (t: Test, { relay, asked }: typeof PLACES[number], { who, id, code }: Sent): Promise<void> {
  const first = service.replicas[0]
  if (first === undefined) throw new Error('no replica')
  toService.target = Number(new URL(first.url).port)
  service.replicas[0] = { ...first, url: `http://127.0.0.1:${toService.port}` }
  const there = new Promise<void>(resolve => {
    relay.hold = (text, connection) => {
      if (!asked(text, connection)) return undefined
      resolve()
      return new Promise(() => {})
    }
  })
  const sent = service.answer(who, id, code, 'the-same-key', 0)
  try {
    await Promise.race([there, sent.then(answer => { throw new Error(`it was answered: ${JSON.stringify(answer)}`) })])
  } finally {
    first.stop('SIGKILL')
    await first.ended
    relay.hold = relay === toPostgres ? passes : () => undefined
    await service.restart(0)
    service.died.splice(0)
  }
  t.equal((await sent).status, 0, 'nothing was answered')
}

const openedBy = async (who: WireBy): Promise<{ id: string, attempts_left: number }> => {
  const { status, body } = await service.open(who, 1)
  if (status !== 200 || body.status !== 'open') throw new Error(`open: ${status} ${JSON.stringify(body)}`)
  return body.challenge
}

/** How often a login of somebody was accepted, by the log. */
const acceptedOf = async (subject: string): Promise<number> => {
  const { body } = await service.asAdmin('GET', `/v1/events?limit=1000&subject=${encoded(subject)}`)
  return (body.events as { kind: string, purpose: string, outcome: string }[])
    .filter(({ kind, purpose, outcome }) => kind === 'verification' && purpose === 'login' && outcome === 'accepted').length
}

for (const [at, place] of PLACES.entries()) {
  for (const factor of ['totp', 'backup code'] as const) {
    await t.test(`C-13: killed when ${place.name}, with a ${factor}`, async t => {
      const person = await enrolled(service, `${factor} ${at}`)
      const who = by(person.name, 'owner', 'owner')
      const code = factor === 'totp' ? totpCode(person.key, (person.step + 1) * STEP_MS) : person.backupCodes[0] ?? ''
      const { id } = await openedBy(who)
      await dies(t, place, { who, id, code })
      const killed = performance.now()

      const seen = (await service.question(who, 1)).body.status
      t.equal(seen, place.consumed ? 'verified' : 'verification_required', 'in by what was written, and by nothing else')
      const answer = await until('an answer', async () => {
        const one = await service.answer(who, id, code, 'the-same-key', 1)
        return one.status !== 503 && one
      })
      const recovered = performance.now() - killed
      t.match(answer, { status: 200 }, 'the same request at another replica brings the answer')
      t.equal((await service.question(who, 2)).body.status, 'verified')

      const thief = by(person.name, 'thief', 'thief')
      const again = await service.answer(thief, (await openedBy(thief)).id, code)
      t.equal(again.status, 403, 'the code lets nobody else in')
      const stranger = (await service.question(thief)).body.status
      t.equal(stranger, 'verification_required')
      const accepted = await acceptedOf(person.name)
      t.equal(accepted, 1, 'and was accepted once')
      rows.push({
        fault: `C-13 service: killed when ${place.name}, ${factor}`,
        answers: 2,
        longestMs: Math.max(answer.ms, again.ms),
        acceptedTwice: accepted - 1,
        gatesOpened: stranger === 'verified' ? 1 : 0,
        recoveredMs: recovered
      })
    })
  }
}

t.test('C-13: a wrong code whose process dies before the answer is an attempt all the same, and the next right code is good', async t => {
  const person = await enrolled(service, 'guessed')
  const who = by(person.name, 'owner', 'owner')
  const before = await openedBy(who)
  await dies(t, PLACES[0], { who, id: before.id, code: wrongCode(person.key, 1) })
  const after = await openedBy(who)
  t.equal(after.id, before.id)
  t.equal(after.attempts_left, before.attempts_left - 1)
  t.equal((await service.answer(who, after.id, totpCode(person.key, (person.step + 1) * STEP_MS), 'another-key', 1)).status, 200)
})
