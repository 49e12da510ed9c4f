// One transaction for a right answer: the code is used, the session has passed, the browser is known, the event is
// written.

import type { AcceptRequest, AcceptResult, Records } from '../../domain/records.ts'
import type { Schema } from '../schema.ts'
import { statement, together, write, type Write } from '../statements.ts'
import {
  browserWrites,
  eventWrite,
  REMEMBERED_MS,
  Undone,
  writeChange,
  writeNotices,
  type Db,
  type OwnBrowser,
  type SubjectTransaction,
  type Tx
} from './parts.ts'
import { insertAccepted } from './slots.ts'

interface Code {
  readonly id: string
  readonly tenant: string
  readonly subject: string
}

const authenticator = (on: Tx | Db, { id, tenant, subject }: Code) => on
  .updateTable('authenticators').where('id', '=', id).where('tenant', '=', tenant).where('subject', '=', subject)
const advance = write((on, code: Code & { readonly to: number }) =>
  authenticator(on, code).set({ counter: code.to }).where('counter', '<', code.to))
const consume = write((on, code: Code) => authenticator(on, code).set({ counter: 1 }).where('counter', '=', 0))

/** The conditional write that makes a code single-use; none where the challenge that ends is what does. */
function use ({ by: { tenant, subject }, use }: AcceptRequest): readonly Write[] {
  if (use.use === 'challenge') return []
  const code = { id: use.authenticator, tenant, subject }
  return [use.use === 'advance' ? advance.with({ ...code, to: use.to }) : consume.with(code)]
}

type Assured = Schema['assurances']

const assuranceOf = statement((on, { tenant, session }: Pick<Assured, 'tenant' | 'session'>) => on
  .selectFrom('assurances')
  .select(['subject', 'browser', 'epoch', 'login_at', 'login_factor', 'login_expires_at', 'expires_at'])
  .where('tenant', '=', tenant)
  .where('session', '=', session))

const writeAssurance = write((on, row: Assured) => {
  const values = {
    subject: row.subject,
    epoch: row.epoch,
    browser: row.browser,
    login_at: row.login_at,
    login_factor: row.login_factor,
    login_expires_at: row.login_expires_at,
    step_up_at: row.step_up_at,
    step_up_factor: row.step_up_factor,
    step_up_scope: row.step_up_scope,
    expires_at: row.expires_at
  }
  return on
    .insertInto('assurances')
    .values({ tenant: row.tenant, session: row.session, ...values })
    .onConflict(conflict => conflict.columns(['tenant', 'session']).doUpdateSet(eb => ({
      subject: eb.ref('excluded.subject'),
      epoch: eb.ref('excluded.epoch'),
      browser: eb.ref('excluded.browser'),
      login_at: eb.ref('excluded.login_at'),
      login_factor: eb.ref('excluded.login_factor'),
      login_expires_at: eb.ref('excluded.login_expires_at'),
      step_up_at: eb.ref('excluded.step_up_at'),
      step_up_factor: eb.ref('excluded.step_up_factor'),
      step_up_scope: eb.ref('excluded.step_up_scope'),
      expires_at: eb.ref('excluded.expires_at')
    })))
})

