// The database as the service and its commands open it: the right one, with a schema that fits, under its keys.

import { sql } from 'kysely'
import type { Config } from '../config.ts'
import type { Sealer } from '../domain/ports.ts'
import type { Records } from '../domain/records.ts'
import { openDatabase, type Database } from './database.ts'
import { checkKeys, databaseId } from './key-ring.ts'
import { patient } from './patience.ts'
import { createRecords } from './sql.ts'

export interface OpenedRecords {
  readonly database: Database
  readonly records: Records
}

export async function openFrom (config: Pick<Config, 'database' | 'databaseCa' | 'databasePool'>): Promise<Database> {
  return await openDatabase(config.database, { ca: config.databaseCa, poolSize: config.databasePool })
}

/** Throws with a sentence for the operator where schema, keys or database are not the ones that belong together. */
export async function openRecords (config: Config, sealer: Sealer, now: number): Promise<OpenedRecords> {
  const database = await openFrom(config)
  try {
    if (database.dialect === 'postgres') {
      await patient(async () => await sql`select 1`.execute(database.db), error => !isStarting(error))
    }
    await checkIdentity(database, config.databaseId)
    if (config.migrateOnStart) await database.migrate()
    const waiting = await database.pending()
    if (waiting.length > 0) {
      throw new Error(
        `the database schema is not up to date (${waiting.join(', ')}): run "postern migrate", or set POSTERN_MIGRATE_ON_START=true`
      )
    }
    await checkKeys(database, config, sealer, now)
    const id = await databaseId(database, now)
    return { database, records: createRecords(database, id) }
  } catch (error) {
    await database.close()
    throw error
  }
}

/** Nobody listens there, nobody answers, or the server says itself that it is not ready yet (57P03). */
function isStarting (error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error ? String(error.code) : ''
  return ['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'EHOSTUNREACH', '57P03'].includes(code) ||
    /timeout exceeded when trying to connect|Connection terminated/.test(error.message)
}

/**
 * Throws where it is not the database with this id: an empty one in its place would answer "not enrolled" of everybody.
 */
export async function checkIdentity (database: Database, expected: string | undefined): Promise<void> {
  if (expected === undefined) return
  const fresh = (await database.pending()).includes('0002-numbers-and-marks')
  const row = fresh
    ? undefined
    : await database.db.selectFrom('identity').select('id').where('name', '=', 'database').executeTakeFirst()
  if (row?.id === expected) return
  throw new Error(
    row === undefined
      ? 'the database is empty, and POSTERN_DATABASE_ID names one that is not: restore it, or unset POSTERN_DATABASE_ID to begin anew'
      : 'the database is not the one that POSTERN_DATABASE_ID names'
  )
}
