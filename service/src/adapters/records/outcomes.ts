// One transaction per outcome: a right answer, a wrong one, a change of factors.

import { locks } from '../../domain/policy.ts'
import type { AcceptRequest, AcceptResult, FactorChangeResult, Records } from '../../domain/ports.ts'
import {
  clearCounts,
  markBrowser,
  nextEpoch,
  REMEMBERED_MS,
  Undone,
  writeChange,
  writeEvent,
  writeNotices,
  type Db,
  type SubjectTransaction,
  type Tx
} from './parts.ts'

/** The conditional write that makes a code single-use. */
async function use (tx: Tx, { by, use }: AcceptRequest): Promise<boolean> {
  if (use.use === 'challenge') return true
  const update = tx
    .updateTable('authenticators')
    .where('id', '=', use.authenticator)
    .where('tenant', '=', by.tenant)
    .where('subject', '=', by.subject)
  const done =
    use.use === 'advance'
      ? await update.set({ counter: use.to }).where('counter', '<', use.to).executeTakeFirst()
      : await update.set({ counter: 1 }).where('counter', '=', 0).executeTakeFirst()
  return done.numUpdatedRows === 1n
}

async function record (tx: Tx, { by, bindTo, slot, factor, now, record }: AcceptRequest): Promise<void> {
  if (record === null) return
  const before = await tx
    .selectFrom('assurances')
    .selectAll()
    .where('tenant', '=', by.tenant)
    .where('session', '=', by.session)
    .executeTakeFirst()
  const same =
    before !== undefined &&
    before.subject === by.subject &&
    before.epoch === slot.epoch &&
    before.browser === by.browser
  const stepUp = { step_up_at: now, step_up_factor: factor, step_up_scope: record.scope }
  const none = { step_up_at: null, step_up_factor: null, step_up_scope: 'any' }
  const login = { login_at: now, login_factor: factor, login_expires_at: record.expiresAt }
  const row =
    record.purpose === 'login'
      ? { browser: bindTo, ...login, ...(record.scope === 'recovery' ? stepUp : none), expires_at: record.expiresAt }
      : same
        ? {
            browser: by.browser,
            login_at: before.login_at,
            login_factor: before.login_factor,
            login_expires_at: before.login_expires_at,
            ...stepUp,
            expires_at: Math.max(before.expires_at, record.expiresAt)
          }
        : {
            browser: by.browser,
            login_at: null,
            login_factor: null,
            login_expires_at: null,
            ...stepUp,
            expires_at: record.expiresAt
          }
  const values = { subject: by.subject, epoch: slot.epoch, ...row }
  await tx
    .insertInto('assurances')
    .values({ tenant: by.tenant, session: by.session, ...values })
    .onConflict(conflict => conflict.columns(['tenant', 'session']).doUpdateSet(values))
    .execute()
  // A record that this one replaces may still stand in a gate's cache.
  if (before?.login_at != null && (before.subject !== by.subject || before.browser !== row.browser)) {
    await writeChange(tx, by.tenant, now, { kind: 'session', session: by.session })
  }
}

