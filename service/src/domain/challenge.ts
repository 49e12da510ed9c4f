// Open, send, answer: the one path on which a code is ever accepted.

import { maskAddress } from './addresses.ts'
import type { Attempts, Refused } from './attempt.ts'
import { askedOf, hasLogin, loginStatus, offeredFactors } from './assurance.ts'
import { mailedHash, mailedMinutes } from './factors/email.ts'
import { FACTORS } from './factors/index.ts'
import { nextStepIn } from './factors/totp.ts'
import type {
  Accepted,
  Ask,
  Budget,
  Factor,
  MatchContext,
  Purpose,
  Slot,
  SlotKind,
  SubjectState,
  Use,
  Verdict
} from './model.ts'
import { eventOf, whoAsked, type Notices } from './notices.ts'
import { seconds, type Tenant } from './policy.ts'
import type { Clock, Lane, Mailer, Pending, Randomness, Receipt, Records, Sealer } from './ports.ts'
import { Problem } from './problems.ts'

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

/** Within this time an equal repeat of an answer gets the recorded result. */
const REPEAT_MS = 60_000
const DAY_MS = 86_400_000

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
  readonly factors?: readonly Factor[]
}

const purposeOf = (kind: SlotKind): Purpose | undefined => (kind === 'login' || kind === 'step_up' ? kind : undefined)

/** What a code was found to be, after an attempt was taken for it. */
type Looked =
  | {
    readonly looked: 'right'
    readonly use: Use
    readonly factor: Factor
    readonly slot: Slot
    readonly receipt: Receipt
    readonly now: number
  }
  | {
    readonly looked: 'wrong'
    readonly slot: Slot
    readonly budget: Budget
    readonly factor: string | undefined
    readonly now: number
  }
  | { readonly looked: 'refused'; readonly verdict: Refused }

