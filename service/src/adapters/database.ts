// SQLite or PostgreSQL behind one query builder, with one set of migrations.

import { Kysely, Migrator, PostgresDialect, type Dialect } from 'kysely'
import { migrations } from './migrations.ts'
import type { Schema } from './schema.ts'
import { sqliteDialect } from './sqlite.ts'

export interface Database {
  readonly db: Kysely<Schema>
  readonly dialect: 'sqlite' | 'postgres'
  /** Brings the schema up to date. Several may run it at once: on PostgreSQL an advisory lock lets one. */
  readonly migrate: () => Promise<void>
  /** Names of migrations that have not run. */
  readonly pending: () => Promise<readonly string[]>
  readonly close: () => Promise<void>
}

/** A command takes at most this long, a connection to be had as well. */
const COMMAND_MS = 2_000

export interface OpenOptions {
  readonly poolSize?: number
}

/** `sqlite:<file>`, `sqlite::memory:` or `postgres://…` (TLS by its `sslmode`). */
export async function openDatabase (url: string, { poolSize = 10 }: OpenOptions = {}): Promise<Database> {
  const dialect = url.startsWith('sqlite:') ? 'sqlite' : 'postgres'
  const db = new Kysely<Schema>({
    dialect: dialect === 'sqlite' ? sqliteDialect(url.slice('sqlite:'.length)) : await postgresDialect(url, poolSize)
  })
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations(dialect) } })
  return {
    db,
    dialect,
    migrate: async () => {
      const { error } = await migrator.migrateToLatest()
      if (error !== undefined) throw error
    },
    pending: async () =>
      (await migrator.getMigrations()).filter(one => one.executedAt === undefined).map(one => one.name),
    close: async () => {
      await db.destroy()
    }
  }
}

/** The driver is loaded only where it is used. */
async function postgresDialect (url: string, poolSize: number): Promise<Dialect> {
  const { default: pg } = await import('pg')
  // Per pool: a global parser would change other users of the driver.
  const toSafeInteger = (text: string): number => {
    const number = Number(text)
    if (!Number.isSafeInteger(number)) throw new RangeError('a stored number is beyond what can be held exactly')
    return number
  }
  const pool = new pg.Pool({
    connectionString: url,
    max: poolSize,
    connectionTimeoutMillis: COMMAND_MS,
    statement_timeout: COMMAND_MS,
    query_timeout: COMMAND_MS + 500,
    idle_in_transaction_session_timeout: 5_000,
    types: {
      getTypeParser: (oid: number, format?: 'text' | 'binary') =>
        oid === 20 ? toSafeInteger : pg.types.getTypeParser(oid, format ?? 'text')
    }
  })
  // A connection that breaks while idle is replaced; without a listener it would end the process.
  pool.on('error', () => {})
  return new PostgresDialect({ pool })
}
