// Enrolling, renewing and disabling a TOTP key.

import { base32, clockOff, keyUri, matchingStep, normaliseDigits } from '../factors/totp.ts'
import type { Ask, Slot } from '../model.ts'
import type { Tenant } from '../policy.ts'
import { Problem } from '../problems.ts'
import type { BackupCodes } from './backup-codes.ts'
import type { FactorChanges } from './change.ts'
import type { BegunTotp, Enrolments, EnrolmentsNeed } from './model.ts'
import type { Proof } from './proof.ts'
import type { Slots } from './slots.ts'

/** How far a phone's clock may be off and still be told so (RFC 6238 6). */
const CLOCK_OFF_MINUTES = 5

export function createTotpEnrolment (
  { records, randomness, clock, notices, attempts }: EnrolmentsNeed,
  { rightOf, sealedRow, change, tell, recordFor }: FactorChanges,
  { openSlot, sealKept, keptOf, live }: Slots,
  { prove }: Proof,
  { newSet }: BackupCodes
): Pick<Enrolments, 'beginTotp' | 'pendingTotp' | 'confirmTotp' | 'removeTotp'> {
  const begunTotp = (tenant: Tenant, ask: Ask, slot: Slot, now: number): BegunTotp => {
    const key = base32(Buffer.from(keptOf(ask, slot).secret, 'base64url'))
    return {
      id: slot.id,
      key,
      uri: keyUri(tenant.issuer, ask.about.displayName ?? ask.about.email ?? ask.by.subject, key),
      expiresInSeconds: Math.floor((slot.expiresAt - now) / 1000),
      attemptsLeft: slot.attemptsLeft
    }
  }

  const beginTotp: Enrolments['beginTotp'] = async (tenant, ask, { proof }) => {
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    const right = rightOf(tenant, state, now, true)
    await notices.remember(tenant, ask, state, now)
    const before = await live(tenant, ask, state, 'enrol_totp')
    if (before !== undefined) return begunTotp(tenant, ask, before.slot, before.now)
    const enrolmentCodeHash = right.right === 'first' ? await prove(tenant, ask, state, now, proof) : null
    const secret = Buffer.from(randomness.bytes(20)).toString('base64url')
    const opened = await openSlot(tenant, ask, state, 'enrol_totp', {
      payload: sealKept(ask, 'enrol_totp', { secret, enrolmentCodeHash })
    })
    return begunTotp(tenant, ask, opened.slot, opened.now)
  }

  const pendingTotp: Enrolments['pendingTotp'] = async (tenant, ask) => {
    const state = await records.subject(ask.by, clock.now())
    const found = await live(tenant, ask, state, 'enrol_totp')
    return found === undefined ? undefined : begunTotp(tenant, ask, found.slot, found.now)
  }

  const confirmTotp: Enrolments['confirmTotp'] = async (tenant, ask, id, typed, { nextBrowser }) => {
    const state = await records.subject(ask.by, clock.now())
    const code = normaliseDigits(typed)
    if (!/^\d{6}$/.test(code)) {
      // Refused without counting; one that was begun under an older epoch is gone, whatever is typed.
      const found = await live(tenant, ask, state, 'enrol_totp')
      return found?.slot.id === id ? { verdict: 'malformed' } : { verdict: 'gone' }
    }
    // Renewing is the way out of a lock, so it does not wait behind what the attacker spent.
    const budget = state.lockedAt === null ? 'subject' : 'backup_code'
    const attempt = await attempts.take(tenant, ask, state, id, budget, ['enrol_totp'])
    if (attempt.attempt === 'refused') return attempt.verdict
    const { slot, now, receipt } = attempt
    const { secret, enrolmentCodeHash } = keptOf(ask, slot)
    const key = Buffer.from(secret, 'base64url')
    const step = matchingStep(key, code, now, tenant.policy.limits.totpWindowSteps)
    if (step === undefined) {
      return await attempts.wrong(tenant, ask, state, slot, now, budget, clockOff(key, code, now, CLOCK_OFF_MINUTES))
    }
    try {
      const right = rightOf(tenant, state, now, true)
      const renewed = state.authenticators.some(own => own.factor === 'totp')
      const set = await newSet(ask, now)
      const { result } = await change(tenant, ask, state, now, right, {
        kind: renewed ? 'totp_renewed' : 'totp_enabled',
        factor: 'totp',
        recovery: true,
        enrolmentCodeHash,
        remove: ['totp', 'backup_code'],
        add: [sealedRow(ask, 'totp', now, secret, step), ...set.rows],
        record: recordFor(tenant, ask, state, now, { factor: 'totp', nextBrowser }),
        unlock: true,
        slot: slot.id,
        notices: tell(tenant, ask, state, renewed ? 'totp_renewed' : 'totp_enabled')
      })
      attempts.giveBack(receipt, result === 'changed' ? 'accepted' : 'used')
      return result === 'changed'
        ? { verdict: 'accepted', backupCodes: set.codes, boundToNext: nextBrowser !== undefined }
        : { verdict: 'gone' }
    } catch (error) {
      // The code was right; what stood in the way is not the person's failure.
      attempts.giveBack(receipt, 'used')
      throw error
    }
  }

  const removeTotp: Enrolments['removeTotp'] = async (tenant, ask) => {
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    if (!state.authenticators.some(own => own.factor === 'totp')) throw new Problem('not_enabled')
    const right = rightOf(tenant, state, now, false)
    const codesStay = state.authenticators.some(own => own.factor === 'email')
    const { result } = await change(tenant, ask, state, now, right, {
      kind: 'totp_disabled',
      factor: 'totp',
      recovery: false,
      remove: codesStay ? ['totp'] : ['totp', 'backup_code'],
      add: [],
      record: recordFor(tenant, ask, state, now),
      unlock: false,
      slot: null,
      notices: tell(tenant, ask, state, 'totp_disabled')
    })
    if (result === 'gone') throw new Problem('step_up_required')
  }

  return { beginTotp, pendingTotp, confirmTotp, removeTotp }
}
