// Scale: what a million subjects, a hundred thousand live challenges and more processes cost, and what one
// verification takes from Redis and from the database.

import { randomInt } from 'node:crypto'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { sql } from 'kysely'
import { openDatabase, type Database } from '../service/src/adapters/database.ts'
import { databaseId } from '../service/src/adapters/key-ring.ts'
import { createRecords } from '../service/src/adapters/sql.ts'
import { startPostgres } from '../test/helpers/postgres.ts'
import { dataFolder, serve } from '../test/helpers/processes.ts'
import { startRedis } from '../test/helpers/redis.ts'
import { encoded } from '../test/helpers/replicas.ts'
import type { Teardown } from '../test/helpers/service.ts'
import { connectTo, json, WrongAnswer, type Connection } from './connection.ts'
import { compare, cpuOf, median, slice, type Plan, type Thing } from './harness.ts'
import type { Figure, Part } from './report.ts'
import { createWalk, filledBy, type Walk } from './subjects.ts'
import { createCalls, name43, prepare, verification } from './verify.ts'

const FEW = 1_000
const MANY = 1_000_000
/** As many of the million have keys that open; the others are rows between them. */
const EVERY = 50
const LIVE = 100_000

/** The gate's question and a verification, as SQL alone: microseconds, in turn over both databases. */
async function pointLookUps (
  few: Database,
  many: Database,
  subjects: number,
  rounds: number
): Promise<{ readonly question: readonly number[][], readonly verification: readonly number[][] }> {
  const now = Date.now()
  const question: number[][] = [[], []]
  const verification: number[][] = [[], []]
  const opened = [few, many].map(async database => createRecords(database, await databaseId(database, now)))
  const stores = await Promise.all(opened)
  let slot = now
  for (let round = 0; round < rounds; round++) {
    for (const [which, records] of stores.entries()) {
      const pick = () => filledBy(randomInt(which === 0 ? FEW : subjects))
      const timed = async (into: number[] | undefined, work: () => Promise<void>): Promise<void> => {
        const began = performance.now()
        await work()
        // The first rounds warm up caches and compilers.
        if (round >= rounds / 5) into?.push((performance.now() - began) * 1000)
      }
      for (let n = 0; n < 100; n++) {
        const by = pick()
        await timed(question[which], async () => {
          const { state } = await records.question(by, now)
          if (state.assurance === null) throw new Error(`${by.subject} is not verified`)
        })
      }
      for (let n = 0; n < 20; n++) {
        const by = pick()
        await timed(verification[which], async () => {
          const state = await records.subject(by, now)
          const totp = state.authenticators.find(own => own.factor === 'totp')
          if (totp === undefined) throw new Error(`${by.subject} has no key`)
          const { result } = await records.accept({
            by,
            bindTo: by.browser,
            slot: { id: `slot ${++slot}`, kind: 'login', epoch: state.epoch, returnPath: null },
            use: { use: 'advance', authenticator: totp.id, to: totp.counter + 1 },
            factor: 'totp',
            whileLocked: false,
            record: { purpose: 'login', expiresAt: now + 86_400_000, scope: 'any' },
            idempotencyKey: null,
            now,
            event: { kind: 'verification', subject: by.subject, outcome: 'accepted', actor: 'subject', factor: 'totp' },
            notices: []
          })
          if (result !== 'accepted') throw new Error(result)
        })
      }
    }
  }
  return { question, verification }
}

async function bytesOf (database: Database, url: string): Promise<number> {
  if (database.dialect === 'sqlite') {
    await sql`pragma wal_checkpoint(truncate)`.execute(database.db)
    return statSync(url.slice('sqlite:'.length)).size
  }
  const { rows: [row] } = await sql<{ size: number }>`
    select pg_database_size(current_database()) as size`.execute(database.db)
  return row?.size ?? 0
}

const micros = (value: number): string => `${Math.round(value)} µs`
const many = (value: number): string => value.toLocaleString('en')

