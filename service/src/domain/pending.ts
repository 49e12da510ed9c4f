// The store of what expires: challenges, pending enrolments, waits and quotas. Each method is one whole step and says
// what happened; nothing above an adapter reads and then writes. Implementations pass test/contracts.

import type { Budget, By, Slot, SlotKind } from './model.ts'
import type { Limits } from './policy.ts'

/** What an attempt took, so that it can be given back. Opaque above the adapter. */
export interface Receipt {
  readonly by: By
  readonly slot: string
  readonly budget: Budget
  readonly browserKnown: boolean
  /** The failure in a row that this attempt was booked as. */
  readonly booked: number
}

export type Taken =
  | { readonly taken: 'taken'; readonly slot: Slot; readonly now: number; readonly receipt: Receipt }
  | { readonly taken: 'waiting'; readonly waitForMs: number; readonly now: number }
  /** The slot's attempts are used up; it is gone for good. */
  | { readonly taken: 'spent'; readonly now: number }
  | { readonly taken: 'gone'; readonly now: number }

export type Sent =
  | { readonly sent: 'sent'; readonly slot: Slot; readonly now: number }
  | { readonly sent: 'waiting'; readonly waitForMs: number; readonly now: number }
  | { readonly sent: 'gone'; readonly now: number }

export interface OpenOptions {
  /** From the subject's state. A live slot of another epoch MUST be replaced. */
  readonly epoch: number
  readonly browserKnown: boolean
  /**
   * Failures in a row as SQL has them. A missing count in motion is set to it; a higher one stays while attempts may
   * be in flight (10 s).
   */
  readonly inARow: number
  readonly limits: Limits
  readonly lifetimeMs: number
  /** A new one replaces the live slot's. */
  readonly returnPath?: string | undefined
  /** Only used when the slot is new. */
  readonly payload?: string | undefined
  /** Replace the live slot instead of returning it (another address to prove). */
  readonly replace?: boolean | undefined
  /** Always a slot of its own, not the one of `by`; returned once with the accepted verification. */
  readonly held?: string | undefined
}

export interface Opened {
  readonly slot: Slot
  readonly now: number
  /** It was made by this call. */
  readonly fresh: boolean
  /** The subject's (or known browser's) wait, 0 if none. */
  readonly waitForMs: number
  /** How long until a code may be mailed again. */
  readonly mailWaitMs: number
}

/**
 * Motion: what expires. Redis, or one process. An implementation MUST make each method atomic for its subject across
 * replicas, MUST give every key a time to live, and MUST throw Problem `unavailable` within its time-out when it cannot
 * tell what happened; it never answers from a guess.
 */
export interface Pending {
  /** The live slot of `by` and kind, or a new one. */
  readonly open: (by: By, kind: SlotKind, options: OpenOptions) => Promise<Opened>
  /**
   * Looks at a live slot; `undefined` if it is gone or not of `by`. Counts nothing. The waits are those that an attempt
   * and a mail with these options would meet.
   */
  readonly read: (
    by: By,
    id: string,
    options: { readonly browserKnown: boolean; readonly limits: Limits }
  ) => Promise<
    { readonly slot: Slot; readonly now: number; readonly waitForMs: number; readonly mailWaitMs: number } | undefined
  >
  /** The id of the live slot of `by` and kind, if there is one. */
  readonly find: (by: By, kind: SlotKind) => Promise<string | undefined>
  /**
   * Slot and budget in one step: refuses while the budget waits, otherwise books a failure in both before the code is
   * looked at. Budget `backup_code` spends the slot and an allowance an hour per subject and browser, never the
   * subject's.
   */
  readonly takeAttempt: (
    by: By,
    id: string,
    budget: Budget,
    options: { readonly browserKnown: boolean; readonly inARow: number; readonly limits: Limits }
  ) => Promise<Taken>
  /**
   * After `accepted` and `used`. `accepted` ends the slot and the budget's count and wait; `used` undoes this attempt
   * and the wait it began.
   */
  readonly giveBack: (receipt: Receipt, outcome: 'accepted' | 'used') => Promise<void>
  /**
   * Records a mailed code as the newest of the slot, if the resend wait, the hourly and the daily quota and the
   * budget's wait allow.
   */
  readonly send: (
    by: By,
    id: string,
    options: { readonly codeHash: string; readonly browserKnown: boolean; readonly limits: Limits }
  ) => Promise<Sent>
  /** The held answer of a slot, which it outlives for an equal repeat; `undefined` for whoever is not its `by`. */
  readonly held: (by: By, id: string) => Promise<string | undefined>
  /** Ends the slot. */
  readonly end: (by: By, id: string) => Promise<void>
  /** Forgets all waits and counts of a subject (administration, credentials changed). */
  readonly clearBudget: (tenant: string, subject: string) => Promise<void>
  /** Now, by the clock that this store holds authoritative. */
  readonly now: () => Promise<number>
  /** Rejects when the store cannot be used. */
  readonly check: () => Promise<void>
  readonly close: () => Promise<void>
}
