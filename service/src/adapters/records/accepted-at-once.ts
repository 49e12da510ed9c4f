// A right answer as it is as a rule, in one way to the database and back: who asks is as they were read a moment ago.
// Where that is not so nothing is written, and the transaction of accepted.ts decides.

import type { AcceptRequest } from '../../domain/records.ts'
import { allOrNothing, holding, type On, type Part } from '../statements.ts'
import { deleteBrowser, first, passBrowser, use, writeStepUp, writeUnheardAssurance } from './accept-writes.ts'
import { browserWrites, eventWrite, REMEMBERED_MS, type Db } from './parts.ts'

interface Expected {
  readonly tenant: string
  readonly subject: string
  readonly epoch: number
}

const unlocked = (on: On, { tenant, subject, epoch }: Expected) => on
  .selectFrom('subjects')
  .select('epoch')
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('epoch', '=', epoch)
  .where('locked_at', 'is', null)
const holdSubject = holding((on, expected: Expected) => unlocked(on, expected))
/** Nobody's failures are counted for it that a success would end. */
const holdClear = holding((on, expected: Expected) => unlocked(on, expected).where('failures_in_row', '=', 0))

/** What a session passed; undefined where it replaces what gates may know, or there is no login to add a step-up to. */
function assurance ({ by, bindTo, slot, factor, now, record, seen }: AcceptRequest): readonly Part[] | undefined {
  if (record === null) return []
  const { tenant, session, subject } = by
  // Whole literals: of objects that are spread together, 2 kB a verification outlived it.
  if (record.purpose === 'step_up') {
    return seen?.assurance == null
      ? undefined
      : [writeStepUp.with({
          tenant,
          session,
          subject,
          epoch: slot.epoch,
          browser: by.browser,
          step_up_at: now,
          step_up_factor: factor,
          step_up_scope: record.scope,
          expires_at: record.expiresAt
        })]
  }
  if (seen?.assurance?.loginAt != null && bindTo !== by.browser) return undefined
  return [writeUnheardAssurance.with({
    tenant,
    session,
    subject,
    epoch: slot.epoch,
    browser: bindTo,
    login_at: now,
    login_factor: factor,
    login_expires_at: record.expiresAt,
    step_up_at: null,
    step_up_factor: null,
    step_up_scope: 'any',
    expires_at: record.expiresAt
  })]
}

/** A browser that logged in is known from now on; the counts of one that is known start anew. */
function browsers ({ by, bindTo, slot, now, record }: AcceptRequest): readonly Part[] {
  const { tenant, subject, browser } = by
  const own = { tenant, subject, browser }
  if (slot.kind !== 'login' || record === null) {
    return [passBrowser.with({ ...own, now, since: now - REMEMBERED_MS })]
  }
  return [...(bindTo === browser ? [] : [deleteBrowser.with(own)]), ...browserWrites(by, bindTo, now)]
}

function isUsual ({ slot, use, factor, record, notices, seen }: AcceptRequest): boolean {
  if (seen === undefined || seen.lockedAt !== null || seen.epoch !== slot.epoch) return false
  if (!seen.browserKnown && seen.inARow > 0) return false
  if (record?.scope === 'recovery' || factor === 'backup_code' || notices.length > 0) return false
  return use.use !== 'advance' ||
    seen.authenticators.some(({ id, counter }) => id === use.authenticator && counter < use.to)
}

/** True: it is accepted. False: nothing is written, and nothing said of why. */
export async function acceptAtOnce (db: Db, request: AcceptRequest): Promise<boolean> {
  const { by, slot, seen, now, event } = request
  const assured = isUsual(request) ? assurance(request) : undefined
  if (assured === undefined) return false
  const { tenant, subject } = by
  const held = (seen?.browserKnown === true ? holdSubject : holdClear).with({ tenant, subject, epoch: slot.epoch })
  const must = [held, first(request), ...use(request), ...assured, eventWrite(tenant, now, event)]
  return await allOrNothing(db, [
    ...must.map(part => ({ part, must: true })),
    ...browsers(request).map(part => ({ part, must: false }))
  ])
}