/** Point look-ups in both; leaves the TOTP counters as they were filled. */
async function inSql (
  name: string,
  urls: readonly [string, string],
  subjects: number,
  rounds: number
): Promise<readonly Figure[]> {
  const [few, large] = [await openDatabase(urls[0]), await openDatabase(urls[1])]
  const bytes = await bytesOf(large, urls[1])
  const { question, verification } = await pointLookUps(few, large, subjects, rounds)
  for (const database of [few, large]) {
    await resetCodes(database)
    await database.close()
  }
  const flat = (what: string, [before = [], after = []]: readonly number[][]): Figure => {
    const times = median(after) / median(before)
    return {
      name: `${name}, SQL alone: ${what} with ${many(subjects)} subjects to that with ${many(FEW)}`,
      value: `${times.toFixed(2)} (${micros(median(after))} to ${micros(median(before))})`,
      must: '≤ 2',
      kept: times <= 2
    }
  }
  return [
    flat("the gate's question", question),
    flat('a verification', verification),
    { name: `${name}: bytes a subject, of ${many(subjects)}`, value: String(Math.round(bytes / subjects)) }
  ]
}

/** Every code may be used again. */
async function resetCodes (database: Database): Promise<void> {
  await database.patiently(async db => {
    await sql`update authenticators set counter = 0 where factor = 'totp' and counter > 0`.execute(db)
  })
}

interface Running { readonly url: string, readonly pid: number, readonly key: string }

function verifying (name: string, services: readonly Running[], next: Walk, before?: () => Promise<void>): Thing {
  return {
    name,
    url: services.map(one => one.url),
    pids: services.map(one => one.pid),
    operation: verification(services[0]?.key ?? '', next, { address: false }),
    ...(before === undefined ? {} : { before })
  }
}

/** The question of a gate about a session that did not pass yet, with names as a gate sends them. */
function questioning ({ url, pid, key }: Running, subjects: number): Thing {
  const operation = async (connection: Connection): Promise<void> => {
    const subject = `u${randomInt(subjects)}`
    const headers = `authorization: Bearer ${key}\r\npostern-subject: ${encoded(subject)}\r\npostern-browser: ${name43()}\r\n`
    const { status } = json<{ status: string }>(await connection.ask('GET', `/v1/assurances/${name43()}`, headers))
    if (status !== 'verification_required') throw new WrongAnswer(`${subject}: ${status}`)
  }
  return { name: 'questions', url, pids: [pid], operation }
}

/** A service with few subjects and one with many, both on this kind of database. */
async function bySubjects (t: Teardown, plan: Plan, name: string, subjects: number, fresh: () => Promise<string>) {
  const [redis, other] = [await startRedis(t), await startRedis(t)]
  const few = { url: await fresh(), redis: redis.url }
  const large = { url: await fresh(), redis: other.url }
  const [fewSettings, largeSettings] = [
    await prepare(t, few.url, few.redis, { subjects: FEW }),
    await prepare(t, large.url, large.redis, { subjects, every: EVERY })
  ]
  const figures = await inSql(name, [few.url, large.url], subjects, plan.rounds * 6)
  const start = async ({ settings, key }: typeof fewSettings): Promise<Running> =>
    ({ ...await serve(t, settings), key })
  const [small, big] = [await start(fewSettings), await start(largeSettings)]
  let walk = createWalk(FEW)
  const next = createWalk(subjects / EVERY, EVERY)
  const table = await compare(`${name}, ${many(subjects)} subjects`, {
    operation: 'a challenge opened and answered',
    // A thousand subjects have two thousand codes at a time.
    plan: { ...plan, sliceMs: Math.min(plan.sliceMs, 1_500), warmMs: Math.min(plan.warmMs, 1_500) },
    baseline: verifying(`${many(FEW)} subjects`, [small], () => walk(), async () => {
      const database = await openDatabase(few.url)
      await resetCodes(database)
      await database.close()
      walk = createWalk(FEW)
    }),
    others: [verifying(`${many(subjects)} subjects`, [big], next)],
    targets: { [`${many(subjects)} subjects`]: 0.5 }
  })
  return { table, figures, large: largeSettings, redis: other, running: big, next }
}

/** Challenges that nobody answers. */
async function openChallenges ({ url, key }: Running, count: number, subjects: number): Promise<void> {
  const calls = createCalls(key, { address: false })
  let left = count
  await Promise.all(Array.from({ length: 16 }, async () => {
    const line = await connectTo(url)
    while (left-- > 0) await calls.open(line, calls.askOf(left * EVERY % subjects))
    line.close()
  }))
}

