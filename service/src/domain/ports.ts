// What the domain asks of the outside beside its two stores (records.ts, pending.ts): time, chance, secrets, mail.

import type { CodeMessage } from './messages.ts'
import type { By, MatchContext } from './model.ts'

/** The one clock of a process. Adapters that have a better one (Redis TIME, the database's) return `now` themselves. */
export interface Clock {
  /** Epoch milliseconds. */
  readonly now: () => number
}

export interface Randomness {
  readonly bytes: (count: number) => Uint8Array
  /** Uniform over `digits` decimal digits, leading zeros included. */
  readonly digits: (digits: number) => string
}

/** Sealing, keyed names and slow hashes. */
export interface Sealer {
  /** AES-256-GCM under the primary key; `context` (tenant, subject, row, column) is bound as additional data. */
  readonly seal: (plain: string, context: string) => string
  /** MUST throw when the key id is unknown, the text was changed, or it was sealed for another context. */
  readonly unseal: (sealed: string, context: string) => string
  /** HMAC-SHA-256 under the server key over length-prefixed parts; base64url. `purpose` separates uses. */
  readonly keyedHash: (purpose: string, ...parts: readonly string[]) => string
  readonly equal: (a: string, b: string) => boolean
  /**
   * scrypt in a bounded queue in which subjects take turns. MUST reject with Problem `unavailable` when the queue, or
   * the subject's share of it, is full.
   */
  readonly scrypt: MatchContext['scrypt']
}

/**
 * Runs work that may wait, few at once, in a bounded queue in which subjects take turns. MUST reject with Problem
 * `unavailable` when the queue, or the subject's share of it, is full; else settles as the work does.
 */
export type Lane = <T>(whose: Pick<By, 'tenant' | 'subject'>, work: () => Promise<T>) => Promise<T>

/** An e-mail that goes out at once or not at all; notices take the outbox. */
export interface Mail {
  readonly tenant: string
  readonly to: string
  readonly locale: string | undefined
  readonly message: CodeMessage
  readonly values: Readonly<Record<string, string>>
}

export interface Mailer {
  /**
   * Queues and returns at once; dropped, never retried, after `expiresAt`. Returns false where it was not taken: the
   * bounded queue is full, or there is no mail server.
   */
  readonly code: (mail: Mail, expiresAt: number) => boolean
  /** Wakes the outbox worker: rows were written. */
  readonly wake: () => void
}
