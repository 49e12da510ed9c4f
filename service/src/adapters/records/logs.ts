// What is written in order and read by others: events, changes, notices; and the lease of the embedded store.

import type { Change, Event } from '../../domain/model.ts'
import type { PendingNotice, Records } from '../../domain/ports.ts'
import { DAY_MS, REMEMBERED_MS, transaction, writeChange, writeEvent, type Db, type Dialect } from './parts.ts'

/** A worker that took a notice has this long to send it, before another may. */
const TAKEN_MS = 60_000
/** Longest a change is of use: a gate that was away longer drops its whole cache. */
const CHANGES_KEPT_MS = 2 * DAY_MS

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
      let query = db
        .selectFrom('events')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('id', '>', after)
        .orderBy('id')
        .limit(limit)
      if (subject !== undefined) query = query.where('subject', '=', subject)
      return (await query.execute()).map(row => ({
        id: row.id,
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
      tenantChanged: async (tenant, now) => {
        await transaction(db, async tx => {
          await writeChange(tx, tenant, now, { kind: 'tenant' })
        })
      }
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
      dismiss: async (tenant, subject, id) => {
        await db
          .updateTable('notices')
          .set({ dismissed_at: Date.now() })
          .where('tenant', '=', tenant)
          .where('subject', '=', subject)
          .where('id', '=', id)
          .execute()
      }
    },

    lease: {
      take: async (holder, now, staleMs) =>
        await transaction(db, async tx => {
          const held = await tx.selectFrom('lease').selectAll().where('name', '=', 'serve').executeTakeFirst()
          if (held !== undefined && held.holder !== holder.id && held.renewed_at > now - staleMs) {
            return { host: held.host, pid: held.pid }
          }
          const values = { holder: holder.id, host: holder.host, pid: holder.pid, renewed_at: now }
          await tx
            .insertInto('lease')
            .values({ name: 'serve', ...values })
            .onConflict(conflict => conflict.column('name').doUpdateSet(values))
            .execute()
          return undefined
        }),
      release: async id => {
        await db.deleteFrom('lease').where('holder', '=', id).execute()
      }
    },

    tenants: async () =>
      (await db.selectFrom('subjects').select('tenant').distinct().execute()).map(row => row.tenant),

    prune: async (now, eventRetentionMs) => {
      await db
        .deleteFrom('accepted')
        .where('at', '<', now - DAY_MS)
        .execute()
      await db.deleteFrom('assurances').where('expires_at', '<', now).execute()
      await db
        .deleteFrom('failures')
        .where('at', '<', now - REMEMBERED_MS)
        .execute()
      await db
        .deleteFrom('browsers')
        .where('passed_at', '<', now - REMEMBERED_MS)
        .execute()
      await db
        .deleteFrom('changes')
        .where('at', '<', now - CHANGES_KEPT_MS)
        .execute()
      await db
        .deleteFrom('notices')
        .where('at', '<', now - REMEMBERED_MS)
        .where('next_at', 'is', null)
        .execute()
      await db
        .deleteFrom('events')
        .where('at', '<', now - eventRetentionMs)
        .execute()
    }
  }
}

function outcomeOf (text: string): Event['outcome'] {
  return text === 'accepted' || text === 'rejected' || text === 'refused' ? text : 'done'
}
