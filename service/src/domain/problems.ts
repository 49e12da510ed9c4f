// Every problem a caller can see (RFC 9457): code → status and title. Codes never change meaning.

import type { Verdict } from './model.ts'

export const PROBLEMS = {
  bad_request: { status: 400, title: 'The request is not understood' },
  code_malformed: {
    status: 400,
    title: 'No verification method of this challenge takes a code of this form; nothing was counted'
  },
  code_rejected: { status: 403, title: 'The code is not right' },
  code_used: { status: 403, title: 'The code was already used' },
  waiting: { status: 429, title: 'Too many wrong codes; wait before the next' },
  locked: { status: 403, title: 'TOTP and e-mail codes are locked for this subject' },
  challenge_gone: { status: 410, title: 'The challenge does not exist, has expired or belongs to someone else' },
  enrolment_gone: {
    status: 410,
    title: 'The pending enrolment does not exist, has expired or belongs to someone else'
  },
  enrolment_required: { status: 403, title: 'The subject must enrol before this is possible' },
  proof_required: { status: 403, title: 'A first enrolment needs a code that proves who enrols' },
  proof_rejected: { status: 403, title: 'The code that proves who enrols is not right' },
  step_up_required: { status: 401, title: 'A fresh verification is needed' },
  login_required: { status: 401, title: 'The login verification has not been passed' },
  method_not_available: { status: 409, title: 'This verification method is not available here' },
  already_enabled: { status: 409, title: 'This is already enabled' },
  not_enabled: { status: 409, title: 'This is not enabled' },
  address_missing: { status: 409, title: 'There is no e-mail address to send to' },
  address_invalid: { status: 400, title: 'The e-mail address is not a single mailbox' },
  target_has_factors: { status: 409, title: 'The subject of that name already has factors' },
  idempotency_conflict: { status: 409, title: 'The idempotency key was used with another request' },
  unauthenticated: { status: 401, title: 'The tenant key is missing, unknown or malformed' },
  forbidden: { status: 403, title: 'This key does not allow that call' },
  not_found: { status: 404, title: 'There is nothing here' },
  payload_too_large: { status: 413, title: 'The body is too large' },
  unsupported_media_type: { status: 415, title: 'The content type is not supported' },
  rate_limited: { status: 429, title: 'Too many requests from this address' },
  unavailable: { status: 503, title: 'The service cannot answer right now' },
  internal: { status: 500, title: 'The service failed' }
} as const

export type ProblemCode = keyof typeof PROBLEMS

/** Members that stand beside the code in a problem document. Seconds are whole. */
export interface ProblemDetails {
  readonly attempts_left?: number | undefined
  readonly retry_after?: number | undefined
  readonly next_in?: number | undefined
  /** How far the phone's clock is off, positive where it is ahead. */
  readonly clock_off?: number | undefined
  readonly detail?: string | undefined
  readonly errors?: readonly string[] | undefined
}

/** An error that a caller is meant to see. Becomes a problem document in one place (http/api.ts). */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly details: ProblemDetails
  /** Fastify reads it; the table decides it. */
  readonly statusCode: number

  constructor (code: ProblemCode, details: ProblemDetails = {}, options?: ErrorOptions) {
    super(PROBLEMS[code].title, options)
    this.name = 'Problem'
    this.code = code
    this.details = details
    this.statusCode = PROBLEMS[code].status
  }
}

/** A verdict as the problem that callers see. */
export function problemOf (
  verdict: Exclude<Verdict, { verdict: 'accepted' }>,
  gone: 'challenge_gone' | 'enrolment_gone' = 'enrolment_gone'
): Problem {
  switch (verdict.verdict) {
    case 'rejected':
      return new Problem('code_rejected', { attempts_left: verdict.left, clock_off: verdict.clockOffSeconds })
    case 'used':
      return new Problem('code_used', { next_in: verdict.nextIn })
    case 'waiting':
      return new Problem('waiting', { retry_after: verdict.waitFor })
    case 'locked':
      return new Problem('locked')
    case 'gone':
      return new Problem(gone)
    case 'malformed':
      return new Problem('code_malformed')
    default:
      return verdict satisfies never
  }
}
