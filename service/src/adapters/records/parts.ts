// What several transactions of the records share: the subject's row and lock, change rows, events, notices.

import { randomUUID } from 'node:crypto'
import type { Kysely, Transaction } from 'kysely'
import type { By, Event } from '../../domain/model.ts'
import type { Notice } from '../../domain/records.ts'
import type { Schema } from '../schema.ts'
import { shortcut, statement, write, type Part } from '../statements.ts'
import { createTurns } from '../turns.ts'

export type Tx = Transaction<Schema>
export type Db = Kysely<Schema>
export type Dialect = 'sqlite' | 'postgres'

export const DAY_MS = 86_400_000
/** A browser is known, and a failure remembered, for 30 days. */
export const REMEMBERED_MS = 30 * DAY_MS

/** Thrown inside a transaction to leave nothing behind; carries what the method answers. */
export class Undone<T> extends Error {
  readonly outcome: T

  constructor (outcome: T) {
    super('undone')
    this.outcome = outcome
  }
}

/** Runs a transaction; an `Undone` thrown in it is rolled back and its outcome returned. */
export async function transaction<T> (db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  try {
    return await db.transaction().execute(async tx => {
      await shortcut(tx)
      return await work(tx)
    })
  } catch (error) {
    if (error instanceof Undone) return error.outcome
    throw error
  }
}

export interface LockedSubject {
  readonly epoch: number
  readonly locked_at: number | null
  readonly failures_in_row: number
  readonly fenced: number
  readonly enrolment_code_hash: string | null
  readonly enrolment_code_expires_at: number | null
}

interface Named {
  readonly tenant: string
  readonly subject: string
}

const readSubject = (lock: boolean) =>
  statement((on, { tenant, subject }: Named) => {
    const query = on
      .selectFrom('subjects')
      .select(['epoch', 'locked_at', 'failures_in_row', 'fenced', 'enrolment_code_hash', 'enrolment_code_expires_at'])
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
    return lock ? query.forUpdate() : query
  })
// SQLite has one who writes at a time.
const READ_SUBJECT = { sqlite: readSubject(false), postgres: readSubject(true) } as const

/**
 * Makes the subject's row if there is none, and holds it until the transaction ends: what changes a subject comes one
 * after another.
 */
export async function lockSubject (tx: Tx, dialect: Dialect, tenant: string, subject: string): Promise<LockedSubject> {
  const read = async (): Promise<LockedSubject | undefined> =>
    (await READ_SUBJECT[dialect](tx, { tenant, subject })).rows[0]
  const found = await read()
  if (found !== undefined) return found
  await tx
    .insertInto('subjects')
    .values({ tenant, subject, epoch: 0, failures_in_row: 0, fenced: 0 })
    .onConflict(conflict => conflict.columns(['tenant', 'subject']).doNothing())
    .execute()
  const made = await read()
  if (made === undefined) throw new Error("the subject's row is gone")
  return made
}

/** Longest wait for the requests of the same subject that came before, in this process. */
const SUBJECT_TURN_MS = 1_500

/**
 * A transaction that holds the subject's row from its first statement on. `before` is tried in the same turn; where it
 * has an answer there is no transaction.
 */
export type SubjectTransaction = <T>(
  tenant: string,
  subject: string,
  work: (tx: Tx, subject: LockedSubject) => Promise<T>,
  before?: () => Promise<T | undefined>
) => Promise<T>

/**
 * Requests of one subject take turns before they take a connection: a flood at one subject, or a lock that somebody
 * left on its row, must not use up the connections that others need.
 */
export function subjectTransactions (db: Db, dialect: Dialect): SubjectTransaction {
  const turns = createTurns()
  return async (tenant, subject, work, before) => {
    const endTurn = await turns.take(JSON.stringify([tenant, subject]), SUBJECT_TURN_MS)
    try {
      return (
        (await before?.()) ??
        (await transaction(db, async tx => await work(tx, await lockSubject(tx, dialect, tenant, subject))))
      )
    } finally {
      endTurn()
    }
  }
}

/** A new epoch: compared for equality only, and never one that was before. */
export function nextEpoch (now: number, old: number): number {
  return Math.max(now, old + 1)
}

/**
 * Writes a change row. The tenant's number row is held until commit, so that numbers appear in the order of commits.
 */
