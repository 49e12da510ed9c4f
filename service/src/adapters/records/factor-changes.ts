// One transaction for a change of factors: what allows it is looked at where it is made.

import type { FactorChangeResult, Records } from '../../domain/records.ts'
import { together } from '../statements.ts'
import {
  browserWrites,
  clearCounts,
  nextEpoch,
  Undone,
  writeChange,
  writeEvent,
  writeNotices,
  type SubjectTransaction
} from './parts.ts'
import { insertAccepted } from './slots.ts'

export function createFactorChanges (ofSubject: SubjectTransaction): Pick<Records, 'changeFactors'> {
  return {
    changeFactors: async change =>
      await ofSubject<FactorChangeResult>(change.by.tenant, change.by.subject, async (tx, subject) => {
        const { by, now, allowedBy } = change
        if (subject.epoch !== change.epoch) throw new Undone<FactorChangeResult>({ result: 'gone' })
        if (change.slot !== null) {
          const first = await insertAccepted.run(tx, {
            tenant: by.tenant,
            slot: change.slot,
            at: now,
            expires_at: now,
            subject: by.subject,
            session: by.session,
            browser: by.browser,
            purpose: 'enrolment',
            factor: change.event.factor ?? '',
            return_path: null,
            idempotency_key: null
          })
          if (first.numAffectedRows !== 1n) throw new Undone<FactorChangeResult>({ result: 'gone' })
        }
        if (allowedBy.by === 'step_up') {
          let query = tx
            .selectFrom('assurances')
            .select('session')
            .where('tenant', '=', by.tenant)
            .where('session', '=', by.session)
            .where('subject', '=', by.subject)
            .where('browser', '=', by.browser)
            .where('epoch', '=', subject.epoch)
            .where('step_up_at', '>=', now - allowedBy.stepUpMs)
            .where('step_up_factor', 'in', [...allowedBy.factors])
          if (!allowedBy.recovery) query = query.where('step_up_scope', '=', 'any')
          if ((await query.executeTakeFirst()) === undefined) {
            throw new Undone<FactorChangeResult>({ result: 'step_up_required' })
          }
        } else if (allowedBy.by === 'first' && (subject.fenced === 1 || allowedBy.enrolmentCodeHash !== null)) {
          const opens =
            allowedBy.enrolmentCodeHash !== null &&
            allowedBy.enrolmentCodeHash === subject.enrolment_code_hash &&
            (subject.enrolment_code_expires_at ?? 0) > now
          if (!opens) throw new Undone<FactorChangeResult>({ result: 'proof_required' })
        }
        if (change.remove.length > 0) {
          await tx
            .deleteFrom('authenticators')
            .where('tenant', '=', by.tenant)
            .where('subject', '=', by.subject)
            .where('factor', 'in', [...change.remove])
            .execute()
        }
        if (change.add.length > 0) {
          await tx
            .insertInto('authenticators')
            .values(
              change.add.map(one => ({
                id: one.id,
                tenant: by.tenant,
                subject: by.subject,
                factor: one.factor,
                secret: one.secret,
                counter: one.counter,
                confirmed_at: one.confirmedAt
              }))
            )
            .execute()
        }
        const epoch = nextEpoch(now, subject.epoch)
        await tx
          .updateTable('subjects')
          .set({
            epoch,
            ...(allowedBy.by === 'first'
              ? { fenced: 0, enrolment_code_hash: null, enrolment_code_expires_at: null }
              : {})
          })
          .where('tenant', '=', by.tenant)
          .where('subject', '=', by.subject)
          .execute()
        if (change.unlock) await clearCounts(tx, by.tenant, by.subject)
        await tx
          .deleteFrom('assurances')
          .where('tenant', '=', by.tenant)
          .where(eb => eb.or([eb('subject', '=', by.subject), eb('session', '=', by.session)]))
          .execute()
        if (change.record !== null) {
          const { factor, browser, login, stepUp, loginExpiresAt } = change.record
          await tx
            .insertInto('assurances')
            .values({
              tenant: by.tenant,
              session: by.session,
              subject: by.subject,
              browser,
              epoch,
              login_at: login ? now : null,
              login_factor: login ? factor : null,
              login_expires_at: login ? loginExpiresAt : null,
              step_up_at: stepUp ? now : null,
              step_up_factor: stepUp ? factor : null,
              step_up_scope: 'any',
              expires_at: loginExpiresAt
            })
            .execute()
          if (login) await together(tx, browserWrites(by, browser, now))
        }
        await writeEvent(tx, by.tenant, now, change.event)
        await writeNotices(tx, by.tenant, by.subject, now, change.notices)
        await writeChange(tx, by.tenant, now, { kind: 'subject', subject: by.subject })
        return { result: 'changed', epoch }
      })
  }
}
