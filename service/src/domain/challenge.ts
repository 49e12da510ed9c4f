// Challenges are opened, shown, and sent a code by e-mail; answer.ts answers them.

import { maskAddress } from './addresses.ts'
import { createAnswer } from './answer.ts'
import type { Attempts } from './attempt.ts'
import { askedOf, hasLogin, loginStatus, methodsOf } from './assurance.ts'
import { mailedHash, mailedMinutes } from './factors/email.ts'
import { purposeOf, type Ask, type Factor, type Purpose, type SubjectState, type Verdict } from './model.ts'
import { eventOf, whoAsked, type Notices } from './notices.ts'
import { seconds, type Tenant } from './policy.ts'
import type { Opened, Pending } from './pending.ts'
import type { Clock, Lane, Mailer, Randomness, Sealer } from './ports.ts'
import { Problem } from './problems.ts'
import type { Records } from './records.ts'

/** A challenge as callers and pages see it. Seconds are whole. */
export interface ChallengeView {
  readonly id: string
  readonly purpose: Purpose
  /** Names of the factors it can be answered with, best first. */
  readonly methods: readonly string[]
  readonly attemptsLeft: number
  readonly expiresInSeconds: number
  /** How long TOTP and e-mail codes are not looked at; 0 if they are. */
  readonly waitForSeconds: number
  /** TOTP and e-mail are locked; only a backup code opens. */
  readonly locked: boolean
  readonly maskedAddress: string | null
  /** A code was mailed for this challenge. */
  readonly mailed: boolean
  readonly resendInSeconds: number
  readonly returnPath: string | null
}

export type OpenOutcome =
  | { readonly status: 'open'; readonly challenge: ChallengeView }
  /** Nothing is asked of this subject: pass. Audited with factor `none` for a step-up. */
  | { readonly status: 'not_required' }
  /** Login only: this session and browser passed already. */
  | { readonly status: 'verified' }
  | { readonly status: 'enrolment_required' }

export interface Challenges {
  /**
   * The live challenge of `by` and purpose, or a new one. A new one whose only method is e-mail sends a code. Step-up
   * before login throws Problem `login_required`.
   */
  readonly open: (
    tenant: Tenant,
    ask: Ask,
    options: {
      readonly purpose: Purpose
      readonly returnPath?: string | undefined
      readonly held?: string | undefined
    }
  ) => Promise<OpenOutcome>
  /** `undefined`: gone, or not of `by`. */
  readonly view: (tenant: Tenant, ask: Ask, id: string) => Promise<ChallengeView | undefined>
  /** Queues a mail. Problems: challenge_gone, method_not_available, address_missing, waiting (with `retry_after`). */
  readonly send: (tenant: Tenant, ask: Ask, id: string) => Promise<ChallengeView>
  readonly answer: (
    tenant: Tenant,
    ask: Ask,
    id: string,
    code: string,
    options: {
      /** Keyed name of the browser that the login assurance will belong to. */
      readonly nextBrowser?: string | undefined
      readonly idempotencyKey?: string | undefined
      /** false: leave no step-up behind (`maxAge` 0). */
      readonly record?: boolean | undefined
    }
  ) => Promise<Verdict>
}

export interface ChallengesNeed {
  readonly records: Records
  readonly pending: Pending
  readonly sealer: Sealer
  readonly randomness: Randomness
  readonly mailer: Mailer
  readonly clock: Clock
  readonly notices: Notices
  readonly attempts: Attempts
  /** Where backup codes are answered: they are rare, so a flood of them must not hold up the codes of everybody. */
  readonly rarely: Lane
  readonly factors: readonly Factor[]
}

/** A live slot under the subject's epoch, and the waits around it; `undefined`: gone, or not of `by`. */
export type LiveOf = (
  tenant: Tenant,
  ask: Ask,
  state: SubjectState,
  id: string
) => Promise<Omit<Opened, 'fresh'> | undefined>

