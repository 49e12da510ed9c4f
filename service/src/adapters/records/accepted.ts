// One transaction for a right answer: the code is used, the session has passed, the browser is known, the event is
// written.

import type { AcceptRequest, AcceptResult, Records } from '../../domain/records.ts'
import { statement, together, type Part } from '../statements.ts'
import { deleteBrowser, first, passBrowser, use, writeAssurance, type Assured } from './accept-writes.ts'
import { acceptAtOnce } from './accepted-at-once.ts'
import {
  browserWrites,
  eventWrite,
  REMEMBERED_MS,
  Undone,
  writeChange,
  writeNotices,
  type Db,
  type LockedSubject,
  type SubjectTransaction,
  type Tx
} from './parts.ts'

const assuranceOf = statement((on, { tenant, session }: Pick<Assured, 'tenant' | 'session'>) => on
  .selectFrom('assurances')
  .select(['subject', 'browser', 'epoch', 'login_at', 'login_factor', 'login_expires_at', 'expires_at'])
  .where('tenant', '=', tenant)
  .where('session', '=', session))

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

/** Counts start anew for who passed, in the budget that was spent; a browser that logged in is known from now on. */
async function passed (
  tx: Tx,
  { by, bindTo, slot, now, record }: AcceptRequest,
  failuresInRow: number
): Promise<readonly Part[]> {
  const { tenant, subject, browser } = by
  const own = { tenant, subject, browser }
  const marks = slot.kind === 'login' && record !== null
  const stays = marks && bindTo === browser && browser !== 'none'
  // Marking a browser that stays does the same, where nobody's count has to be told from its own.
  if (failuresInRow > 0 || !stays) {
    const known = await passBrowser.run(tx, { ...own, now, since: now - REMEMBERED_MS })
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
  if (bindTo !== browser) await deleteBrowser.run(tx, own)
  return browserWrites(by, bindTo, now)
}

/** Whatever was read before: what stands now is read once more and held, and decides. */
async function decide (tx: Tx, subject: LockedSubject, request: AcceptRequest): Promise<AcceptResult> {
  const { by, slot, now } = request
  if (subject.epoch !== slot.epoch) throw new Undone<AcceptResult>({ result: 'gone' })
  if (subject.locked_at !== null && !request.whileLocked) throw new Undone<AcceptResult>({ result: 'locked' })
  const assured = await record(tx, request)
  const marked = await passed(tx, request, subject.failures_in_row)
  const event = eventWrite(by.tenant, now, request.event)
  const [isFirst, ...counts] = await together(
    tx, [first(request), ...use(request), ...assured.writes, ...marked, event])
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
}

export function createAccepted (db: Db, ofSubject: SubjectTransaction): Pick<Records, 'accept' | 'rebind'> {
  return {
    accept: async request => await ofSubject<AcceptResult>(
      request.by.tenant,
      request.by.subject,
      async (tx, subject) => await decide(tx, subject, request),
      async () => await acceptAtOnce(db, request) ? { result: 'accepted', backupCodesLeft: 0 } : undefined
    ),

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
