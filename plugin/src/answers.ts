// What the service answered, read by hand: a member that is missing or of another type is no answer.

import type { Answer, LoginStatus, OpenChallenge, Opened, ServiceProblem, TotpStatus, Verified } from './model.ts'

/** Status and JSON of an answer as they came. */
export interface Reply {
  readonly status: number
  readonly body: unknown
}

/** `undefined` where it is no JSON. */
export function parsed (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

// The one narrowing of this boundary: whatever came over the wire, as something whose members may be looked at.
function members (value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : {}
}

function text (value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function count (value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : undefined
}

const LOGIN: readonly LoginStatus[] = ['verified', 'not_required', 'enrolment_required', 'verification_required']
const TOTP: readonly TotpStatus[] = ['not_enabled', 'enabled', 'expired']

/** The answer to the gate's question. */
export function answerOf (body: unknown): Answer | undefined {
  const { status, login, step_up: stepUp, totp, session_ref: sessionRef, change } = members(body)
  const word = LOGIN.find(one => one === status)
  const number = count(change)
  if (word === undefined || text(sessionRef) === undefined || number === undefined) return undefined
  const age = count(members(stepUp)['age'])
  const factor = text(members(stepUp)['factor'])
  const expiresIn = count(members(login)['expires_in']) ?? null
  // A verified session without an end is not an answer.
  if (word === 'verified' && expiresIn === null) return undefined
  return {
    status: word,
    loginExpiresIn: expiresIn,
    stepUp: age === undefined || factor === undefined ? null : { age, factor },
    totp: TOTP.find(one => one === totp) ?? 'not_enabled',
    sessionRef: text(sessionRef) ?? '',
    change: number
  }
}

/** A challenge that was opened, or why none is needed. */
export function openedOf (body: unknown): Opened | undefined {
  const { status, challenge } = members(body)
  if (status === 'not_required' || status === 'verified' || status === 'accepted') return { status }
  if (status !== 'open') return undefined
  const open = challengeOf(challenge)
  return open === undefined ? undefined : { status, challenge: open }
}

function challengeOf (body: unknown): OpenChallenge | undefined {
  const { id, methods, attempts_left: attemptsLeft, masked_address: maskedAddress, csrf, ...rest } = members(body)
  const name = text(id)
  if (name === undefined || !/^[A-Za-z0-9_-]{16,64}$/.test(name) || !Array.isArray(methods)) return undefined
  return {
    id: name,
    methods: methods.filter(method => typeof method === 'string'),
    attemptsLeft: count(attemptsLeft) ?? 0,
    maskedAddress: text(maskedAddress) ?? null,
    csrf: text(csrf) ?? '',
    waitFor: count(rest['wait_for']) ?? 0,
    locked: rest['locked'] === true,
    mailed: rest['mailed'] === true,
    resendIn: count(rest['resend_in']) ?? 0
  }
}

export function verifiedOf (body: unknown): Verified {
  return { held: text(members(body)['held']) }
}

/** Who a session was recorded with. */
export function recordedSubjectOf (body: unknown): string | undefined {
  return text(members(body)['subject'])
}

/** A refusal; where it is no problem document, its status still counts. */
export function problemOf ({ status, body }: Reply): ServiceProblem {
  const { code, attempts_left: attemptsLeft, retry_after: retryAfter, next_in: nextIn } = members(body)
  return {
    code: text(code) ?? 'unexpected',
    status,
    attemptsLeft: count(attemptsLeft),
    retryAfter: count(retryAfter),
    nextIn: count(nextIn)
  }
}
