// Records on each store that they run on: an SQLite file and a real PostgreSQL. Each is used through two openings at
// once, as two replicas do (PostgreSQL) or a command beside the service (SQLite).

import { join } from 'node:path'
import { sql } from 'kysely'
import type { Test } from 'tap'
import { openDatabase, type Database } from '../../service/src/adapters/database.ts'
import { databaseId } from '../../service/src/adapters/key-ring.ts'
import { createRecords } from '../../service/src/adapters/sql.ts'
import type { Authenticator, By, Event } from '../../service/src/domain/model.ts'
import { defaultLimits } from '../../service/src/domain/policy.ts'
import type { AcceptRequest, FactorChange, Notice, Records } from '../../service/src/domain/records.ts'
import type { Postgres } from './postgres.ts'
import { dataFolder } from './processes.ts'
import type { Teardown } from './service.ts'

export const NOW = Date.UTC(2026, 0, 1)
export const MINUTE = 60_000
export const DAY = 24 * 60 * MINUTE
export const MONTH = 30 * DAY
/** How many try the same thing at once. */
export const MANY = 16
export const TABLES = [
  'subjects', 'authenticators', 'assurances', 'accepted', 'browsers', 'failures', 'events', 'event_numbers', 'changes',
  'change_numbers', 'notices', 'rules', 'lease', 'identity'
] as const
type Table = (typeof TABLES)[number]
type Rows = Readonly<Record<string, readonly Record<string, unknown>[]>>

/** Methods of the port that were called, by name. */
export const called = new Set<string>()
function noted<T extends object> (part: T, prefix = ''): T {
  return new Proxy(part, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name)
      if (typeof value === 'object' && value !== null) return noted(value, `${String(name)}.`)
      called.add(prefix + String(name))
      return value
    }
  })
}
/** Names of the methods of a port, with those of its parts. */
export const methodsOf = (part: object, prefix = ''): readonly string[] =>
  Object.entries(part).flatMap(([name, value]: [string, object]) =>
    typeof value === 'function' ? [prefix + name] : methodsOf(value, `${name}.`))

/** One opening of a store. */
export async function openRecords (t: Teardown, url: string) {
  const database = await openDatabase(url)
  t.teardown(async () => { await database.close() })
  await database.migrate()
  return { database, records: noted(createRecords(database, await databaseId(database, NOW))) }
}

async function rowsOf (db: Database['db'], tables: readonly Table[] = TABLES): Promise<Rows> {
  const all: Record<string, Record<string, unknown>[]> = {}
  for (const table of tables) {
    const { rows } = await sql<Record<string, unknown>>`select * from ${sql.table(table)}`.execute(db)
    all[table] = rows.sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)
  }
  return all
}

export const who = (subject = 'alice', session = 's1', browser = 'b1', tenant = 't1'): By => ({ tenant, subject, session, browser })
export const event = (subject: string, more: Partial<Event> = {}): Event =>
  ({ kind: 'verification', subject, outcome: 'done', actor: 'subject', ...more })
export const notice = (more: Partial<Notice> = {}): Notice =>
  ({ message: 'locked', to: 'sealed address', locale: 'en', values: { left: '2' }, ...more })
export const own = (by: By, factor: string, place = ''): Authenticator =>
  ({ id: `${by.tenant} ${by.subject} ${factor}${place}`, factor, secret: `secret of ${by.subject}`, counter: 0, confirmedAt: NOW })