export function createOutcomes (
  db: Db,
  ofSubject: SubjectTransaction
): Pick<Records, 'accept' | 'rebind' | 'reject' | 'changeFactors'> {
  return {
    accept: async request =>
      await ofSubject<AcceptResult>(request.by.tenant, request.by.subject, async (tx, subject) => {
        const { by, slot, now } = request
        if (subject.epoch !== slot.epoch) throw new Undone<AcceptResult>({ result: 'gone' })
        if (subject.locked_at !== null && !request.whileLocked) throw new Undone<AcceptResult>({ result: 'locked' })
        const purpose = slot.kind
        const first = await tx
          .insertInto('accepted')
          .values({
            tenant: by.tenant,
            slot: slot.id,
            at: now,
            expires_at: request.record?.expiresAt ?? now,
            subject: by.subject,
            session: by.session,
            browser: by.browser,
            purpose,
            factor: request.factor,
            return_path: slot.returnPath,
            idempotency_key: request.idempotencyKey
          })
          .onConflict(conflict => conflict.columns(['tenant', 'slot']).doNothing())
          .executeTakeFirst()
        if (first.numInsertedOrUpdatedRows !== 1n) throw new Undone<AcceptResult>({ result: 'gone' })
        if (!(await use(tx, request))) throw new Undone<AcceptResult>({ result: 'used' })

        const known = await tx
          .updateTable('browsers')
          .set({ failures_in_row: 0, passed_at: now })
          .where('tenant', '=', by.tenant)
          .where('subject', '=', by.subject)
          .where('browser', '=', by.browser)
          .where('passed_at', '>', now - REMEMBERED_MS)
          .executeTakeFirst()
        if (known.numUpdatedRows === 0n) {
          await tx
            .updateTable('subjects')
            .set({ failures_in_row: 0 })
            .where('tenant', '=', by.tenant)
            .where('subject', '=', by.subject)
            .execute()
        }
        if (slot.kind === 'login' && request.record !== null) {
          if (request.bindTo !== by.browser) {
            await tx
              .deleteFrom('browsers')
              .where('tenant', '=', by.tenant)
              .where('subject', '=', by.subject)
              .where('browser', '=', by.browser)
              .execute()
          }
          await markBrowser(tx, by, request.bindTo, now)
        }
        await record(tx, request)
        await writeEvent(tx, by.tenant, now, request.event)
        await writeNotices(tx, by.tenant, by.subject, now, request.notices)
        if (request.factor !== 'backup_code') return { result: 'accepted', backupCodesLeft: 0 }
        const left = await tx
          .selectFrom('authenticators')
          .select(eb => eb.fn.countAll<number>().as('count'))
          .where('tenant', '=', by.tenant)
          .where('subject', '=', by.subject)
          .where('factor', '=', 'backup_code')
          .where('counter', '=', 0)
          .executeTakeFirstOrThrow()
        return { result: 'accepted', backupCodesLeft: Number(left.count) }
      }),

    rebind: async (by, browser) => {
      await db
        .updateTable('assurances')
        .set({ browser })
        .where('tenant', '=', by.tenant)
        .where('session', '=', by.session)
        .where('subject', '=', by.subject)
        .execute()
    },

    reject: async (by, { now, browserKnown, limits, counts, event, lockNotices }) =>
      await ofSubject(by.tenant, by.subject, async (tx, subject) => {
        await writeEvent(tx, by.tenant, now, event)
        if (!counts) return { inARow: 0, in30Days: 0, locked: subject.locked_at !== null }
        await tx.insertInto('failures').values({ tenant: by.tenant, subject: by.subject, at: now }).execute()
        const own = browserKnown
          ? await tx
            .updateTable('browsers')
            .set(eb => ({ failures_in_row: eb('failures_in_row', '+', 1) }))
            .where('tenant', '=', by.tenant)
            .where('subject', '=', by.subject)
            .where('browser', '=', by.browser)
            .returning('failures_in_row')
            .executeTakeFirst()
          : undefined
        const { failures_in_row: inARow } =
          own ??
          (await tx
            .updateTable('subjects')
            .set(eb => ({ failures_in_row: eb('failures_in_row', '+', 1) }))
            .where('tenant', '=', by.tenant)
            .where('subject', '=', by.subject)
            .returning('failures_in_row')
            .executeTakeFirstOrThrow())
        const { count } = await tx
          .selectFrom('failures')
          .select(eb => eb.fn.countAll<number>().as('count'))
          .where('tenant', '=', by.tenant)
          .where('subject', '=', by.subject)
          .where('at', '>', now - REMEMBERED_MS)
          .executeTakeFirstOrThrow()
        const in30Days = Number(count)
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
      }),

    changeFactors: async change =>
      await ofSubject<FactorChangeResult>(change.by.tenant, change.by.subject, async (tx, subject) => {
        const { by, now, allowedBy } = change
        if (subject.epoch !== change.epoch) throw new Undone<FactorChangeResult>({ result: 'gone' })
        if (change.slot !== null) {
          const first = await tx
            .insertInto('accepted')
            .values({
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
            .onConflict(conflict => conflict.columns(['tenant', 'slot']).doNothing())
            .executeTakeFirst()
          if (first.numInsertedOrUpdatedRows !== 1n) throw new Undone<FactorChangeResult>({ result: 'gone' })
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
          if (login) await markBrowser(tx, by, browser, now)
        }
        await writeEvent(tx, by.tenant, now, change.event)
        await writeNotices(tx, by.tenant, by.subject, now, change.notices)
        await writeChange(tx, by.tenant, now, { kind: 'subject', subject: by.subject })
        return { result: 'changed', epoch }
      })
  }
}
