// The one clock of all replicas: this process counts, and the store that they share says from where.

import type { Clock } from '../domain/ports.ts'

/** An answer that took longer says too little of now. */
const LONGEST_ASK_MS = 1_000
/** Further off than this an operator is told. */
const OFF_MS = 5_000

export interface SharedClock extends Clock {
  /** Asks the store for its time. The last answer goes on counting where it cannot tell. */
  readonly set: () => Promise<void>
  /** How far this process's own clock is ahead of the shared one. */
  readonly offMs: () => number
  /** Rejects while they are more than five seconds apart. */
  readonly check: () => Promise<void>
}

export function createSharedClock (own: Clock, ask: () => Promise<number>): SharedClock {
  // Counted by a clock that nobody sets: a jump of the host's moves nothing here.
  let startedAt = own.now() - performance.now()
  const now = (): number => Math.round(startedAt + performance.now())
  const offMs = (): number => own.now() - now()
  return {
    now,
    offMs,
    set: async () => {
      const asked = performance.now()
      const time = await ask()
      const answered = performance.now()
      if (answered - asked > LONGEST_ASK_MS) return
      startedAt = time - (asked + answered) / 2
    },
    check: async () => {
      if (Math.abs(offMs()) > OFF_MS) throw new Error('the clock of this host is off')
    }
  }
}
