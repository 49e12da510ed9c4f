// What a tenant may ask for before a first enrolment: a code to the console's address, or one from an administrator.

import { maskAddress, singleMailbox } from '../addresses.ts'
import { askedOf, have } from '../assurance.ts'
import { normaliseBackupCode } from '../factors/backup-code.ts'
import { isMailedCode } from '../factors/email.ts'
import { normaliseDigits } from '../factors/totp.ts'
import type { Ask, SubjectState } from '../model.ts'
import type { Tenant } from '../policy.ts'
import { Problem, problemOf } from '../problems.ts'
import type { FactorChanges } from './change.ts'
import type { Enrolments, EnrolmentsNeed } from './model.ts'
import type { Slots } from './slots.ts'

export function createProof (
  { records, pending, sealer, clock, notices, attempts, factors }: EnrolmentsNeed,
  { openSlot, mailCode }: Slots,
  { rightOf }: FactorChanges
) {
  /** What must prove who enrols first. */
  const proofOf = (tenant: Tenant, state: SubjectState, now: number) =>
    have(factors, state, tenant.policy) === 'reset' ||
    askedOf(factors, state, tenant.policy, now).login === 'enrol_with_code'
      ? ('enrolment_code' as const)
      : tenant.policy.firstEnrolment

  /** Checks the proof of a first enrolment; returns the enrolment code to use up at the confirmation. */
  const prove = async (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    now: number,
    proof: string | undefined
  ): Promise<string | null> => {
    const needed = proofOf(tenant, state, now)
    if (needed === 'none') return null
    if (proof === undefined) throw new Problem('proof_required')
    const id =
      needed === 'email' ? await pending.find(ask.by, 'proof') : (await openSlot(tenant, ask, state, 'proof')).slot.id
    if (id === undefined) throw new Problem('proof_required')
    // An enrolment code has 80 bits: its attempts are counted, but never on the budget that locks.
    const budget = needed === 'email' ? 'subject' : 'backup_code'
    const attempt = await attempts.take(tenant, ask, state, id, budget, ['proof'])
    if (attempt.attempt === 'refused') throw problemOf(attempt.verdict)
    const hash = sealer.keyedHash('enrolment_code', tenant.id, state.subject, normaliseBackupCode(proof))
    const right =
      needed === 'email'
        ? isMailedCode(sealer.keyedHash, attempt.slot, normaliseDigits(proof))
        : state.enrolmentCodeHash !== null &&
          sealer.equal(hash, state.enrolmentCodeHash) &&
          (state.enrolmentCodeExpiresAt ?? 0) > attempt.now
    if (!right) {
      const refused = await attempts.wrong(tenant, ask, state, attempt.slot, attempt.now, budget)
      throw refused.verdict === 'rejected'
        ? new Problem('proof_rejected', { attempts_left: refused.left })
        : problemOf(refused)
    }
    attempts.giveBack(attempt.receipt, 'accepted')
    return needed === 'enrolment_code' ? hash : null
  }

  const sendProof: Enrolments['sendProof'] = async (tenant, ask) => {
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    if (rightOf(tenant, state, now, false).right !== 'first' || proofOf(tenant, state, now) !== 'email') {
      throw new Problem('method_not_available')
    }
    await notices.remember(tenant, ask, state, now)
    // Only the console's word counts: an address that the browser names proves nothing.
    const address = singleMailbox(notices.consoleAddress(ask, state) ?? '')
    if (address === undefined) throw new Problem('address_missing')
    const opened = await openSlot(tenant, ask, state, 'proof')
    await mailCode(tenant, ask, state, opened.slot.id, address, 'proof_code')
    return { maskedAddress: maskAddress(address), resendInSeconds: tenant.policy.limits.mailResendSeconds }
  }

  return { proofOf, prove, sendProof }
}

export type Proof = ReturnType<typeof createProof>
