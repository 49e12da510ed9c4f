// What this process remembers of answered questions. A remembered answer may pass a request, it never refuses one.

import type { Answer, Clock, TotpStatus } from './model.ts'

/** A `verified` or `not_required` answer. Times are of the monotonic clock, counted from the start of its question. */
export interface Remembered {
  readonly status: 'verified' | 'not_required'
  readonly kind: string
  readonly session: string
  readonly subject: string
  readonly sessionRef: string
  readonly totp: TotpStatus
  readonly askedAt: number
  readonly endsAt: number
  readonly stepUpAt: number | null
  readonly stepUpFactor: string
  /** The newest change that the answer knew of. */
  readonly change: number
  /** It is in the cache: nothing has ended, replaced or displaced it since. */
  kept: boolean
}

/** A change as the stream tells it, or as this gate made it itself (`number` Infinity). */
export type Ended =
  | { readonly kind: 'session'; readonly number: number; readonly sessionRef: string }
  | { readonly kind: 'subject'; readonly number: number; readonly subject: string }
  | { readonly kind: 'tenant'; readonly number: number }

export interface Cache {
  /** An answer young enough to pass on: 5 s, or 60 s while the stream of changes is live. */
  readonly fresh: (key: string) => Remembered | undefined
  /** Would `fresh` find this very answer again? Says so without looking for it, which is most of its work. */
  readonly holds: (answer: Remembered) => boolean
  /** The last confirmed answer, for grace: at most `graceMs` old and not past its end. */
  readonly lastConfirmed: (key: string, graceMs: number) => Remembered | undefined
  readonly put: (key: string, answer: Remembered) => void
  readonly drop: (matches: (answer: Remembered) => boolean) => void
  readonly clear: () => void
  readonly size: () => number
}

const ALONE = 5_000
const WITH_STREAM = 60_000

export function createCache ({
  now,
  size,
  live
}: {
  readonly now: Clock
  readonly size: number
  readonly live: () => boolean
}): Cache {
  const answers = new Map<string, Remembered>()

  function holds (answer: Remembered): boolean {
    if (!answer.kept) return false
    const time = now()
    const age = time - answer.askedAt
    if (time >= answer.endsAt || age >= WITH_STREAM) return false
    return age < ALONE || live()
  }

  // The one way out: no change reaches an answer that is not here, so whoever holds on to it must see that it left.
  function remove (key: string, answer: Remembered): void {
    answer.kept = false
    answers.delete(key)
  }

  return {
    holds,
    fresh: key => {
      const answer = answers.get(key)
      return answer !== undefined && holds(answer) ? answer : undefined
    },
    lastConfirmed: (key, graceMs) => {
      const answer = answers.get(key)
      const time = now()
      return answer !== undefined && time < answer.endsAt && time - answer.askedAt < graceMs ? answer : undefined
    },
    put: (key, answer) => {
      // Re-inserting keeps the map in the order of the questions, so the first key is the one asked longest ago.
      const before = answers.get(key)
      if (before !== undefined) remove(key, before)
      if (answers.size >= size) {
        const oldest = answers.entries().next()
        if (oldest.done !== true) remove(...oldest.value)
      }
      answer.kept = true
      answers.set(key, answer)
    },
    drop: matches => {
      for (const [key, answer] of answers) if (matches(answer)) remove(key, answer)
    },
    clear: () => {
      for (const [key, answer] of answers) remove(key, answer)
    },
    size: () => answers.size
  }
}

/** Does a change end what this answer says? One that the answer already knew of does not. */
export function ends (change: Ended, answer: Pick<Remembered, 'sessionRef' | 'subject' | 'change'>): boolean {
  if (change.number <= answer.change) return false
  switch (change.kind) {
    case 'session':
      return change.sessionRef === answer.sessionRef
    case 'subject':
      return change.subject === answer.subject
    case 'tenant':
      return true
    default:
      return change satisfies never
  }
}

/** An answer as it is remembered; `undefined` for one that refuses. */
export function remembered (
  answer: Answer,
  who: { readonly kind: string; readonly session: string; readonly subject: string },
  askedAt: number
): Remembered | undefined {
  if (answer.status !== 'verified' && answer.status !== 'not_required') return undefined
  return {
    status: answer.status,
    kind: who.kind,
    session: who.session,
    subject: who.subject,
    sessionRef: answer.sessionRef,
    totp: answer.totp,
    askedAt,
    endsAt: answer.loginExpiresIn === null ? Infinity : askedAt + answer.loginExpiresIn * 1000,
    stepUpAt: answer.stepUp === null ? null : askedAt - answer.stepUp.age * 1000,
    stepUpFactor: answer.stepUp?.factor ?? '',
    change: answer.change,
    kept: false
  }
}
