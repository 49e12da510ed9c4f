// One transaction for a wrong answer: it is counted, and the one too many locks.

import { locks } from '../../domain/policy.ts'
import type { Records } from '../../domain/records.ts'
import { statement } from '../statements.ts'
import {
  REMEMBERED_MS,
  writeChange,
  writeEvent,
  writeNotices,
  type OwnBrowser,
  type SubjectTransaction
} from './parts.ts'

interface Failed {
  readonly tenant: string
  readonly subject: string
  readonly at: number
}

const insertFailure = statement((on, { tenant, subject, at }: Failed) =>
  on.insertInto('failures').values({ tenant, subject, at }))
const countFailures = statement((on, { tenant, subject, at }: Failed) => on
  .selectFrom('failures')
  .select(eb => eb.fn.countAll<number>().as('count'))
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('at', '>', at))
const failedInBrowser = statement((on, { tenant, subject, browser }: OwnBrowser) => on
  .updateTable('browsers')
  .set(eb => ({ failures_in_row: eb('failures_in_row', '+', 1) }))
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('browser', '=', browser)
  .returning('failures_in_row'))
const failed = statement((on, { tenant, subject }: Omit<OwnBrowser, 'browser'>) => on
  .updateTable('subjects')
  .set(eb => ({ failures_in_row: eb('failures_in_row', '+', 1) }))
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .returning('failures_in_row'))

export function createRejected (ofSubject: SubjectTransaction): Pick<Records, 'reject'> {
  return {
    reject: async (by, { now, browserKnown, limits, event, lockNotices }) =>
      await ofSubject(by.tenant, by.subject, async (tx, subject) => {
        await writeEvent(tx, by.tenant, now, event)
        const { tenant, subject: name, browser } = by
        await insertFailure(tx, { tenant, subject: name, at: now })
        const [own] = browserKnown ? (await failedInBrowser(tx, { tenant, subject: name, browser })).rows : []
        const [counted] = own === undefined ? (await failed(tx, { tenant, subject: name })).rows : [own]
        const [recent] = (await countFailures(tx, { tenant, subject: name, at: now - REMEMBERED_MS })).rows
        if (counted === undefined || recent === undefined) throw new Error("the subject's row is gone")
        const inARow = counted.failures_in_row
        const in30Days = Number(recent.count)
        const locked = locks({ inARow, in30Days }, limits)
        if (locked && subject.locked_at === null) {
          await tx
            .updateTable('subjects')
            .set({ locked_at: now })
            .where('tenant', '=', by.tenant)
            .where('subject', '=', by.subject)
            .execute()
          await writeEvent(tx, by.tenant, now, {
            ...event,
            kind: 'locked',
            outcome: 'done',
            reason: inARow >= limits.lockInARow ? 'in_a_row' : 'in_30_days'
          })
          await writeNotices(tx, by.tenant, by.subject, now, lockNotices)
          await writeChange(tx, by.tenant, now, { kind: 'subject', subject: by.subject })
        }
        return { inARow, in30Days, locked: locked || subject.locked_at !== null }
      })
  }
}
