// Begin, confirm, renew and remove factors; new sets of backup codes; what the settings page shows.

import { maskAddress } from './addresses.ts'
import { askedOf, isRequired, loginStatus, offeredFactors, stepUpAge } from './assurance.ts'
import { createBackupCodes } from './enrolment/backup-codes.ts'
import { createFactorChanges } from './enrolment/change.ts'
import { createEmailEnrolment } from './enrolment/email.ts'
import type { Enrolments, EnrolmentsNeed } from './enrolment/model.ts'
import { createProof } from './enrolment/proof.ts'
import { createSlots } from './enrolment/slots.ts'
import { createTotpEnrolment } from './enrolment/totp.ts'
import { totpStatus } from './model.ts'
import { seconds } from './policy.ts'
import { Problem } from './problems.ts'

export type { BegunEmail, BegunTotp, Confirmed, Enrolments, EnrolmentsNeed, SettingsView } from './enrolment/model.ts'

const DAY_MS = 86_400_000

export function createEnrolments (need: EnrolmentsNeed): Enrolments {
  const { records, clock, notices, factors } = need
  const changes = createFactorChanges(need)
  const slots = createSlots(need)
  const proof = createProof(need, slots, changes)
  const backupCodes = createBackupCodes(need, changes)

  const settings: Enrolments['settings'] = async (tenant, ask) => {
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    const { policy } = tenant
    await notices.remember(tenant, ask, state, now)
    const totp = state.authenticators.find(own => own.factor === 'totp')
    const proven = notices.codeAddress(ask.by, state)
    const said = notices.consoleAddress(ask, state)
    const codes = state.authenticators.filter(own => own.factor === 'backup_code')
    const age = stepUpAge(state, policy, now)
    const offered = offeredFactors(factors, state, policy)
    const asked = askedOf(factors, state, policy, now).login
    return {
      totp: {
        status: totpStatus(state, now, policy.limits.totpExpiresDays),
        confirmedAt: totp?.confirmedAt ?? null,
        expiresAt: totp === undefined ? null : totp.confirmedAt + policy.limits.totpExpiresDays * DAY_MS
      },
      email: {
        offered: policy.email !== 'off',
        on: state.authenticators.some(own => own.factor === 'email'),
        applies: totp === undefined && policy.email !== 'off',
        maskedAddress: proven === undefined ? null : maskAddress(proven),
        maskedConsoleAddress: said === undefined || said === proven ? null : maskAddress(said)
      },
      backupCodes: { left: codes.filter(code => code.counter === 0).length, of: codes.length },
      locked: state.lockedAt !== null,
      mustEnrol:
        asked === 'enrol' || asked === 'enrol_with_code' || (isRequired(state, policy, now) && offered.length === 0),
      proof: offered.length > 0 ? 'none' : proof.proofOf(tenant, state, now),
      stepUpAgeSeconds: age === undefined ? null : seconds(age),
      notices: (await records.notices.shown(tenant.id, ask.by.subject)).map(({ id, message, at }) => ({
        id,
        message,
        at
      }))
    }
  }

  return {
    settings,
    ...createTotpEnrolment(need, changes, slots, proof, backupCodes),
    ...createEmailEnrolment(need, changes, slots, proof),
    newBackupCodes: backupCodes.newBackupCodes,
    sendProof: proof.sendProof,
    dismissNotice: async (tenant, ask, id) => {
      const now = clock.now()
      const state = await records.subject(ask.by, now)
      if (loginStatus(factors, state, tenant.policy, now) === 'verification_required') {
        throw new Problem('login_required')
      }
      await records.notices.dismiss(tenant.id, ask.by.subject, id, now)
    }
  }
}
