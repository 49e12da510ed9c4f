// The decision: an ordered list of named checks. The first answer wins, and the end of the list denies.

import type { FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import type { Remembered } from './cache.ts'
import { oneCookieLine, stripOurs, type Credentials, type Presented } from './credentials.ts'
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
  /** Names of the checks, in order. */
  readonly checks: readonly string[]
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

    nobody (passage) {
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
      const { who } = passage
      if (who === undefined) return undefined
      if (!ends.owed(who.identity.kind, who.identity.session)) {
        const known = assurances.known(who.key)
        if (known !== undefined) {
          passage.answer = known
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

  const list: readonly Check[] = Object.values(checks)

  function took (passage: Passage, given: unknown): Outcome {
    const { presented } = passage
    const { last } = presented
    const same = last !== undefined && isSame(given, last.identity)
    const identity = same ? given : checkedIdentity(given)
    if (identity === undefined) return refuse(500, 'identity_unclear', 'the console could not tell who is logged in')
    if (same) passage.who = { identity: copied(given), binding: last.binding, key: last.key }
    else if (identity !== null && identity.subject !== null) {
      passage.who = whoIs(identity, presented.binding)
      const { kind, session, subject, exempt } = passage.who.identity
      // What else the console says of somebody is not kept.
      presented.last = { ...passage.who, identity: { kind, session, subject, exempt } }
    }
    passage.identity = passage.who?.identity ?? identity
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

  function run (passage: Passage, from: number): Decision | Promise<Decision> {
    for (let i = from; i < list.length; i++) {
      const outcome = list[i]?.(passage)
      if (outcome === undefined) continue
      if (outcome instanceof Promise) return outcome.then(one => one ?? run(passage, i + 1))
      return outcome
    }
    return refuse(403, 'denied', 'no rule lets this request pass')
  }

  return { decide: passage => run(passage, 0), checks: Object.keys(checks) }
}

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
function isSame (given: unknown, before: LoggedIn): given is LoggedIn {
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
