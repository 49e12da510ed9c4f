// What is written in order and read by others: events, changes, notices; and the lease of the embedded store.

import { sql, type RawBuilder } from 'kysely'
import type { Change, Event } from '../../domain/model.ts'
import type { PendingNotice, Records } from '../../domain/records.ts'
import { DAY_MS, REMEMBERED_MS, transaction, writeChange, writeEvent, type Db, type Dialect } from './parts.ts'

/** A worker that took a notice has this long to send it, before another may. */
const TAKEN_MS = 60_000
/** Longest a change is of use: a gate that was away longer drops its whole cache. */
const CHANGES_KEPT_MS = 2 * DAY_MS
/** Replicas that start with new rules within this time of the first may have answered by the old ones until now. */
const ROLL_OUT_MS = 3_600_000

interface NoticeRow {
  readonly id: string
  readonly tenant: string
  readonly subject: string
  readonly at: number
  readonly message: string
  readonly recipient: string | null
  readonly locale: string | null
  readonly details: string
}

const noticeOf = (row: NoticeRow): PendingNotice => ({
  id: row.id,
  tenant: row.tenant,
  subject: row.subject,
  at: row.at,
  message: row.message,
  to: row.recipient,
  locale: row.locale,
  values: JSON.parse(row.details)
})

const changeOf = (row: {
  readonly number: number
  readonly kind: string
  readonly session: string | null
  readonly subject: string | null
}): Change => ({
  number: row.number,
  kind: row.kind === 'session' || row.kind === 'subject' ? row.kind : 'tenant',
  session: row.session,
  subject: row.subject
})

export function createLogs (
  db: Db,
  dialect: Dialect
): Pick<Records, 'writeEvent' | 'events' | 'changes' | 'notices' | 'lease' | 'prune' | 'tenants'> {
  return {
    writeEvent: async (tenant, event, now) => {
      await writeEvent(db, tenant, now, event)
    },

    events: async (tenant, after, limit, subject) => {
      await numberEvents(db, dialect, tenant)
      let query = db
        .selectFrom('events')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('number', '>', after)
        .orderBy('number')
        .limit(limit)
      if (subject !== undefined) query = query.where('subject', '=', subject)
      return (await query.execute()).map(row => ({
        id: row.number ?? row.id,
        tenant: row.tenant,
        at: row.at,
        subject: row.subject,
        kind: row.kind,
        outcome: outcomeOf(row.outcome),
        actor: row.actor,
        purpose: row.purpose ?? undefined,
        factor: row.factor ?? undefined,
        reason: row.reason ?? undefined,
        requestId: row.request_id ?? undefined,
        addressPrefix: row.address_prefix ?? undefined
      }))
    },

    changes: {
      since: async (tenant, number, limit) =>
        (
          await db
            .selectFrom('changes')
            .select(['number', 'kind', 'session', 'subject'])
            .where('tenant', '=', tenant)
            .where('number', '>', number)
            .orderBy('number')
            .limit(limit)
            .execute()
        ).map(changeOf),
      newest: async tenant =>
        (await db.selectFrom('change_numbers').select('number').where('tenant', '=', tenant).executeTakeFirst())
          ?.number ?? 0,
      newestOf: async tenants =>
        new Map(
          (await db.selectFrom('change_numbers').selectAll().where('tenant', 'in', tenants).execute())
            .map(row => [row.tenant, row.number])
        ),
      tenantChanged: async (tenant, now) => {
        await transaction(db, async tx => {
          await writeChange(tx, tenant, now, { kind: 'tenant' })
        })
      },
      rules: async (tenant, digest, now) =>
        await transaction(db, async tx => {
          const rules = { digest, changed_at: now }
          const read = tx.selectFrom('rules').selectAll().where('tenant', '=', tenant)
          const before = await read.executeTakeFirst()
          if (before === undefined) {
            await tx
              .insertInto('rules')
              .values({ tenant, ...rules })
              .onConflict(conflict => conflict.column('tenant').doNothing())
              .execute()
            return false
          }
          if (before.digest !== digest) {
            await tx.updateTable('rules').set(rules).where('tenant', '=', tenant).execute()
            await writeEvent(tx, tenant, now, { kind: 'rules', subject: '', outcome: 'done', actor: 'configuration' })
          } else if (before.changed_at <= now - ROLL_OUT_MS) return false
          await writeChange(tx, tenant, now, { kind: 'tenant' })
          return true
        })
    },

    notices: {
      take: async (now, limit) =>
        await transaction(db, async tx => {
          const due = tx
            .selectFrom('notices')
            .selectAll()
            .where('next_at', '<=', now)
            .where('sent_at', 'is', null)
            .orderBy('next_at')
            .limit(limit)
          const rows = await (dialect === 'postgres' ? due.forUpdate().skipLocked() : due).execute()
          if (rows.length > 0) {
            await tx
              .updateTable('notices')
              .set({ next_at: now + TAKEN_MS })
              .where(
                'id',
                'in',
                rows.map(row => row.id)
              )
              .execute()
          }
          return rows.map(noticeOf)
        }),
      sent: async (id, now) => {
        await db.updateTable('notices').set({ sent_at: now, next_at: null }).where('id', '=', id).execute()
      },
      failed: async (id, retryAt) => {
        await db.updateTable('notices').set({ next_at: retryAt }).where('id', '=', id).execute()
      },
      shown: async (tenant, subject) =>
        (
          await db
            .selectFrom('notices')
            .selectAll()
            .where('tenant', '=', tenant)
            .where('subject', '=', subject)
            .where('next_at', 'is', null)
            .where('sent_at', 'is', null)
            .where('dismissed_at', 'is', null)
            .orderBy('at')
            .limit(20)
            .execute()
        ).map(noticeOf),
      dismiss: async (tenant, subject, id, now) => {
        await db
          .updateTable('notices')
          .set({ dismissed_at: now })
          .where('tenant', '=', tenant)
          .where('subject', '=', subject)
          .where('id', '=', id)
          .execute()
      }
    },

    lease: {
      take: async (holder, now, staleMs) => {
        const values = { holder: holder.id, host: holder.host, pid: holder.pid, renewed_at: now }
        // One statement, so that of two that start in the same moment one gets it.
        const taken = await db
          .insertInto('lease')
          .values({ name: 'serve', ...values })
          .onConflict(conflict => conflict.column('name').doUpdateSet(values).where(eb => eb.or([
            eb('lease.holder', '=', holder.id), eb('lease.renewed_at', '<=', now - staleMs)
          ])))
          .executeTakeFirst()
        if (taken.numInsertedOrUpdatedRows === 1n) return undefined
        const held = await db.selectFrom('lease').selectAll().where('name', '=', 'serve').executeTakeFirst()
        return { host: held?.host ?? '', pid: held?.pid ?? 0 }
      },
      release: async id => {
        await db.deleteFrom('lease').where('holder', '=', id).execute()
      }
    },

    // One look a tenant, however many subjects it has.
    tenants: async () => {
      const { rows } = await sql<{ tenant: string }>`
        with recursive each_tenant(tenant) as (
          select min(tenant) from subjects
          union all
          select (select min(s.tenant) from subjects s where s.tenant > each_tenant.tenant) from each_tenant
          where each_tenant.tenant is not null)
        select tenant from each_tenant where tenant is not null`.execute(db)
      return rows.map(row => row.tenant)
    },

    prune: async (now, eventRetentionMs) => {
      const month = now - REMEMBERED_MS
      await sweep(db, 'accepted', ['tenant', 'slot'], sql`at < ${now - DAY_MS}`)
      await sweep(db, 'assurances', ['tenant', 'session'], sql`expires_at < ${now}`)
      await sweep(db, 'failures', ['tenant', 'subject', 'at'], sql`at < ${month}`)
      await sweep(db, 'browsers', ['tenant', 'subject', 'browser'], sql`passed_at < ${month}`)
      await sweep(db, 'changes', ['tenant', 'number'], sql`at < ${now - CHANGES_KEPT_MS}`)
      await sweep(db, 'notices', ['id'], sql`at < ${month} and next_at is null`)
      await sweep(db, 'events', ['id'], sql`at < ${now - eventRetentionMs}`)
    }
  }
}

