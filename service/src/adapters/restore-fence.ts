// After a restore, or a fail-over that lost commits: what was true before counts for nothing, since nobody knows which
// codes were used and which sessions ended in the time that is missing.

import { sql, type Transaction } from 'kysely'
import type { Database } from './database.ts'
import { writeChange, writeEvent } from './records/parts.ts'
import type { Schema } from './schema.ts'

const STEP_MS = 30_000
/** Widest window of any tenant, in steps. */
const WINDOW = 1
/** Further than any reader of changes or events can have been before the restore. */
const LEAP = 1_000_000

export interface Fenced {
  readonly subjects: number
  readonly sessions: number
  readonly backupCodes: number
}

/** All of it in one transaction: epochs, the floor of TOTP steps, assurances, enrolment codes, numbers. */
export async function fence (
  tx: Transaction<Schema>,
  now: number,
  kind: string,
  { backupCodes }: { readonly backupCodes: boolean }
): Promise<Fenced> {
  const { numUpdatedRows: subjects } = await tx
    .updateTable('subjects')
    .set({
      epoch: sql`case when epoch + 1 > ${sql.lit(now)} then epoch + 1 else ${sql.lit(now)} end`,
      enrolment_code_hash: null,
      enrolment_code_expires_at: null
    })
    .executeTakeFirst()
  // A code of now, or of a phone that is a step ahead, may have been accepted before: the next step begins anew.
  const floor = Math.floor(now / STEP_MS) + WINDOW
  await tx
    .updateTable('authenticators')
    .set({ counter: floor })
    .where('factor', '=', 'totp')
    .where('counter', '<', floor)
    .execute()
  const codes = backupCodes
    ? await tx
      .updateTable('authenticators')
      .set({ counter: 1 })
      .where('factor', '=', 'backup_code')
      .where('counter', '=', 0)
      .executeTakeFirst()
    : undefined
  const { numDeletedRows: sessions } = await tx.deleteFrom('assurances').executeTakeFirst()
  // Readers went on from numbers that this database may not have reached; whoever does is told to forget everything.
  await tx.updateTable('change_numbers').set(eb => ({ number: eb('number', '+', LEAP) })).execute()
  await tx.updateTable('event_numbers').set(eb => ({ number: eb('number', '+', LEAP) })).execute()
  const { rows } = await sql<{ tenant: string }>`
    select tenant from subjects union select tenant from change_numbers`.execute(tx)
  for (const { tenant } of rows) {
    await writeEvent(tx, tenant, now, { kind, subject: '', outcome: 'done', actor: 'host', requestId: 'cli' })
    await writeChange(tx, tenant, now, { kind: 'tenant' })
  }
  return { subjects: Number(subjects), sessions: Number(sessions), backupCodes: Number(codes?.numUpdatedRows ?? 0n) }
}

export async function restoreFence (
  database: Database,
  now: number,
  options: { readonly backupCodes: boolean }
): Promise<Fenced> {
  return await database.patiently(async db =>
    await db.transaction().execute(async tx => await fence(tx, now, 'restore_fence', options)))
}
