// One attempt: booked as a failure before the code is looked at, and what follows when it was wrong.
// Every code of every purpose goes through here, so they share one budget.

import type { Ask, Budget, Event, Slot, SlotKind, SubjectState, Verdict } from './model.ts'
import { eventOf, type Notices } from './notices.ts'
import { seconds, type Tenant } from './policy.ts'
import type { Pending, Receipt } from './pending.ts'
import type { Records } from './records.ts'

const REFUSED_MS = 60_000
/** Subjects of which it is remembered that a refusal was recorded. */
const RECORDED = 10_000

/** A verdict that ends an attempt without success. */
export type Refused = Exclude<Verdict, { verdict: 'accepted' }>

export type Attempt =
  | { readonly attempt: 'booked'; readonly slot: Slot; readonly now: number; readonly receipt: Receipt }
  | { readonly attempt: 'refused'; readonly verdict: Refused }

export interface Attempts {
  /** Books an attempt on a slot of one of `kinds`, made under the subject's epoch. */
  readonly take: (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    id: string,
    budget: Budget,
    kinds: readonly SlotKind[]
  ) => Promise<Attempt>
  /** Writes a wrong answer; at the cap the subject is locked. */
  readonly wrong: (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    slot: Slot,
    now: number,
    budget: Budget,
    clockOffSeconds?: number,
    factor?: string
  ) => Promise<Refused>
  /** Keeps a record of what was not looked at, or used up before; of the same kind at most one a minute and subject. */
  readonly refused: (ask: Ask, reason: 'waiting' | 'locked' | 'used', now: number, event?: Partial<Event>) => Promise<void>
  /** Takes the booking back. Unawaited: if it is lost, the next open brings the count from SQL. */
  readonly giveBack: (receipt: Receipt, outcome: 'accepted' | 'used') => void
}

export function createAttempts ({
  records,
  pending,
  notices
}: {
  readonly records: Records
  readonly pending: Pending
  readonly notices: Notices
}): Attempts {
  /** When a refusal of this kind was last recorded; a flood of refusals must not fill the log. */
  const recorded = new Map<string, number>()

  return {
    refused: async (ask, reason, now, event = {}) => {
      const key = JSON.stringify([ask.by.tenant, ask.by.subject, reason])
      if (now - (recorded.get(key) ?? Number.NEGATIVE_INFINITY) < REFUSED_MS) return
      recorded.delete(key)
      recorded.set(key, now)
      const oldest = recorded.keys().next().value
      if (recorded.size > RECORDED && oldest !== undefined) recorded.delete(oldest)
      await records.writeEvent(
        ask.by.tenant,
        eventOf(ask, { kind: 'verification', outcome: 'refused', reason, ...event }),
        now
      )
    },

    take: async (tenant, ask, state, id, budget, kinds) => {
      const taken = await pending.takeAttempt(ask.by, id, budget, {
        browserKnown: state.browserKnown,
        inARow: state.inARow,
        limits: tenant.policy.limits
      })
      switch (taken.taken) {
        case 'waiting':
          return { attempt: 'refused', verdict: { verdict: 'waiting', waitFor: seconds(taken.waitForMs) } }
        case 'spent':
        case 'gone':
          return { attempt: 'refused', verdict: { verdict: 'gone' } }
        case 'taken': {
          const { slot, now, receipt } = taken
          if (kinds.includes(slot.kind) && slot.epoch === state.epoch) {
            return { attempt: 'booked', slot, now, receipt }
          }
          await pending.giveBack(receipt, 'used')
          return { attempt: 'refused', verdict: { verdict: 'gone' } }
        }
        default:
          return taken satisfies never
      }
    },

    wrong: async (tenant, ask, state, slot, now, budget, clockOffSeconds, factor) => {
      const rejected = { verdict: 'rejected', left: slot.attemptsLeft, clockOffSeconds } as const
      const event = eventOf(ask, {
        kind: 'verification', purpose: slot.kind, factor, outcome: 'rejected', reason: 'wrong_code'
      })
      // Backup codes have no lock: whoever keeps failing would hold their owner out.
      if (budget !== 'subject') {
        await records.writeEvent(ask.by.tenant, event, now)
        return rejected
      }
      const { locked } = await records.reject(ask.by, {
        now,
        browserKnown: state.browserKnown,
        limits: tenant.policy.limits,
        event,
        lockNotices: notices.to(tenant, ask, state, 'locked')
      })
      if (!locked) return rejected
      notices.written()
      return { verdict: 'locked' }
    },

    giveBack: (receipt, outcome) => {
      pending.giveBack(receipt, outcome).catch(() => {})
    }
  }
}