/** Rows deleted in one statement: few enough that neither a statement times out nor anybody waits for the lock. */
const SWEPT = 500

async function sweep (
  db: Db,
  table: 'accepted' | 'assurances' | 'failures' | 'browsers' | 'changes' | 'notices' | 'events',
  key: readonly string[],
  old: RawBuilder<unknown>
): Promise<void> {
  const columns = sql.join(key.map(name => sql.ref(name)))
  for (;;) {
    const { numAffectedRows = 0n } = await sql`
      delete from ${sql.table(table)} where (${columns}) in
        (select ${columns} from ${sql.table(table)} where ${old} limit ${SWEPT})`.execute(db)
    if (numAffectedRows < SWEPT) return
  }
}

/** Events numbered at a time. */
const NUMBERED = 1_000

/**
 * Numbers the events that were committed since somebody last read the log. A row's id is taken before its commit, so a
 * reader that went by ids would pass over one that commits late; numbers are given only to what is there to see.
 */
async function numberEvents (db: Db, dialect: Dialect, tenant: string): Promise<void> {
  const waiting = await db
    .selectFrom('events')
    .select('id')
    .where('tenant', '=', tenant)
    .where('number', 'is', null)
    .limit(1)
    .executeTakeFirst()
  if (waiting === undefined) return
  await transaction(db, async tx => {
    await tx
      .insertInto('event_numbers')
      .values({ tenant, number: 0 })
      .onConflict(conflict => conflict.column('tenant').doNothing())
      .execute()
    const counter = tx.selectFrom('event_numbers').select('number').where('tenant', '=', tenant)
    const { number } = await (dialect === 'postgres' ? counter.forUpdate() : counter).executeTakeFirstOrThrow()
    const { numAffectedRows = 0n } = await sql`
      update events set number = ${sql.lit(number)} + waiting.place
      from (select id, row_number() over (order by id) as place from events
        where tenant = ${tenant} and number is null order by id limit ${NUMBERED}) as waiting
      where events.id = waiting.id`.execute(tx)
    await tx
      .updateTable('event_numbers')
      .set({ number: number + Number(numAffectedRows) })
      .where('tenant', '=', tenant)
      .execute()
  })
}

function outcomeOf (text: string): Event['outcome'] {
  return text === 'accepted' || text === 'rejected' || text === 'refused' ? text : 'done'
}
