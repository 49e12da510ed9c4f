// What may `by` do now: the table of what is asked of whom; how assurances end.

import { FACTORS } from './factors/index.ts'
import {
  totpStatus,
  type Ask,
  type By,
  type Factor,
  type LoginStatus,
  type Purpose,
  type SubjectState,
  type TotpStatus
} from './model.ts'
import { seconds, type Policy, type Tenant } from './policy.ts'
import type { Pending } from './pending.ts'
import type { Clock } from './ports.ts'
import type { Records } from './records.ts'

/** The answer to the gate's question. Seconds are whole. */
export interface GateAnswer {
  readonly status: LoginStatus
  readonly login: { readonly expiresInSeconds: number } | null
  readonly stepUp: { readonly ageSeconds: number; readonly factor: string } | null
  readonly totp: TotpStatus
  readonly change: number
}

export interface Assurances {
  /** The gate's question. Ends a record of this session that names another subject; changes nothing else. */
  readonly question: (tenant: Tenant, ask: Ask, exempt: string | undefined) => Promise<GateAnswer>
  /** The session moved to a new name (the console rotated its id). */
  readonly move: (tenant: Tenant, session: string, to: string) => Promise<boolean>
  /** Log-out. */
  readonly end: (tenant: Tenant, session: string, requestId: string) => Promise<void>
  /** Password changed or reset: ends every assurance and wait of the subject but `keep`'s. */
  readonly credentialsChanged: (
    tenant: Tenant,
    subject: string,
    requestId: string,
    keep: By | undefined
  ) => Promise<void>
}

/** What a subject has, as the table of requirements sees it. */
export type Have = 'nothing' | 'reset' | 'check' | 'factor'
/** What is asked: nothing, a code, an enrolment, or an enrolment that an enrolment code opens. */
export type Asked = 'pass' | 'verify' | 'enrol' | 'enrol_with_code'

type Row = { readonly [purpose in Purpose]: Asked }
const both = (asked: Asked): Row => ({ login: asked, step_up: asked })

/** The table: what is asked of whom. `stepUp: totp` and `email: counts` are a tenant's settings. */
export function asked (have: Have, required: boolean, policy: Pick<Policy, 'email' | 'stepUp'>): Row {
  switch (have) {
    case 'nothing':
      return both(required ? 'enrol' : 'pass')
    case 'reset':
      return both('enrol_with_code')
    case 'check':
      if (required && policy.email !== 'counts') return both('enrol')
      return { login: 'verify', step_up: policy.stepUp === 'totp' ? 'enrol' : 'verify' }
    case 'factor':
      return both('verify')
    default:
      return have satisfies never
  }
}

/** The factors that this subject can answer with now, best first. */
export function offeredFactors (factors: readonly Factor[], state: SubjectState, policy: Policy): readonly Factor[] {
  const offered = factors.filter(
    factor => factor.offered(state) && (factor.strength !== 'check' || policy.email !== 'off')
  )
  // Backup codes only stand in for something else.
  return offered.some(factor => factor.strength !== 'backup') ? offered : []
}

/** The methods of a purpose. A tenant may ask for more than the e-mail check where settings change. */
export function methodsOf (
  factors: readonly Factor[],
  state: SubjectState,
  policy: Policy,
  purpose: Purpose
): readonly Factor[] {
  return offeredFactors(factors, state, policy).filter(
    factor => purpose === 'login' || policy.stepUp === 'any' || factor.strength !== 'check'
  )
}

export function have (factors: readonly Factor[], state: SubjectState, policy: Policy): Have {
  const offered = offeredFactors(factors, state, policy)
  if (offered.some(factor => factor.strength === 'factor')) return 'factor'
  if (state.fenced) return 'reset'
  return offered.length > 0 ? 'check' : 'nothing'
}

export function isRequired (state: SubjectState, policy: Policy, now: number): boolean {
  if (policy.require === 'everyone' && (policy.requireFrom === null || policy.requireFrom <= now)) return true
  return state.requiredFrom !== null && state.requiredFrom <= now
}

/** What is asked of a subject now, before looking at what the session passed. */
export function askedOf (factors: readonly Factor[], state: SubjectState, policy: Policy, now: number): Row {
  return asked(have(factors, state, policy), isRequired(state, policy, now), policy)
}

/** Where the login of this session and browser stands. */
export function loginStatus (
  factors: readonly Factor[],
  state: SubjectState,
  policy: Policy,
  now: number
): LoginStatus {
  const { login } = askedOf(factors, state, policy, now)
  if (login === 'pass') return 'not_required'
  if (login !== 'verify') return 'enrolment_required'
  return hasLogin(state, now) ? 'verified' : 'verification_required'
}

export function hasLogin (state: SubjectState, now: number): boolean {
  return state.assurance?.loginExpiresAt != null && state.assurance.loginExpiresAt > now
}

/** Age of a step-up that routes may accept, in milliseconds. One made during a lock is good for enrolment only. */
export function stepUpAge (state: SubjectState, policy: Policy, now: number, recovery = false): number | undefined {
  const made = state.assurance
  if (made?.stepUpAt == null || (made.stepUpScope === 'recovery' && !recovery)) return undefined
  const age = Math.max(0, now - made.stepUpAt)
  return age <= policy.limits.stepUpSeconds * 1000 ? age : undefined
}

export function createAssurances ({
  records,
  pending,
  clock,
  factors = FACTORS
}: {
  readonly records: Records
  readonly pending: Pending
  readonly clock: Clock
  readonly factors?: readonly Factor[]
}): Assurances {
  return {
    question: async (tenant, ask, exempt) => {
      const now = clock.now()
      const { state, change } = await records.question(ask.by, now)
      const { policy } = tenant
      const status = loginStatus(factors, state, policy, now)
      const exempted = exempt !== undefined && policy.exempt.includes(exempt) && status !== 'enrolment_required'
      const age = stepUpAge(state, policy, now)
      const expiresAt = state.assurance?.loginExpiresAt
      return {
        // Nothing was verified, so there is no end to it either.
        status: exempted && status === 'verification_required' ? 'not_required' : status,
        login:
          status === 'verified' && expiresAt != null
            ? { expiresInSeconds: Math.floor((expiresAt - now) / 1000) }
            : null,
        stepUp: age === undefined ? null : { ageSeconds: seconds(age), factor: state.assurance?.stepUpFactor ?? '' },
        totp: totpStatus(state, now, policy.limits.totpExpiresDays),
        change
      }
    },

    move: async (tenant, session, to) => await records.move({ tenant: tenant.id, session }, to, clock.now()),

    end: async (tenant, session, requestId) => {
      const now = clock.now()
      const subject = await records.subjectOf(tenant.id, session, now)
      await records.endSession(tenant.id, session, now, {
        kind: 'logout',
        subject: subject ?? '',
        outcome: 'done',
        actor: 'subject',
        requestId
      })
    },

    credentialsChanged: async (tenant, subject, requestId, keep) => {
      await records.raiseEpoch(tenant.id, subject, {
        keep,
        clearWaits: true,
        now: clock.now(),
        event: { kind: 'credentials_changed', subject, outcome: 'done', actor: 'console', requestId }
      })
      await pending.clearBudget(tenant.id, subject)
    }
  }
}
