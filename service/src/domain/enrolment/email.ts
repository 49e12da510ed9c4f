// Switching e-mail login verification on, by a delivered test code, and off.

import { maskAddress, singleMailbox } from '../addresses.ts'
import { isMailedCode } from '../factors/email.ts'
import { normaliseDigits } from '../factors/totp.ts'
import type { Ask, Slot } from '../model.ts'
import { seconds } from '../policy.ts'
import { Problem } from '../problems.ts'
import type { FactorChanges } from './change.ts'
import type { BegunEmail, Enrolments, EnrolmentsNeed } from './model.ts'
import type { Proof } from './proof.ts'
import type { Slots } from './slots.ts'

export function createEmailEnrolment (
  { records, sealer, clock, notices, attempts }: EnrolmentsNeed,
  { rightOf, sealedRow, change, tell, recordFor }: FactorChanges,
  { openSlot, sealKept, keptOf, live, mailCode }: Slots,
  { prove }: Proof
): Pick<Enrolments, 'beginEmail' | 'pendingEmail' | 'confirmEmail' | 'removeEmail'> {
  const begunEmail = (ask: Ask, slot: Slot, now: number, resendInMs: number): BegunEmail => ({
    id: slot.id,
    maskedAddress: maskAddress(keptOf(ask, slot).secret),
    expiresInSeconds: Math.floor((slot.expiresAt - now) / 1000),
    attemptsLeft: slot.attemptsLeft,
    resendInSeconds: seconds(resendInMs)
  })

  const beginEmail: Enrolments['beginEmail'] = async (tenant, ask, { address, proof }) => {
    if (tenant.policy.email === 'off') throw new Problem('method_not_available')
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    if (state.authenticators.some(own => own.factor === 'totp')) throw new Problem('method_not_available')
    const right = rightOf(tenant, state, now, false)
    await notices.remember(tenant, ask, state, now)
    const wanted = address ?? notices.consoleAddress(ask, state) ?? notices.provenAddress(ask.by, state)
    if (wanted === undefined || wanted === '') throw new Problem('address_missing')
    const to = singleMailbox(wanted)
    if (to === undefined) throw new Problem('address_invalid')
    const before = await live(tenant, ask, state, 'enrol_email')
    const same = before !== undefined && keptOf(ask, before.slot).secret === to
    if (same && before.mailWaitMs > 0) return begunEmail(ask, before.slot, before.now, before.mailWaitMs)
    const enrolmentCodeHash =
      before !== undefined
        ? keptOf(ask, before.slot).enrolmentCodeHash
        : right.right === 'first'
          ? await prove(tenant, ask, state, now, proof)
          : null
    const opened = await openSlot(tenant, ask, state, 'enrol_email', {
      payload: sealKept(ask, 'enrol_email', { secret: to, enrolmentCodeHash }),
      replace: !same
    })
    const sent = await mailCode(tenant, ask, state, opened.slot.id, to, 'test_code')
    return begunEmail(ask, sent.slot, sent.now, tenant.policy.limits.mailResendSeconds * 1000)
  }

  const pendingEmail: Enrolments['pendingEmail'] = async (tenant, ask) => {
    const state = await records.subject(ask.by, clock.now())
    const found = await live(tenant, ask, state, 'enrol_email')
    return found === undefined ? undefined : begunEmail(ask, found.slot, found.now, found.mailWaitMs)
  }

  const confirmEmail: Enrolments['confirmEmail'] = async (tenant, ask, id, typed, { nextBrowser }) => {
    const state = await records.subject(ask.by, clock.now())
    const code = normaliseDigits(typed)
    if (!/^\d{6}$/.test(code)) {
      // Refused without counting; one that was begun under an older epoch is gone, whatever is typed.
      const found = await live(tenant, ask, state, 'enrol_email')
      return found?.slot.id === id ? { verdict: 'malformed' } : { verdict: 'gone' }
    }
    const attempt = await attempts.take(tenant, ask, state, id, 'subject', ['enrol_email'])
    if (attempt.attempt === 'refused') return attempt.verdict
    const { slot, now, receipt } = attempt
    if (!isMailedCode(sealer.keyedHash, slot, code)) {
      return await attempts.wrong(tenant, ask, state, slot, now, 'subject')
    }
    try {
      const right = rightOf(tenant, state, now, false)
      const { secret: address, enrolmentCodeHash } = keptOf(ask, slot)
      const { result } = await change(tenant, ask, state, now, right, {
        kind: 'email_enabled',
        factor: 'email',
        recovery: false,
        enrolmentCodeHash,
        remove: ['email'],
        add: [sealedRow(ask, 'email', now, address)],
        record: recordFor(tenant, ask, state, now, { factor: 'email', nextBrowser }),
        unlock: false,
        slot: slot.id,
        notices: tell(tenant, ask, state, 'email_enabled', { to: maskAddress(address) }, [address])
      })
      attempts.giveBack(receipt, result === 'changed' ? 'accepted' : 'used')
      return result === 'changed'
        ? { verdict: 'accepted', backupCodes: [], boundToNext: nextBrowser !== undefined }
        : { verdict: 'gone' }
    } catch (error) {
      attempts.giveBack(receipt, 'used')
      throw error
    }
  }

  const removeEmail: Enrolments['removeEmail'] = async (tenant, ask) => {
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    if (!state.authenticators.some(own => own.factor === 'email')) throw new Problem('not_enabled')
    const right = rightOf(tenant, state, now, false)
    const codesStay = state.authenticators.some(own => own.factor === 'totp')
    const { result } = await change(tenant, ask, state, now, right, {
      kind: 'email_disabled',
      factor: 'email',
      recovery: false,
      remove: codesStay ? ['email'] : ['email', 'backup_code'],
      add: [],
      record: recordFor(tenant, ask, state, now),
      unlock: false,
      slot: null,
      notices: tell(tenant, ask, state, 'email_disabled')
    })
    if (result === 'gone') throw new Problem('step_up_required')
  }

  return { beginEmail, pendingEmail, confirmEmail, removeEmail }
}
