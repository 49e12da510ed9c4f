// Answer a challenge: the one path on which a code is ever accepted.

import { methodsOf, offeredFactors } from './assurance.ts'
import type { Refused } from './attempt.ts'
import type { Challenges, ChallengesNeed, LiveOf } from './challenge.ts'
import { nextStepIn } from './factors/totp.ts'
import {
  purposeOf,
  type Accepted,
  type Ask,
  type Budget,
  type Factor,
  type MatchContext,
  type Slot,
  type SubjectState,
  type Use,
  type Verdict
} from './model.ts'
import { eventOf } from './notices.ts'
import type { Tenant } from './policy.ts'
import type { Receipt } from './pending.ts'

/** Within this time an equal repeat of an answer gets the recorded result. */
const REPEAT_MS = 60_000
const DAY_MS = 86_400_000

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

/** How an answer becomes a verdict. `liveOf` reads a challenge without counting. */
export function createAnswer (
  { records, pending, sealer, clock, notices, attempts, rarely, factors }: ChallengesNeed,
  liveOf: LiveOf
): Challenges['answer'] {
  /** Refused without counting; whoever does not hold the challenge, or was reset since, learns only that it is gone. */
  const uncounted = async (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    id: string,
    refused: 'malformed' | 'locked'
  ): Promise<Looked> => ({
    looked: 'refused',
    verdict: (await liveOf(tenant, ask, state, id)) === undefined ? { verdict: 'gone' } : { verdict: refused }
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
    const allowed = methodsOf(factors, state, tenant.policy, purposeOf(slot.kind) ?? 'step_up')
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
          : [],
      seen: state
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

  const isRare = (typed: string): boolean =>
    factors.some(factor => factor.strength === 'backup' && factor.accepts.test(factor.normalise(typed)))

  return async (tenant, ask, id, typed, options) => {
    const answer = async (): Promise<Verdict> => await answered(tenant, ask, id, typed, options)
    return isRare(typed) ? await rarely(ask.by, answer) : await answer()
  }
}