let slots = 0
export const accepting = (by: By, epoch: number, { slot, ...more }: Partial<Omit<AcceptRequest, 'slot'>> & { slot?: Partial<AcceptRequest['slot']> } = {}): AcceptRequest => ({
  by,
  bindTo: by.browser,
  slot: { id: `slot ${++slots}`, kind: 'login', epoch, returnPath: null, ...slot },
  use: { use: 'challenge' },
  factor: 'totp',
  whileLocked: false,
  record: { purpose: 'login', expiresAt: NOW + DAY, scope: 'any' },
  idempotencyKey: null,
  now: NOW,
  event: event(by.subject, { outcome: 'accepted' }),
  notices: [],
  ...more
})
export const changing = (by: By, epoch: number, more: Partial<FactorChange> = {}): FactorChange => ({
  by,
  now: NOW,
  epoch,
  allowedBy: { by: 'first', enrolmentCodeHash: null },
  remove: [],
  add: [],
  record: null,
  unlock: false,
  slot: null,
  event: event(by.subject, { kind: 'enrolment', factor: 'totp' }),
  notices: [],
  ...more
})
export const rejecting = (by: By, more: Partial<Parameters<Records['reject']>[1]> = {}): Parameters<Records['reject']> => [by, {
  now: NOW, browserKnown: false, limits: defaultLimits, event: event(by.subject, { outcome: 'rejected' }), lockNotices: [notice()], ...more
}]
export const administered = (subject: string, more: { now?: number, notices?: readonly Notice[] } = {}) =>
  ({ now: NOW, event: event(subject, { kind: 'administered', actor: 'host' }), notices: [], ...more })
export const count = <T extends object>(all: readonly T[], key: keyof T, value: unknown): number =>
  all.filter(one => one[key] === value).length

/** Each right answer comes with its subject as it was read before it, as the domain's do. */
const reading = (records: Records): Records => new Proxy(records, {
  get: (target, name) => name !== 'accept'
    ? Reflect.get(target, name) as unknown
    : async (request: AcceptRequest) =>
      await records.accept({ ...request, seen: request.seen ?? await records.subject(request.by, request.now) })
})

/** A store of its own, opened twice, and what a suite does with it. */
export async function startRecords (t: Teardown, url: string, seen = false) {
  const { database, ...opened } = await openRecords(t, url)
  const { db } = database
  const given = (records: Records): Records => seen ? reading(records) : records
  const records = given(opened.records)
  const replica = given((await openRecords(t, url)).records)
  const epochOf = async (by: By): Promise<number> => (await records.subject(by, NOW)).epoch
  return {
    db,
    url,
    records,
    replica,
    epochOf,
    rows: async (tables?: readonly Table[]) => await rowsOf(db, tables),
    /** A subject with a TOTP key and two backup codes; answers its epoch. */
    enrol: async (by: By, more: Partial<FactorChange> = {}): Promise<number> => {
      const add = [own(by, 'totp'), own(by, 'backup_code', ' 1'), own(by, 'backup_code', ' 2')]
      const changed = await records.changeFactors(changing(by, await epochOf(by), { add, ...more }))
      if (changed.result !== 'changed') throw new Error(changed.result)
      return changed.epoch
    },
    /** The same step many times at once, by turns through both openings. */
    atOnce: async <T>(work: (records: Records, index: number) => Promise<T>): Promise<readonly T[]> =>
      await Promise.all(Array.from({ length: MANY }, async (_, index) =>
        await work(index % 2 === 0 ? records : replica, index))),
    /** What the work answers; the whole database must be as it was. */
    untouched: async <T>(t: Test, words: string, work: () => Promise<T>): Promise<T> => {
      const before = await rowsOf(db)
      const answer = await work()
      t.same(await rowsOf(db), before, `${words}: nothing is left behind`)
      return answer
    }
  }
}

type Store = readonly [name: string, addressOf: (t: Teardown, server: Postgres) => Promise<string>, seen: boolean]
const STORES: readonly (readonly [string, Store[1]])[] = [
  ['SQLite', async t => `sqlite:${join(dataFolder(t), 'postern.db')}`],
  ['PostgreSQL', async (_, server) => (await server.fresh()).url]
]
/** Each once with what the caller read before an answer, and once without. */
export const recordStores: readonly Store[] = STORES.flatMap(([name, addressOf]): readonly Store[] =>
  [[name, addressOf, false], [`${name}, subject read before`, addressOf, true]])
