// Verify: a challenge is opened and answered with a right TOTP code, over the HTTP interface of the built service.

import { createHash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { createSealer } from '../service/src/adapters/crypto.ts'
import { SCRIPTS } from '../service/src/adapters/redis-scripts.ts'
import { openRecords } from '../service/src/adapters/open-records.ts'
import { readConfig } from '../service/src/config.ts'
import { startPostgres } from '../test/helpers/postgres.ts'
import { dataFolder, serve, settingsIn } from '../test/helpers/processes.ts'
import { startRedis } from '../test/helpers/redis.ts'
import type { Teardown } from '../test/helpers/service.ts'
import { connectTo, json, WrongAnswer, type Connection } from './connection.ts'
import { compare, type Plan, type Thing } from './harness.ts'
import { startPeers } from './peers.ts'
import { ratioOf, type Figure, type Part, type Table } from './report.ts'
import { startServer } from './servers.ts'
import { createWalk, fill, type Walk } from './subjects.ts'

export const SUBJECTS = 40_000
/** Enough for a quick look. */
const FEW = 10_000

interface Opened { readonly status: string, readonly challenge: { readonly id: string } }
/** Whose login it is, as a gate says it. */
interface Ask {
  readonly by: { readonly subject: string, readonly session: string, readonly browser?: string | undefined }
}
interface Verified { readonly assurance: { readonly purpose: string, readonly factor: string } }

export const name43 = (): string => randomBytes(32).toString('base64url')

/** The two calls of a login as a gate makes them: a session of its own, from a browser that the subject keeps. */
export function createCalls (key: string, { address }: { readonly address: boolean }) {
  const headers = `authorization: Bearer ${key}\r\n`
  const browsers = Array.from({ length: 1_000 }, name43)
  const askOf = (i: number) => ({
    by: { subject: `u${i}`, session: name43(), browser: browsers[i % browsers.length] },
    ...(address ? { about: { address: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, user_agent: 'bench' } } : {})
  })
  return {
    askOf,
    open: async (connection: Connection, ask: Ask): Promise<string> => {
      const body = JSON.stringify({ ...ask, purpose: 'login' })
      const opened = json<Opened>(await connection.ask('POST', '/v1/challenges', headers, body))
      if (opened.status !== 'open') throw new WrongAnswer(`a challenge of ${ask.by.subject}: ${opened.status}`)
      return opened.challenge.id
    },
    answer: async (connection: Connection, ask: Ask, id: string, code: string): Promise<void> => {
      const { assurance: { purpose, factor } } = json<Verified>(
        await connection.ask('POST', `/v1/challenges/${id}/verification`, headers, JSON.stringify({ ...ask, code })))
      if (purpose !== 'login' || factor !== 'totp') throw new WrongAnswer(`verified ${purpose} with ${factor}`)
    }
  }
}

/** Opens a challenge and answers it. */
export function verification (key: string, next: Walk, { address }: { readonly address: boolean }) {
  const { askOf, open, answer } = createCalls(key, { address })
  return async (connection: Connection): Promise<void> => {
    const { i, code } = next()
    const ask = askOf(i)
    await answer(connection, ask, await open(connection, ask), code)
  }
}

/** Settings of the built service on a new database with subjects, and its gate key. */
export async function prepare (
  t: Teardown,
  database: string,
  redis: string,
  { subjects = SUBJECTS, every = 1, more = {} }: {
    readonly subjects?: number
    /** Each so many-th subject has a key that can be opened. */
    readonly every?: number
    readonly more?: Readonly<Record<string, string>>
  } = {}
) {
  const { settings, gate } = settingsIn(dataFolder(t), {
    POSTERN_DATABASE: database,
    ...(redis === '' ? {} : { POSTERN_REDIS: redis }),
    // Where other things run beside it, a late event loop is not the load's.
    POSTERN_SHED_AFTER_MS: '10000',
    ...more
  }, { limits: { calls_per_minute: 100_000 } })
  const config = readConfig(settings)
  const sealer = createSealer(config)
  const opened = await openRecords(config, sealer, Date.now())
  await fill(opened.database, sealer, subjects, every)
  await opened.records.close()
  return { settings, key: gate }
}

/** The built service on a new database with subjects. */
export async function startFilled (...how: Parameters<typeof prepare>) {
  const { settings, key } = await prepare(...how)
  return { ...await serve(how[0], settings), key }
}

/** What does much is compiled late: a quarter more verifications a second after 10,000 of them than after 2,000. */
const warmed = (plan: Plan): Plan => ({ ...plan, warmMs: plan.warmMs * 2, warmOperations: 6_000 })

/** Commands that clients sent to Redis while `work` ran, by what they are for. What scripts call is no round trip. */
async function commandsOf (url: string, work: () => Promise<void>): Promise<Readonly<Record<string, number>>> {
  const redis = new Redis(url)
  const monitor = await redis.monitor()
  const giveBack = createHash('sha1').update(SCRIPTS.posternGiveBack.lua).digest('hex')
  const counts: Record<string, number> = { waited: 0, giveBack: 0, rateLimit: 0 }
  let over: () => void = () => {}
  const seen = new Promise<void>(resolve => { over = resolve })
  monitor.on('monitor', (_time: string, args: readonly string[], source: string) => {
    if (args[1] === 'the end') return over()
    // The service reads the time of Redis once a second, whatever is asked of it.
    if (source === 'lua' || args.includes('{postern}n')) return
    const kind = args.some(one => one.startsWith('postern:rate:')) ? 'rateLimit' : args[1] === giveBack ? 'giveBack' : 'waited'
    counts[kind] = (counts[kind] ?? 0) + 1
  })
  await work()
  await redis.echo('the end')
  await seen
  monitor.disconnect()
  redis.disconnect()
  return counts
}

/** What opening and answering cost in Redis, counted on the server. */
async function roundTrips (
  redis: string,
  service: { readonly url: string, readonly key: string },
  next: Walk
): Promise<readonly Figure[]> {
  const count = 100
  const connection = await connectTo(service.url)
  const calls = createCalls(service.key, { address: true })
  const opened: { readonly ask: Ask, readonly id: string, readonly code: string }[] = []
  const opens = await commandsOf(redis, async () => {
    for (let n = 0; n < count; n++) {
      const { i, code } = next()
      const ask = calls.askOf(i)
      opened.push({ ask, id: await calls.open(connection, ask), code })
    }
  })
  const answers = await commandsOf(redis, async () => {
    for (const { ask, id, code } of opened) await calls.answer(connection, ask, id, code)
  })
  connection.close()
  const each = (number = 0): string => (number / count).toFixed(2)
  const one = (name: string, number = 0): Figure => ({ name, value: each(number), must: '1', kept: number === count })
  return [
    one('Redis commands to open a challenge', opens.waited),
    one('Redis commands that an answer waits for', answers.waited),
    { name: 'give-backs after an answer', value: each(answers.giveBack) },
    { name: 'commands of `@fastify/rate-limit` a call that names the client\'s address', value: each(opens.rateLimit) }
  ]
}

/** Throughput of a thing of the table to that of another. */
function quotient (table: Table, name: string, other: Thing, least: number): readonly Figure[] {
  const times = ratioOf(table, name) / ratioOf(table, other.name)
  return [{ name: `${name} to ${other.name}`, value: `${times.toFixed(1)} x`, must: `≥ ${least} x`, kept: times >= least }]
}

async function measure (
  t: Teardown,
  plan: Plan,
  title: string,
  database: (name: string) => Promise<string>,
  subjects: number,
  peers: readonly Thing[]
) {
  const [own, bare] = await Promise.all([startRedis(t), startRedis(t)])
  const service = await startFilled(t, await database('postern'), own.url, { subjects })
  const baseline = await startServer(t, 'servers/bare.ts', {
    DATABASE: (await database('bare')).replace('sqlite:', ''), REDIS: bare.url, SUBJECTS: String(subjects)
  })
  const next = createWalk(subjects)
  const postern: Thing = { name: 'Postern', url: service.url, pids: [service.pid], operation: verification(service.key, next, { address: false }) }
  const table = await compare(title, {
    operation: 'a challenge opened and answered',
    plan: warmed(plan),
    baseline: { name: 'bare server', url: baseline.url, pids: [baseline.pid], operation: verification('', createWalk(subjects), { address: false }) },
    others: [postern, { ...postern, name: 'Postern, told the client\'s address', operation: verification(service.key, next, { address: true }) }, ...peers],
    targets: { Postern: 0.75 }
  })
  return { table, figures: await roundTrips(own.url, service, next) }
}

export async function verify (t: Teardown, plan: Plan, quick: boolean): Promise<Part> {
  const folder = dataFolder(t)
  const peers = quick ? [] : await startPeers(t, folder, SUBJECTS)
  const file = async (name: string): Promise<string> => `sqlite:${join(folder, `${name}.db`)}`
  const subjects = quick ? FEW : SUBJECTS
  const onSqlite = await measure(t, plan, 'Redis and SQLite', file, subjects, peers)
  const postgres = await startPostgres(t, { settings: ['fsync=on'] })
  const onPostgres = await measure(t, plan, 'Redis and PostgreSQL', async () => (await postgres.fresh()).url, subjects, [])
  return {
    tables: [onSqlite.table, onPostgres.table],
    figures: [
      ...peers.flatMap((peer, i) => quotient(onSqlite.table, 'Postern', peer, [25, 2][i] ?? 0)),
      ...onPostgres.figures
    ]
  }
}
