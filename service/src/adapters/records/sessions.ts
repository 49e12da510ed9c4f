// How records of sessions move and end, and what the console said of a subject.

import type { Records } from '../../domain/records.ts'
import {
  nextEpoch,
  transaction,
  writeChange,
  writeEvent,
  writeNotices,
  type Db,
  type SubjectTransaction
} from './parts.ts'

export function createSessions (
  db: Db,
  ofSubject: SubjectTransaction
): Pick<Records, 'remember' | 'move' | 'endSession' | 'raiseEpoch'> {
  return {
    remember: async (tenant, subject, { contact, locale, notices, now }) => {
      await ofSubject(tenant, subject, async tx => {
        const said = { ...(contact === undefined ? {} : { contact }), ...(locale === undefined ? {} : { locale }) }
        if (Object.keys(said).length > 0) {
          await tx
            .updateTable('subjects')
            .set(said)
            .where('tenant', '=', tenant)
            .where('subject', '=', subject)
            .execute()
        }
        await writeNotices(tx, tenant, subject, now, notices)
      })
    },

    move: async (by, to, now) =>
      await transaction(db, async tx => {
        const found = await tx
          .selectFrom('assurances')
          .select('session')
          .where('tenant', '=', by.tenant)
          .where('session', '=', by.session)
          .where('expires_at', '>', now)
          .executeTakeFirst()
        if (found === undefined || by.session === to) return found !== undefined
        await tx.deleteFrom('assurances').where('tenant', '=', by.tenant).where('session', '=', to).execute()
        await tx
          .updateTable('assurances')
          .set({ session: to })
          .where('tenant', '=', by.tenant)
          .where('session', '=', by.session)
          .execute()
        await writeChange(tx, by.tenant, now, { kind: 'session', session: by.session })
        return true
      }),

    endSession: async (tenant, session, now, event) => {
      await transaction(db, async tx => {
        const ended = await tx
          .deleteFrom('assurances')
          .where('tenant', '=', tenant)
          .where('session', '=', session)
          .executeTakeFirst()
        if (ended.numDeletedRows === 0n) return
        await writeEvent(tx, tenant, now, event)
        await writeChange(tx, tenant, now, { kind: 'session', session })
      })
    },

    raiseEpoch: async (tenant, subject, { keep, clearWaits, now, event }) => {
      await ofSubject(tenant, subject, async (tx, before) => {
        const epoch = nextEpoch(now, before.epoch)
        await tx
          .updateTable('subjects')
          .set({ epoch, ...(clearWaits ? { failures_in_row: 0 } : {}) })
          .where('tenant', '=', tenant)
          .where('subject', '=', subject)
          .execute()
        if (keep !== undefined) {
          await tx
            .updateTable('assurances')
            .set({ epoch })
            .where('tenant', '=', tenant)
            .where('subject', '=', subject)
            .where('session', '=', keep.session)
            .where('browser', '=', keep.browser)
            .where('epoch', '=', before.epoch)
            .execute()
        }
        await tx
          .deleteFrom('assurances')
          .where('tenant', '=', tenant)
          .where('subject', '=', subject)
          .where('epoch', '!=', epoch)
          .execute()
        await writeEvent(tx, tenant, now, event)
        await writeChange(tx, tenant, now, { kind: 'subject', subject })
      })
    }
  }
}
