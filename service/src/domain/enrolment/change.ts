// The right to change factors, and the one way a change is carried out.

import { loginStatus, offeredFactors, stepUpAge } from '../assurance.ts'
import type { NoticeMessage } from '../messages.ts'
import { sealContext, type Ask, type Authenticator, type SubjectState } from '../model.ts'
import { eventOf } from '../notices.ts'
import type { Tenant } from '../policy.ts'
import { Problem } from '../problems.ts'
import type { FactorChange, FactorChangeResult, Notice } from '../records.ts'
import type { EnrolmentsNeed } from './model.ts'

const DAY_MS = 86_400_000

/** By what right factors may be changed now. */
export type Right = { readonly right: 'step_up'; readonly factors: readonly string[] } | { readonly right: 'first' }

export function createFactorChanges ({ records, sealer, randomness, notices, factors }: EnrolmentsNeed) {
  /**
   * The right to change factors, or the problem that stands in the way. `recovery`: a backup code used during a lock
   * suffices.
   */
  const rightOf = (tenant: Tenant, state: SubjectState, now: number, recovery: boolean): Right => {
    if (loginStatus(factors, state, tenant.policy, now) === 'verification_required') {
      throw new Problem('login_required')
    }
    const offered = offeredFactors(factors, state, tenant.policy)
    if (offered.length === 0) return { right: 'first' }
    if (stepUpAge(state, tenant.policy, now, recovery) === undefined) throw new Problem('step_up_required')
    return { right: 'step_up', factors: offered.map(factor => factor.name) }
  }

  const row = (ask: Ask, factor: string, now: number, secret: (id: string) => string, counter = 0): Authenticator => {
    const id = Buffer.from(randomness.bytes(16)).toString('base64url')
    return { id, factor, secret: secret(id), counter, confirmedAt: now }
  }
  const sealedRow = (ask: Ask, factor: string, now: number, secret: string, counter = 0): Authenticator =>
    row(
      ask,
      factor,
      now,
      id => sealer.seal(secret, sealContext('authenticator', ask.by.tenant, ask.by.subject, factor, id)),
      counter
    )

  /** Carries out a change of factors; what forbids it becomes a problem. */
  const change = async (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    now: number,
    right: Right,
    what: Pick<FactorChange, 'remove' | 'add' | 'record' | 'unlock' | 'slot' | 'notices'> & {
      readonly kind: string
      readonly factor: string
      readonly recovery: boolean
      readonly enrolmentCodeHash?: string | null
    }
  ): Promise<Extract<FactorChangeResult, { result: 'changed' | 'gone' }>> => {
    const { kind, factor, recovery, enrolmentCodeHash = null, ...rest } = what
    const result = await records.changeFactors({
      by: ask.by,
      now,
      epoch: state.epoch,
      allowedBy:
        right.right === 'first'
          ? { by: 'first', enrolmentCodeHash }
          : { by: 'step_up', stepUpMs: tenant.policy.limits.stepUpSeconds * 1000, factors: right.factors, recovery },
      event: eventOf(ask, { kind, factor, outcome: 'done' }),
      ...rest
    })
    switch (result.result) {
      case 'changed':
        notices.written()
        return result
      case 'gone':
        return result
      case 'step_up_required':
        throw new Problem('step_up_required')
      case 'proof_required':
        throw new Problem('proof_required')
      default:
        return result satisfies never
    }
  }

  const tell = (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    message: NoticeMessage,
    values: Readonly<Record<string, string>> = {},
    also: readonly string[] = []
  ): readonly Notice[] => notices.to(tenant, ask, state, message, values, also)

  const recordFor = (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    now: number,
    confirmed?: { factor: string; nextBrowser: string | undefined }
  ): FactorChange['record'] => {
    const loginExpiresAt = now + tenant.policy.limits.loginDays * DAY_MS
    if (confirmed !== undefined) {
      return {
        factor: confirmed.factor,
        browser: confirmed.nextBrowser ?? ask.by.browser,
        login: true,
        stepUp: true,
        loginExpiresAt
      }
    }
    // The session that made the change stays logged in as long as it would have; its step-up is spent.
    const { assurance } = state
    if (assurance?.loginExpiresAt == null) return null
    return {
      factor: assurance.loginFactor ?? 'none',
      browser: ask.by.browser,
      login: true,
      stepUp: false,
      loginExpiresAt: assurance.loginExpiresAt
    }
  }

  return { rightOf, row, sealedRow, change, tell, recordFor }
}

export type FactorChanges = ReturnType<typeof createFactorChanges>
