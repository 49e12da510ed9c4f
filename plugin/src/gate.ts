// The decision: an ordered list of named checks. The first answer wins, and the end of the list denies.

import type { FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import type { Remembered } from './cache.ts'
import { oneCookieLine, stripOurs, type Credentials, type Known, type Presented } from './credentials.ts'
import type {
  Clock,
  Identify,
  Identity,
  LoggedIn,
  OpenChallenge,
  PosternState,
  ServiceProblem,
  Who
} from './model.ts'
import { refusedTarget } from './path.ts'
import type { Rule, Rules } from './rules.ts'
import type { SessionEnds } from './session-ends.ts'

export type Denial =
  | {
    readonly denial: 'refused'
    readonly status: 400 | 401 | 403 | 413 | 500
    readonly code: string
    readonly detail: string
  }
  | { readonly denial: 'login' | 'enrol' }
  | {
    readonly denial: 'step_up'
    readonly challenge: OpenChallenge
    readonly maxAge: number
    readonly action: string | undefined
    readonly rejected: ServiceProblem | undefined
  }
  | { readonly denial: 'unavailable'; readonly retryAfter: number; readonly code: string }

export type Decision =
  /** `null`: what the passage's answer says, which is put together only where a handler asks. */
  | { readonly decision: 'pass'; readonly state: PosternState | null }
  /** Login has passed; the code may be in the body, which is not read yet. */
  | { readonly decision: 'read_body' }
  | { readonly decision: 'deny'; readonly denial: Denial }

/** What one request has told so far. */
export interface Passage {
  readonly request: FastifyRequest
  /** The request target as it came. */
  readonly target: string
  /** It asks for another protocol: whoever listens takes the socket, past routes and handlers. */
  readonly upgrade: boolean
  rule: Rule
  presented: Credentials
  identity: Identity | null
  /** Somebody is logged in. */
  who: Who | undefined
  /** The same, as it is kept for the next request. */
  known: Known | undefined
  /** The `2fa-code` header, which nobody behind the gate sees. */
  code: string | undefined
  answer: Remembered | undefined
  /** The service was asked on this very request. */
  asked: boolean
  /** It did not answer; the last confirmed answer stands in, for login only. */
  grace: boolean
  /** How it passed; undefined where it did not, or not yet. */
  state: PosternState | null | undefined
  /** The decision waits for the parsed body, which may hold the code. */
  bodyDecides: boolean
  /** Bytes of a posted form that may have to be carried. */
  form: Buffer | undefined
}

type Outcome = Decision | undefined
type Check = (passage: Passage) => Outcome | Promise<Outcome>

export interface GateParts {
  readonly identify: Identify
  readonly credentials: (rawHeaders: readonly string[], query: string) => Presented
  readonly rules: Rules
  readonly assurances: Assurances
  readonly ends: SessionEnds
  readonly stepUp: Check
  readonly methods: ReadonlySet<string>
}

export interface Gate {
  /** Synchronous for a session that is known; a promise otherwise. */
  readonly decide: (passage: Passage) => Decision | Promise<Decision>
}

/** Nothing is kept on it: nobody came with it. */
const NOTHING: Credentials = Object.freeze({ binding: '', any: false, header: false, last: undefined })
const UNRULED: Rule = { rule: 'gated', stepUp: null }

export function openPassage (request: FastifyRequest, target: string, upgrade: boolean): Passage {
  return {
    request,
    target,
    upgrade,
    rule: UNRULED,
    presented: NOTHING,
    identity: null,
    who: undefined,
    known: undefined,
    code: undefined,
    answer: undefined,
    asked: false,
    grace: false,
    state: undefined,
    bodyDecides: false,
    form: undefined
  }
}

export function createGate (parts: GateParts): Gate {
  const { identify, credentials, rules, assurances, ends, stepUp, methods } = parts

  const checks = {
    target ({ request, target }) {
      if (!methods.has(request.method) || request.method === 'TRACE') { return refuse(400, 'bad_request', 'the method is not allowed') }
      const wrong = refusedTarget(target)
      return wrong === undefined ? undefined : refuse(400, 'bad_request', wrong)
    },

    headers (passage) {
      const { raw } = passage.request
      const code = stripOurs(raw.headers, raw.rawHeaders)
      if (code === null) return refuse(400, 'bad_request', 'more than one 2fa-code header')
      passage.code = code
      return undefined
    },

    credentials (passage) {
      const { target } = passage
      const mark = target.indexOf('?')
      const { raw } = passage.request
      // HTTP/2 lets browsers send each cookie in a line of its own (RFC 9113 8.2.3); Node joins them as we do.
      const presented = credentials(raw.httpVersionMajor === 2 ? oneCookieLine(raw.rawHeaders) : raw.rawHeaders, mark === -1 ? '' : target.slice(mark))
      if ('refused' in presented) return refuse(400, 'credentials_ambiguous', presented.refused)
      passage.presented = presented
      return undefined
    },

    rule (passage) {
      const rule = rules.of(passage.request, passage.target, passage.upgrade)
      if ('refused' in rule) return refuse(400, 'bad_request', rule.refused)
      passage.rule = rule
      return undefined
    },

    identity (passage) {
      const given = identify(passage.request)
      if (given instanceof Promise) return given.then(one => took(passage, one))
      return took(passage, given)
    },

    nobody (passage): Decision | Promise<Decision> | undefined {
      const { identity, presented, rule, upgrade } = passage
      if (identity === null) {
        // The console found nobody in a token that came along: a handler behind may be less strict. So may whoever
        // takes an upgrade, who reads the cookie anew.
        if ((presented.header || (upgrade && presented.any)) && rule.rule === 'gated') { return refuse(401, 'credentials_unknown', 'a credential that belongs to nobody') }
        return pass('anonymous', undefined)
      }
      if (identity.subject !== null) return undefined
      // Only a session that came along can have passed before.
      return presented.any || !ends.namesCredentials
        ? ends.end(identity.kind, identity.session).then(() => pass('anonymous', undefined))
        : pass('anonymous', undefined)
    },

    open ({ rule }) {
      return rule.rule === 'gated' ? undefined : pass('public', undefined)
    },

    login (passage) {
      const { who, known } = passage
      if (who === undefined || known === undefined) return undefined
      if (!ends.owed(known.kind, known.session)) {
        const { answer: last } = known
        const answer = last !== undefined && assurances.holds(last) ? last : assurances.known(known.key)
        if (answer !== undefined) {
          known.answer = answer
          passage.answer = answer
          return undefined
        }
      }
      return askLogin(passage, who)
    },

    stepUp (passage) {
      if (passage.answer === undefined) return undefined
      return passage.rule.stepUp === null ? PASSED : stepUp(passage)
    }
  } satisfies Record<string, Check>

  // In order; the first answer wins. Each has a call of its own, which compiles into one piece: through one call for
  // all of them, as in a loop, they take 2 µs more.
  function decide (passage: Passage): Decision | Promise<Decision> {
    const refused =
      checks.target(passage) ?? checks.headers(passage) ?? checks.credentials(passage) ?? checks.rule(passage)
    return refused ?? outcomeOf(checks.identity(passage), passage, somebody)
  }

  function somebody (passage: Passage): Decision | Promise<Decision> {
    return checks.nobody(passage) ?? checks.open(passage) ?? outcomeOf(checks.login(passage), passage, loggedIn)
  }

  function loggedIn (passage: Passage): Decision | Promise<Decision> {
    return outcomeOf(checks.stepUp(passage), passage, denied)
  }

  function took (passage: Passage, given: unknown): Outcome {
    const { presented } = passage
    const { last } = presented
    if (last !== undefined && isSame(given, last)) {
      passage.who = { identity: copied(given), binding: presented.binding, key: last.key }
      passage.known = last
      passage.identity = passage.who.identity
      return undefined
    }
    const identity = checkedIdentity(given)
    if (identity === undefined) return refuse(500, 'identity_unclear', 'the console could not tell who is logged in')
    passage.identity = identity
    if (identity === null || identity.subject === null) return undefined
    passage.who = whoIs(identity, presented.binding)
    passage.identity = passage.who.identity
    const { kind, session, subject, exempt } = passage.who.identity
    // What else the console says of somebody is not kept.
    passage.known = presented.last = { kind, session, subject, exempt, key: passage.who.key, answer: undefined }
    return undefined
  }

  async function askLogin (passage: Passage, who: Who): Promise<Outcome> {
    if (!(await ends.settle(who.identity.kind, who.identity.session))) { return deny({ denial: 'unavailable', retryAfter: 5, code: 'unavailable' }) }
    const standing = await assurances.ask(who)
    passage.asked = true
    switch (standing.standing) {
      case 'passed':
        passage.answer = standing.answer
        passage.grace = standing.grace
        return undefined
      case 'verification_required':
        return deny({ denial: 'login' })
      case 'enrolment_required':
        return deny({ denial: 'enrol' })
      case 'away':
        return deny({ denial: 'unavailable', retryAfter: standing.retryAfter, code: 'unavailable' })
      case 'unclear':
        return deny({ denial: 'unavailable', retryAfter: 30, code: standing.code })
      default:
        return standing satisfies never
    }
  }

  return { decide }
}

/** What a check says, or what the next ones say where it says nothing. */
function outcomeOf (
  outcome: Outcome | Promise<Outcome>,
  passage: Passage,
  next: (passage: Passage) => Decision | Promise<Decision>
): Decision | Promise<Decision> {
  return outcome instanceof Promise ? outcome.then(one => one ?? next(passage)) : outcome ?? next(passage)
}

const denied = (): Decision => refuse(403, 'denied', 'no rule lets this request pass')

export function deny (denial: Denial): Decision {
  return { decision: 'deny', denial }
}

export function refuse (status: 400 | 401 | 403 | 413 | 500, code: string, detail: string): Decision {
  return deny({ denial: 'refused', status, code, detail })
}

export const PASSED: Decision = Object.freeze({ decision: 'pass', state: null })

export function pass (status: PosternState['status'], answer: Remembered | undefined): Decision {
  return { decision: 'pass', state: { status, totp: answer?.totp ?? null, stepUp: null, expiresIn: null } }
}

/** What a handler may know of an answer. */
export function stateOf (answer: Remembered, now: Clock): PosternState {
  const time = answer.stepUpAt === null && answer.endsAt === Infinity ? 0 : now()
  return {
    status: answer.status,
    totp: answer.totp,
    stepUp:
      answer.stepUpAt === null
        ? null
        : { age: Math.ceil((time - answer.stepUpAt) / 1000), factor: answer.stepUpFactor },
    // A handler may ask long after it began.
    expiresIn: answer.endsAt === Infinity ? null : Math.max(0, Math.floor((answer.endsAt - time) / 1000))
  }
}

export function whoIs (identity: LoggedIn, binding: string): Who {
  const { kind, session, subject, exempt } = identity
  return { identity: copied(identity), binding, key: `${kind}\n${session}\n${binding}\n${exempt ?? ''}\n${subject}` }
}

/** The console may change what it returned while the service is asked: the answer is kept for whom the key names. */
function copied ({ kind, session, subject, exempt, email, displayName, locale }: LoggedIn): LoggedIn {
  return { kind, session, subject, exempt, email, displayName, locale }
}

/** What `identify` returned names whom it named before, in all that is checked of it. */
function isSame (given: unknown, before: Known): given is LoggedIn {
  if (typeof given !== 'object' || given === null) return false
  const { session, subject, kind, exempt } = given as Partial<LoggedIn>
  return session === before.session && subject === before.subject && kind === before.kind && exempt === before.exempt
}

const control = /[\u0000-\u001f\u007f-\u009f]/

// The one narrowing of this boundary: what `identify` returned, which the console wrote. `undefined` = refused, never
// repaired.
function checkedIdentity (given: unknown): Identity | null | undefined {
  if (given === null) return null
  if (typeof given !== 'object') return undefined
  const identity = given as Identity
  const { kind, session, subject } = identity
  if (typeof kind !== 'string' || kind === '' || kind.length > 32 || control.test(kind)) return undefined
  if (typeof session !== 'string' || session === '' || session.length > 4096 || control.test(session)) { return undefined }
  if (subject === null) return identity
  if (typeof subject !== 'string' || subject === '' || subject.length > 255 || control.test(subject)) return undefined
  if (identity.exempt !== undefined && identity.exempt !== 'api_token' && identity.exempt !== 'sso') return undefined
  return identity
}
