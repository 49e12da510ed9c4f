// SQLite or PostgreSQL behind one query builder, with one set of migrations.

import { Kysely, Migrator, sql, type Migration } from 'kysely'
import { migrations } from './migrations.ts'
import { postgresDialect } from './postgres.ts'
import type { Schema } from './schema.ts'
import { sqliteDialect } from './sqlite.ts'

export interface Database {
  readonly db: Kysely<Schema>
  readonly dialect: 'sqlite' | 'postgres'
  /**
   * Brings the schema up to date, all of it or nothing. Several may run it at once: an advisory lock (SQLite: the
   * write lock) lets one. Throws NewerSchema.
   */
  readonly migrate: () => Promise<void>
  /** Names of migrations that have not run. Throws NewerSchema. */
  readonly pending: () => Promise<readonly string[]>
  /** Work over whole tables, on a connection whose statements take the time they take. */
  readonly patiently: <T>(work: (db: Kysely<Schema>) => Promise<T>) => Promise<T>
  readonly close: () => Promise<void>
}

export interface OpenOptions {
  readonly poolSize?: number
  readonly ca?: string | undefined
  /** Tests stand in for a version that knows more or fewer steps. */
  readonly steps?: (dialect: 'sqlite' | 'postgres') => Record<string, Migration>
}

/** The schema has steps that this program does not know: what it reads and writes may mean something else by now. */
export class NewerSchema extends Error {
  constructor (steps: readonly string[]) {
    super(
      `the database has a newer schema than this version of Postern knows (${steps.join(', ')}): run the version that made it, or restore a backup from before`
    )
    this.name = 'NewerSchema'
  }
}

/** `sqlite:<file>`, `sqlite::memory:` or `postgres://…` (TLS by its `sslmode`). */
export async function openDatabase (
  url: string,
  { poolSize = 10, ca, steps = migrations }: OpenOptions = {}
): Promise<Database> {
  const dialect = url.startsWith('sqlite:') ? 'sqlite' : 'postgres'
  const db = new Kysely<Schema>({
    dialect: dialect === 'sqlite' ? sqliteDialect(url.slice('sqlite:'.length)) : await postgresDialect(url, { poolSize, ca })
  })
  const patiently: Database['patiently'] = async work => {
    if (dialect === 'sqlite') {
      // What whole tables would be undone with is not for memory.
      await sql`pragma temp_store = file`.execute(db)
      try {
        return await work(db)
      } finally {
        await sql`pragma temp_store = memory`.execute(db)
      }
    }
    const patient = new Kysely<Schema>({ dialect: await postgresDialect(url, { poolSize: 1, ca, patient: true }) })
    try {
      return await work(patient)
    } finally {
      await patient.destroy()
    }
  }
  const known = steps(dialect)
  const migratorOf = (of: Kysely<Schema>) => new Migrator({ db: of, provider: { getMigrations: async () => known } })
  const pending = async (of: Kysely<Schema>): Promise<readonly string[]> => {
    const found = await migratorOf(of).getMigrations()
    if (found.some(one => one.executedAt !== undefined)) {
      const { rows } = await sql<{ name: string }>`select name from kysely_migration order by name`.execute(of)
      const newer = rows.map(row => row.name).filter(name => !Object.hasOwn(known, name))
      if (newer.length > 0) throw new NewerSchema(newer)
    }
    return found.filter(one => one.executedAt === undefined).map(one => one.name)
  }
  return {
    db,
    dialect,
    patiently,
    migrate: async () => {
      await patiently(async patient => {
        if ((await pending(patient)).length === 0) return
        const { error } = await migratorOf(patient).migrateToLatest()
        if (error !== undefined) throw error
      })
    },
    pending: async () => await pending(db),
    close: async () => {
      await db.destroy()
    }
  }
}
