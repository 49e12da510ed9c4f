// Records over SQL: the rooms of records/ put together, and database failures turned into one problem.

import { sql } from 'kysely'
import { Problem } from '../domain/problems.ts'
import type { Records } from '../domain/records.ts'
import type { Database } from './database.ts'
import { createAccepted } from './records/accepted.ts'
import { createAdministrations } from './records/administration.ts'
import { createFactorChanges } from './records/factor-changes.ts'
import { createLogs } from './records/logs.ts'
import { subjectTransactions } from './records/parts.ts'
import { createRejected } from './records/rejected.ts'
import { createSessions } from './records/sessions.ts'
import { createStates } from './records/states.ts'

/** A failure of the database says nothing about a subject: the caller hears `unavailable`, never SQL. */
async function guarded<T> (work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof Problem || error instanceof TypeError) throw error
    throw new Problem('unavailable', {}, { cause: error })
  }
}

function guard<T extends object> (part: T): T {
  const wrapped = Object.entries(part).map(([name, value]: [string, unknown]) => {
    if (typeof value === 'function') {
      return [name, async (...args: unknown[]) => await guarded(async () => await value(...args))]
    }
    return [name, typeof value === 'object' && value !== null ? guard(value) : value]
  })
  // The same names with the same signatures; only what they throw is different.
  return Object.fromEntries(wrapped) as T
}

const TABLES = [
  'subjects', 'authenticators', 'assurances', 'accepted', 'browsers', 'failures', 'events', 'changes', 'change_numbers', 'notices'
] as const

/** `id` names the database; reads refuse one that has become another. */
export function createRecords (database: Database, id: string): Records {
  const { db, dialect } = database
  const ofSubject = subjectTransactions(db, dialect)
  return guard({
    ...createStates(db, dialect, id),
    ...createAccepted(db, ofSubject),
    ...createRejected(ofSubject),
    ...createFactorChanges(ofSubject),
    ...createSessions(db, ofSubject),
    ...createAdministrations(dialect, ofSubject),
    ...createLogs(db, dialect),
    now: async () => {
      if (dialect === 'sqlite') return Date.now()
      const {
        rows: [row]
      } = await sql<{
        now: number
      }>`select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now`.execute(db)
      return row?.now ?? Date.now()
    },
    check: async () => {
      // Each table is named, so that one that is missing shows before somebody needs it.
      const there = sql.join(TABLES.map(table => sql`exists (select 1 from ${sql.table(table)} where 1 = 0)`), sql` or `)
      const { rows } = await sql<{ id: string }>`
        select id from identity where name = 'database' and not (${there})`.execute(db)
      if (rows[0]?.id !== id) throw new Error('the database is another than at start')
    },
    close: database.close
  })
}