export async function writeChange (
  tx: Tx,
  tenant: string,
  now: number,
  change:
    | { readonly kind: 'session'; readonly session: string }
    | { readonly kind: 'subject'; readonly subject: string }
    | { readonly kind: 'tenant' }
): Promise<void> {
  await tx
    .insertInto('change_numbers')
    .values({ tenant, number: 1 })
    .onConflict(conflict =>
      conflict.column('tenant').doUpdateSet(eb => ({ number: eb('change_numbers.number', '+', 1) }))
    )
    .execute()
  const { number } = await tx
    .selectFrom('change_numbers')
    .select('number')
    .where('tenant', '=', tenant)
    .executeTakeFirstOrThrow()
  await tx
    .insertInto('changes')
    .values({
      tenant,
      number,
      at: now,
      kind: change.kind,
      session: change.kind === 'session' ? change.session : null,
      subject: change.kind === 'subject' ? change.subject : null
    })
    .execute()
}

interface EventRow {
  readonly tenant: string
  readonly at: number
  readonly subject: string
  readonly kind: string
  readonly outcome: string
  readonly actor: string
  readonly purpose: string | null
  readonly factor: string | null
  readonly reason: string | null
  readonly request_id: string | null
  readonly address_prefix: string | null
}

const insertEvent = write((on, row: EventRow) => on.insertInto('events').values({
  tenant: row.tenant,
  at: row.at,
  subject: row.subject,
  kind: row.kind,
  outcome: row.outcome,
  actor: row.actor,
  purpose: row.purpose,
  factor: row.factor,
  reason: row.reason,
  request_id: row.request_id,
  address_prefix: row.address_prefix
}))

const eventRow = (tenant: string, now: number, event: Event): EventRow => ({
  tenant,
  at: now,
  subject: event.subject,
  kind: event.kind,
  outcome: event.outcome,
  actor: event.actor,
  purpose: event.purpose ?? null,
  factor: event.factor ?? null,
  reason: event.reason ?? null,
  request_id: event.requestId ?? null,
  address_prefix: event.addressPrefix ?? null
})

/** An event, to be written together with others. */
export const eventWrite = (tenant: string, now: number, event: Event): Part =>
  insertEvent.with(eventRow(tenant, now, event))

export async function writeEvent (on: Tx | Db, tenant: string, now: number, event: Event): Promise<void> {
  await insertEvent.run(on, eventRow(tenant, now, event))
}

/** Writes notices for the outbox; one without an address is shown on pages. */
export async function writeNotices (
  tx: Tx,
  tenant: string,
  subject: string,
  now: number,
  notices: readonly Notice[]
): Promise<void> {
  if (notices.length === 0) return
  await tx
    .insertInto('notices')
    .values(
      notices.map(notice => ({
        id: randomUUID(),
        tenant,
        subject,
        at: now,
        message: notice.message,
        recipient: notice.to,
        locale: notice.locale,
        details: JSON.stringify(notice.values),
        next_at: notice.to === null ? null : now,
        sent_at: null,
        dismissed_at: null
      }))
    )
    .execute()
}

export interface OwnBrowser {
  readonly tenant: string
  readonly subject: string
  readonly browser: string
}

const upsertBrowser = write(
  (on, { tenant, subject, browser, now }: OwnBrowser & { readonly now: number }) => on
    .insertInto('browsers')
    .values({ tenant, subject, browser, passed_at: now, failures_in_row: 0 })
    .onConflict(conflict =>
      conflict.columns(['tenant', 'subject', 'browser']).doUpdateSet({ passed_at: now, failures_in_row: 0 })
    )
)

/** Marks a browser as one that passed for this subject: nothing to write for one that is not known. */
export function browserWrites (
  { tenant, subject }: Pick<By, 'tenant' | 'subject'>,
  browser: string,
  now: number
): readonly Part[] {
  return browser === 'none' ? [] : [upsertBrowser.with({ tenant, subject, browser, now })]
}

/** Counts start anew: lock, failures in a row and in 30 days. */
export async function clearCounts (tx: Tx, tenant: string, subject: string): Promise<void> {
  await tx
    .updateTable('subjects')
    .set({ locked_at: null, failures_in_row: 0 })
    .where('tenant', '=', tenant)
    .where('subject', '=', subject)
    .execute()
  await tx
    .updateTable('browsers')
    .set({ failures_in_row: 0 })
    .where('tenant', '=', tenant)
    .where('subject', '=', subject)
    .execute()
  await tx.deleteFrom('failures').where('tenant', '=', tenant).where('subject', '=', subject).execute()
}