/** What a verification takes from Redis and PostgreSQL, counted by them. */
async function costs (
  thing: Thing,
  asking: Thing,
  ms: number,
  redis: { readonly url: string, readonly pid: number },
  database: string
): Promise<readonly Figure[]> {
  const client = new Redis(redis.url)
  const opened = await openDatabase(database)
  const read = async () => {
    const info = await client.info()
    const of = (field: string): number => Number(new RegExp(`^${field}:(\\d+)`, 'm').exec(info)?.[1])
    const { rows: [wal] } = await sql<{ bytes: string }>`
      select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::text as bytes`.execute(opened.db)
    const { rows } = await sql<{ pid: number }>`select pid from pg_stat_activity`.execute(opened.db)
    return {
      commands: of('total_commands_processed'),
      bytes: of('total_net_input_bytes') + of('total_net_output_bytes'),
      wal: Number(wal?.bytes),
      redisCpu: cpuOf(redis.pid),
      cpu: rows.reduce((sum, { pid }) => sum + cpuOf(pid), 0)
    }
  }
  const before = await read()
  const { operations, cpuMicros } = await slice(thing, ms, 16)
  const after = await read()
  const question = await slice(asking, ms, 16)
  client.disconnect()
  await opened.close()
  const each = (field: keyof typeof before): string => ((after[field] - before[field]) / operations).toFixed(0)
  return [
    { name: 'CPU of the service a verification', value: micros(cpuMicros) },
    { name: 'CPU of Redis a verification', value: `${each('redisCpu')} µs` },
    { name: 'commands of Redis a verification, those within scripts among them', value: each('commands') },
    { name: 'bytes to and from Redis a verification', value: each('bytes') },
    { name: 'CPU of PostgreSQL a verification', value: `${each('cpu')} µs` },
    { name: 'write-ahead log of PostgreSQL a verification', value: `${each('wal')} bytes` },
    { name: "CPU of the service a gate's question", value: micros(question.cpuMicros) }
  ]
}

export async function scale (t: Teardown, whole: Plan, quick: boolean): Promise<Part> {
  // Most of its time is filling, and what it compares differs by little.
  const plan = { ...whole, rounds: Math.min(whole.rounds, 4), sliceMs: Math.min(whole.sliceMs, 1_000) }
  const subjects = quick ? 50_000 : MANY
  const folder = dataFolder(t)
  let files = 0
  const sqlite = await bySubjects(t, plan, 'SQLite', subjects, async () => `sqlite:${join(folder, `${++files}.db`)}`)
  if (quick) return { tables: [sqlite.table], figures: sqlite.figures }

  const server = await startPostgres(t, { settings: ['fsync=on', 'shared_buffers=512MB', 'max_wal_size=8GB'] })
  const postgres = await bySubjects(t, plan, 'PostgreSQL', subjects, async () => (await server.fresh()).url)
  const { running, next, large: { settings, key } } = postgres
  const replica = async (redis?: string): Promise<Running> =>
    ({ ...await serve(t, redis === undefined ? settings : { ...settings, POSTERN_REDIS: redis }), key })

  const crowded = await replica((await startRedis(t)).url)
  await openChallenges(crowded, LIVE, subjects)
  const live = await compare('PostgreSQL, live challenges', {
    operation: 'a challenge opened and answered',
    plan,
    baseline: verifying('none but those being answered', [running], next),
    others: [verifying(`${many(LIVE)} live challenges`, [crowded], next)]
  })

  const more = [running, await replica(), await replica(), await replica()]
  const processes = await compare('PostgreSQL, service processes on this machine', {
    operation: 'a challenge opened and answered',
    plan,
    baseline: verifying('one process', more.slice(0, 1), next),
    others: [verifying('two processes', more.slice(0, 2), next), verifying('four processes', more, next)]
  })
  return {
    tables: [sqlite.table, postgres.table, live, processes],
    figures: [
      ...sqlite.figures,
      ...postgres.figures,
      ...await costs(verifying('one', [running], next), questioning(running, subjects), 5_000, postgres.redis, settings['POSTERN_DATABASE'] ?? '')
    ]
  }
}