export function createChallenges ({
  records,
  pending,
  sealer,
  randomness,
  mailer,
  clock,
  notices,
  attempts,
  rarely,
  factors = FACTORS
}: ChallengesNeed): Challenges {
  /** The methods of a purpose. A tenant may ask for more than the e-mail check where settings change. */
  const methodsOf = (tenant: Tenant, state: SubjectState, purpose: Purpose): readonly Factor[] =>
    offeredFactors(factors, state, tenant.policy).filter(
      factor => purpose === 'login' || tenant.policy.stepUp === 'any' || factor.strength !== 'check'
    )

  const viewOf = (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    live: { slot: Slot; now: number; waitForMs: number; mailWaitMs: number },
    purpose: Purpose
  ): ChallengeView => {
    const methods = methodsOf(tenant, state, purpose)
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

  const readSlot = async (tenant: Tenant, ask: Ask, state: SubjectState, id: string) =>
    await pending.read(ask.by, id, { browserKnown: state.browserKnown, limits: tenant.policy.limits })

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

  /** Refused without counting; whoever does not hold the challenge, or was reset since, learns only that it is gone. */
  const uncounted = async (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    id: string,
    refused: 'malformed' | 'locked'
  ): Promise<Looked> => ({
    looked: 'refused',
    verdict: (await readSlot(tenant, ask, state, id))?.slot.epoch === state.epoch ? { verdict: refused } : { verdict: 'gone' }
  })

  /** Takes an attempt, then looks. The order is the rule: nothing is compared before a failure is booked for it. */
  const look = async (tenant: Tenant, ask: Ask, state: SubjectState, id: string, typed: string): Promise<Looked> => {
    const offered = offeredFactors(factors, state, tenant.policy)
      .map(factor => ({ factor, code: factor.normalise(typed) }))
      .filter(({ factor, code }) => factor.accepts.test(code))
    const first = offered[0]
    if (first === undefined) return await uncounted(tenant, ask, state, id, 'malformed')
    const candidates = offered.filter(({ factor }) => factor.budget === first.factor.budget)
    const { limits } = tenant.policy
    if (state.lockedAt !== null && candidates.every(({ factor }) => !factor.whileLocked)) {
      return await uncounted(tenant, ask, state, id, 'locked')
    }
    const attempt = await attempts.take(tenant, ask, state, id, first.factor.budget, ['login', 'step_up'])
    if (attempt.attempt === 'refused') return { looked: 'refused', verdict: attempt.verdict }
    const { slot, now, receipt } = attempt
    const allowed = methodsOf(tenant, state, purposeOf(slot.kind) ?? 'step_up')
    try {
      for (const { factor, code } of candidates) {
        if (!allowed.includes(factor)) continue
        const context: MatchContext = {
          own: state.authenticators.filter(own => own.factor === factor.name),
          slot,
          now,
          window: limits.totpWindowSteps,
          unseal: sealer.unseal,
          keyedHash: sealer.keyedHash,
          scrypt: sealer.scrypt
        }
        const use = await factor.match(code, context)
        if (use !== undefined) return { looked: 'right', use, factor, slot, receipt, now }
      }
    } catch (error) {
      // Our fault (a full queue, an unknown key): the person loses no attempt by it.
      await pending.giveBack(receipt, 'used')
      throw error
    }
    const tried = candidates.filter(({ factor }) => allowed.includes(factor))
    return {
      looked: 'wrong',
      slot,
      budget: first.factor.budget,
      // A code of a form that several take says of none that it was tried.
      factor: tried.length === 1 ? tried[0]?.factor.name : undefined,
      now
    }
  }

  /** The recorded result, for the same `by` with the same key within a minute of its success. */
  const repeated = async (
    tenant: Tenant,
    ask: Ask,
    id: string,
    key: string | undefined,
    nextBrowser: string | undefined
  ): Promise<Verdict | undefined> => {
    if (key === undefined) return undefined
    const before = await records.acceptedBefore(tenant.id, id)
    if (before === undefined || clock.now() - before.at > REPEAT_MS) return undefined
    const { by } = ask
    if (before.by.subject !== by.subject || before.by.session !== by.session || before.by.browser !== by.browser) {
      return undefined
    }
    if (before.idempotencyKey !== key) return undefined
    // The answer that carried the first next binding may have been lost with its cookie.
    if (nextBrowser !== undefined && before.purpose === 'login') await records.rebind(by, nextBrowser)
    return {
      verdict: 'accepted',
      accepted: {
        purpose: before.purpose,
        factor: before.factor,
        expiresInSeconds: Math.floor((before.expiresAt - clock.now()) / 1000),
        returnPath: before.returnPath,
        held: (await pending.held(by, id)) ?? null,
        boundToNext: nextBrowser !== undefined && before.purpose === 'login',
        backupCodesLeft: null
      }
    }
  }

  const isRare = (typed: string): boolean =>
    factors.some(factor => factor.strength === 'backup' && factor.accepts.test(factor.normalise(typed)))

  const answer: Challenges['answer'] = async (tenant, ask, id, typed, options) => {
    const look = async (): Promise<Verdict> => await answered(tenant, ask, id, typed, options)
    return isRare(typed) ? await rarely(ask.by, look) : await look()
  }

  const answered: Challenges['answer'] = async (
    tenant,
    ask,
    id,
    typed,
    { nextBrowser, idempotencyKey, record = true }
  ) => {
    const { by } = ask
    const { policy } = tenant
    const state = await records.subject(by, clock.now())
    const looked = await look(tenant, ask, state, id, typed)
    if (looked.looked === 'refused') {
      const refused = looked.verdict.verdict
      if (refused === 'waiting' || refused === 'locked') await attempts.refused(ask, refused, clock.now())
      return looked.verdict.verdict === 'gone'
        ? ((await repeated(tenant, ask, id, idempotencyKey, nextBrowser)) ?? looked.verdict)
        : looked.verdict
    }
    if (looked.looked === 'wrong') {
      return await attempts.wrong(
        tenant, ask, state, looked.slot, looked.now, looked.budget, undefined, looked.factor)
    }

    const { slot, receipt, now, factor, use } = looked
    const purpose = purposeOf(slot.kind) ?? 'step_up'
    // During a lock a backup code lets its session in, and opens the way to a new key or set of codes.
    const scope = state.lockedAt !== null && factor.whileLocked ? 'recovery' : 'any'
    const expiresAt =
      now + (purpose === 'login' ? policy.limits.loginDays * DAY_MS : policy.limits.stepUpSeconds * 1000)
    const bound = purpose === 'login' && nextBrowser !== undefined
    const left = state.authenticators.filter(own => own.factor === 'backup_code' && own.counter === 0).length - 1
    const accepting = records.accept({
      by,
      bindTo: bound ? nextBrowser : by.browser,
      slot,
      use,
      factor: factor.name,
      whileLocked: factor.whileLocked,
      record: record ? { purpose, expiresAt, scope } : null,
      idempotencyKey: idempotencyKey ?? null,
      now,
      event: eventOf(ask, { kind: 'verification', purpose, factor: factor.name, outcome: 'accepted' }),
      notices:
        factor.strength === 'backup'
          ? notices.to(tenant, ask, state, 'backup_code_used', { left: String(Math.max(0, left)) })
          : []
    })
    // Not written, or not known to be: the code was right, so nobody guesses by it, and its owner loses no attempt.
    const result = await accepting.catch((error: unknown) => {
      attempts.giveBack(receipt, 'used')
      throw error
    })
    switch (result.result) {
      case 'accepted': {
        if (factor.strength === 'backup') notices.written()
        const held = slot.kind === 'login' ? await pending.held(by, id) : undefined
        attempts.giveBack(receipt, 'accepted')
        const accepted: Accepted = {
          purpose,
          factor: factor.name,
          expiresInSeconds: Math.floor((expiresAt - now) / 1000),
          returnPath: slot.returnPath,
          held: held ?? null,
          boundToNext: bound && record,
          backupCodesLeft: factor.strength === 'backup' ? result.backupCodesLeft : null
        }
        return { verdict: 'accepted', accepted }
      }
      case 'used':
        attempts.giveBack(receipt, 'used')
        await attempts.refused(ask, 'used', now, { purpose, factor: factor.name })
        return { verdict: 'used', nextIn: factor.name === 'totp' ? nextStepIn(now) : 0 }
      case 'locked':
        attempts.giveBack(receipt, 'used')
        await attempts.refused(ask, 'locked', now, { purpose, factor: factor.name })
        return { verdict: 'locked' }
      case 'gone':
        attempts.giveBack(receipt, 'used')
        return (await repeated(tenant, ask, id, idempotencyKey, nextBrowser)) ?? { verdict: 'gone' }
      default:
        return result satisfies never
    }
  }

  const open: Challenges['open'] = async (tenant, ask, { purpose, returnPath, held }) => {
    const { by } = ask
    const { policy } = tenant
    const now = clock.now()
    const state = await records.subject(by, now)
    const status = loginStatus(factors, state, policy, now)
    const demand = askedOf(factors, state, policy, now)[purpose]
    if (purpose === 'step_up' && status === 'verification_required') throw new Problem('login_required')
    const methods = methodsOf(tenant, state, purpose)
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
    answer,

    view: async (tenant, ask, id) => {
      const state = await records.subject(ask.by, clock.now())
      const live = await readSlot(tenant, ask, state, id)
      const purpose = live === undefined ? undefined : purposeOf(live.slot.kind)
      if (live === undefined || purpose === undefined) return undefined
      return live.slot.epoch === state.epoch ? viewOf(tenant, ask, state, live, purpose) : undefined
    },

    send: async (tenant, ask, id) => {
      const state = await records.subject(ask.by, clock.now())
      const live = await readSlot(tenant, ask, state, id)
      const purpose = live === undefined ? undefined : purposeOf(live.slot.kind)
      if (live === undefined || purpose === undefined || live.slot.epoch !== state.epoch) {
        throw new Problem('challenge_gone')
      }
      if (!methodsOf(tenant, state, purpose).some(factor => factor.name === 'email')) {
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
