// Open, send, answer: the one path on which a code is ever accepted.

import type { Ask, Purpose, Verdict } from './model.ts'
import type { Tenant } from './policy.ts'

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
  | { readonly status: 'open', readonly challenge: ChallengeView }
  /** Nothing is asked of this subject: pass. Audited with factor `none` for a step-up. */
  | { readonly status: 'not_required' }
  /** Login only: this session and browser passed already. */
  | { readonly status: 'verified' }
  | { readonly status: 'enrolment_required' }

export interface Challenges {
  /** The live challenge of `by` and purpose, or a new one. A new one whose only method is e-mail sends a code. Step-up before login throws Problem `login_required`. */
  readonly open: (tenant: Tenant, ask: Ask, options: { readonly purpose: Purpose, readonly returnPath?: string | undefined, readonly held?: string | undefined }) => Promise<OpenOutcome>
  /** `undefined`: gone, or not of `by`. */
  readonly view: (tenant: Tenant, ask: Ask, id: string) => Promise<ChallengeView | undefined>
  /** Queues a mail. Problems: challenge_gone, method_not_available, address_missing, waiting (with `retry_after`). */
  readonly send: (tenant: Tenant, ask: Ask, id: string) => Promise<ChallengeView>
  readonly answer: (tenant: Tenant, ask: Ask, id: string, code: string, options: {
    /** Keyed name of the browser that the login assurance will belong to. */
    readonly nextBrowser?: string | undefined
    readonly idempotencyKey?: string | undefined
    /** false: leave no step-up behind (`maxAge` 0). */
    readonly record?: boolean | undefined
  }) => Promise<Verdict>
}