export function createChallenges (need: ChallengesNeed): Challenges {
  const { records, pending, sealer, randomness, mailer, clock, notices, factors } = need

  const viewOf = (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    live: Omit<Opened, 'fresh'>,
    purpose: Purpose
  ): ChallengeView => {
    const methods = methodsOf(factors, state, tenant.policy, purpose)
    const mails = methods.some(factor => factor.name === 'email')
    const address = mails ? notices.codeAddress(ask.by, state) : undefined
    return {
      id: live.slot.id,
      purpose,
      methods: methods.map(factor => factor.name),
      attemptsLeft: live.slot.attemptsLeft,
      expiresInSeconds: Math.floor((live.slot.expiresAt - live.now) / 1000),
      waitForSeconds: seconds(live.waitForMs),
      locked: state.lockedAt !== null,
      maskedAddress: address === undefined ? null : maskAddress(address),
      mailed: live.slot.mailedHash !== null,
      resendInSeconds: mails ? seconds(live.mailWaitMs) : 0,
      returnPath: live.slot.returnPath
    }
  }

  const liveOf: LiveOf = async (tenant, ask, state, id) => {
    const read = await pending.read(ask.by, id, { browserKnown: state.browserKnown, limits: tenant.policy.limits })
    return read?.slot.epoch === state.epoch ? read : undefined
  }

  const sendCode = async (tenant: Tenant, ask: Ask, state: SubjectState, id: string, address: string) => {
    const code = randomness.digits(6)
    const sent = await pending.send(ask.by, id, {
      codeHash: mailedHash(sealer.keyedHash, id, code),
      browserKnown: state.browserKnown,
      limits: tenant.policy.limits
    })
    if (sent.sent !== 'sent') return sent
    const queued = mailer.code(
      {
        tenant: tenant.id,
        to: address,
        locale: ask.about.locale ?? state.locale ?? undefined,
        message: 'login_code',
        values: {
          console: tenant.name,
          code,
          minutes: String(mailedMinutes(sent.slot, sent.now, tenant.policy.limits.challengeSeconds)),
          ...whoAsked(ask.about)
        }
      },
      sent.slot.expiresAt
    )
    if (!queued) throw new Problem('unavailable', { retry_after: 5 })
    return sent
  }

  const open: Challenges['open'] = async (tenant, ask, { purpose, returnPath, held }) => {
    const { by } = ask
    const { policy } = tenant
    const now = clock.now()
    const state = await records.subject(by, now)
    const status = loginStatus(factors, state, policy, now)
    const demand = askedOf(factors, state, policy, now)[purpose]
    if (purpose === 'step_up' && status === 'verification_required') throw new Problem('login_required')
    const methods = methodsOf(factors, state, tenant.policy, purpose)
    if (demand === 'pass') {
      if (purpose === 'step_up') {
        await records.writeEvent(
          tenant.id,
          eventOf(ask, { kind: 'step_up', purpose, factor: 'none', outcome: 'accepted' }),
          now
        )
      }
      return { status: 'not_required' }
    }
    // Who must enrol and holds a check answers with it first: a thief of the password must not enrol past it.
    if (demand !== 'verify' && (purpose === 'login' || methods.length === 0)) return { status: 'enrolment_required' }
    if (purpose === 'login' && held === undefined && hasLogin(state, now)) return { status: 'verified' }
    const opened = await pending.open(by, purpose, {
      epoch: state.epoch,
      browserKnown: state.browserKnown,
      inARow: state.inARow,
      limits: policy.limits,
      lifetimeMs: policy.limits.challengeSeconds * 1000,
      returnPath,
      held
    })
    await notices.remember(tenant, ask, state, opened.now)
    const address = methods.some(factor => factor.name === 'email') ? notices.codeAddress(by, state) : undefined
    const onlyMail =
      address !== undefined && methods.every(factor => factor.name === 'email' || factor.strength === 'backup')
    let live = opened
    if (opened.fresh && onlyMail && state.lockedAt === null) {
      const sent = await sendCode(tenant, ask, state, opened.slot.id, address)
      const mailWaitMs = sent.sent === 'waiting' ? sent.waitForMs : policy.limits.mailResendSeconds * 1000
      live = { ...opened, slot: sent.sent === 'sent' ? sent.slot : opened.slot, mailWaitMs }
    }
    return { status: 'open', challenge: viewOf(tenant, ask, state, live, purpose) }
  }

  return {
    open,
    answer: createAnswer(need, liveOf),

    view: async (tenant, ask, id) => {
      const state = await records.subject(ask.by, clock.now())
      const live = await liveOf(tenant, ask, state, id)
      const purpose = live === undefined ? undefined : purposeOf(live.slot.kind)
      return live === undefined || purpose === undefined ? undefined : viewOf(tenant, ask, state, live, purpose)
    },

    send: async (tenant, ask, id) => {
      const state = await records.subject(ask.by, clock.now())
      const live = await liveOf(tenant, ask, state, id)
      const purpose = live === undefined ? undefined : purposeOf(live.slot.kind)
      if (live === undefined || purpose === undefined) throw new Problem('challenge_gone')
      if (!methodsOf(factors, state, tenant.policy, purpose).some(factor => factor.name === 'email')) {
        throw new Problem('method_not_available')
      }
      if (state.lockedAt !== null) throw new Problem('locked')
      const address = notices.codeAddress(ask.by, state)
      if (address === undefined) throw new Problem('address_missing')
      const sent = await sendCode(tenant, ask, state, id, address)
      switch (sent.sent) {
        case 'gone':
          throw new Problem('challenge_gone')
        case 'waiting':
          throw new Problem('waiting', { retry_after: seconds(sent.waitForMs) })
        case 'sent':
          return viewOf(
            tenant,
            ask,
            state,
            { ...live, slot: sent.slot, now: sent.now, mailWaitMs: tenant.policy.limits.mailResendSeconds * 1000 },
            purpose
          )
        default:
          return sent satisfies never
      }
    }
  }
}