/** What a session has passed from now on, and whether a record that this one replaces may stand in a gate's cache. */
async function record (tx: Tx, { by, bindTo, slot, factor, now, record }: AcceptRequest) {
  if (record === null) return { writes: [], replaced: false }
  const { tenant, session, subject } = by
  const [before] = (await assuranceOf(tx, { tenant, session })).rows
  const same =
    before !== undefined &&
    before.subject === subject &&
    before.epoch === slot.epoch &&
    before.browser === by.browser
  const isLogin = record.purpose === 'login'
  const browser = isLogin ? bindTo : by.browser
  const login = isLogin
    ? { login_at: now, login_factor: factor, login_expires_at: record.expiresAt }
    : same
      ? { login_at: before.login_at, login_factor: before.login_factor, login_expires_at: before.login_expires_at }
      : { login_at: null, login_factor: null, login_expires_at: null }
  const steppedUp = !isLogin || record.scope === 'recovery'
  const assurance = writeAssurance.with({
    tenant,
    session,
    subject,
    epoch: slot.epoch,
    browser,
    ...login,
    step_up_at: steppedUp ? now : null,
    step_up_factor: steppedUp ? factor : null,
    step_up_scope: steppedUp ? record.scope : 'any',
    expires_at: !isLogin && same ? Math.max(before.expires_at, record.expiresAt) : record.expiresAt
  })
  return {
    writes: [assurance],
    replaced: before?.login_at != null && (before.subject !== subject || before.browser !== browser)
  }
}

interface Passing extends OwnBrowser {
  readonly now: number
  readonly since: number
}

const browserPassed = statement((on, { tenant, subject, browser, now, since }: Passing) => on
  .updateTable('browsers')
  .set({ failures_in_row: 0, passed_at: now })
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('browser', '=', browser)
  .where('passed_at', '>', since))

const deleteBrowser = statement((on, { tenant, subject, browser }: OwnBrowser) => on
  .deleteFrom('browsers')
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('browser', '=', browser))

/** Counts start anew for who passed, in the budget that was spent; a browser that logged in is known from now on. */
async function passed (
  tx: Tx,
  { by, bindTo, slot, now, record }: AcceptRequest,
  failuresInRow: number
): Promise<readonly Write[]> {
  const { tenant, subject, browser } = by
  const own = { tenant, subject, browser }
  const marks = slot.kind === 'login' && record !== null
  const stays = marks && bindTo === browser && browser !== 'none'
  // Marking a browser that stays does the same, where nobody's count has to be told from its own.
  if (failuresInRow > 0 || !stays) {
    const known = await browserPassed(tx, { ...own, now, since: now - REMEMBERED_MS })
    if (known.numAffectedRows === 0n && failuresInRow > 0) {
      await tx
        .updateTable('subjects')
        .set({ failures_in_row: 0 })
        .where('tenant', '=', tenant)
        .where('subject', '=', subject)
        .execute()
    }
  }
  if (!marks) return []
  if (bindTo !== browser) await deleteBrowser(tx, own)
  return browserWrites(by, bindTo, now)
}

export function createAccepted (db: Db, ofSubject: SubjectTransaction): Pick<Records, 'accept' | 'rebind'> {
  return {
    accept: async request =>
      await ofSubject<AcceptResult>(request.by.tenant, request.by.subject, async (tx, subject) => {
        const { by, slot, now } = request
        if (subject.epoch !== slot.epoch) throw new Undone<AcceptResult>({ result: 'gone' })
        if (subject.locked_at !== null && !request.whileLocked) throw new Undone<AcceptResult>({ result: 'locked' })
        const assured = await record(tx, request)
        const marked = await passed(tx, request, subject.failures_in_row)
        const first = insertAccepted.with({
          tenant: by.tenant,
          slot: slot.id,
          at: now,
          expires_at: request.record?.expiresAt ?? now,
          subject: by.subject,
          session: by.session,
          browser: by.browser,
          purpose: slot.kind,
          factor: request.factor,
          return_path: slot.returnPath,
          idempotency_key: request.idempotencyKey
        })
        const event = eventWrite(by.tenant, now, request.event)
        const [isFirst, ...counts] = await together(tx, [first, ...use(request), ...assured.writes, ...marked, event])
        if (isFirst !== 1) throw new Undone<AcceptResult>({ result: 'gone' })
        if (request.use.use !== 'challenge' && counts[0] !== 1) throw new Undone<AcceptResult>({ result: 'used' })
        if (assured.replaced) await writeChange(tx, by.tenant, now, { kind: 'session', session: by.session })
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
    }
  }
}
