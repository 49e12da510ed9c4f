// The nouns a gate speaks: who asks, what the service answered, what is decided. Imports nothing but types.

import type { FastifyRequest } from 'fastify'

/** Somebody is logged in. `session` stays the same for one login (a JWT's `sid`, not the token). */
export interface LoggedIn {
  /** The console's own immutable user id. */
  readonly subject: string
  readonly session: string
  /** Kind of credential: `cookie`, `bearer` or a word of your own. Sessions of different kinds never mix. */
  readonly kind: string
  /** Absent says nothing, `null` says that the console has no address. */
  readonly email?: string | null | undefined
  readonly displayName?: string | undefined
  /** BCP 47, as `en` or `zh-CN`. */
  readonly locale?: string | undefined
  /** Passes login (never step-up) where the tenant allows the word. */
  readonly exempt?: 'api_token' | 'sso' | undefined
}

/** A session in which nobody is logged in. */
export interface LoggedOut {
  readonly subject: null
  readonly session: string
  readonly kind: string
}

/** What `identify` says; `null` = no credential at all. Anything else, and a throw, is refused. */
export type Identity = LoggedIn | LoggedOut

export type Identify = (request: FastifyRequest) => Identity | null | Promise<Identity | null>

/** `by` of the wire: hashed names, never raw ids. */
export interface By {
  readonly subject: string
  readonly session: string
  readonly browser: string
}

/** `about` of the wire. */
export interface About {
  email?: string | null
  display_name?: string
  locale?: string
  address?: string
  user_agent?: string
  action?: string
}

/** Who asks on this very request: the identity and the browser binding. */
export interface Who {
  readonly identity: LoggedIn
  /** The raw value of the binding cookie; '' where there is none. */
  readonly binding: string
  /** Names (kind, raw session, raw binding, subject, exempt) in the cache. */
  readonly key: string
}

export type TotpStatus = 'not_enabled' | 'enabled' | 'expired'
export type LoginStatus = 'verified' | 'not_required' | 'enrolment_required' | 'verification_required'

/** The service's answer to the gate's question. Seconds are whole. */
export interface Answer {
  readonly status: LoginStatus
  readonly loginExpiresIn: number | null
  readonly stepUp: { readonly age: number; readonly factor: string } | null
  readonly totp: TotpStatus
  readonly sessionRef: string
  readonly change: number
}

/** An open challenge as a gate needs it. */
export interface OpenChallenge {
  readonly id: string
  readonly methods: readonly string[]
  readonly attemptsLeft: number
  readonly maskedAddress: string | null
  readonly csrf: string
  /** Seconds until a code is looked at again; 0 = now. */
  readonly waitFor: number
  readonly locked: boolean
  /** A code was mailed for this challenge; `resendIn` seconds until another may be. */
  readonly mailed: boolean
  readonly resendIn: number
}

export type Opened =
  | { readonly status: 'open'; readonly challenge: OpenChallenge }
  | { readonly status: 'not_required' | 'verified' | 'accepted' }

/** An accepted verification; `held` is what was kept with its challenge. */
export interface Verified {
  readonly held: string | undefined
}

/** A problem document of the service (RFC 9457), as far as gates look at it. */
export interface ServiceProblem {
  readonly code: string
  readonly status: number
  readonly attemptsLeft?: number | undefined
  readonly retryAfter?: number | undefined
  readonly nextIn?: number | undefined
}

/**
 * Outcome of a call. `away`: the service does not answer at all (refused, time-out, 502, 503, 504), the one case in
 * which grace applies; a `problem` is an answer that is not a yes.
 */
export type Asked<T> =
  | { readonly outcome: 'answer'; readonly answer: T }
  | { readonly outcome: 'problem'; readonly problem: ServiceProblem }
  /** `busy`: it was not asked, because too many questions wait already. */
  | { readonly outcome: 'away'; readonly retryAfter: number; readonly busy?: true }

/** What a route asks for, declared as `config: { postern: … }`. */
export interface RouteRule {
  /** Passes without 2FA. */
  readonly public?: boolean | undefined
  /**
   * A fresh verification: at most `maxAge` seconds old (default 300, at most 900; 0 = a code with this very request).
   */
  readonly stepUp?: true | { readonly maxAge?: number | undefined; readonly action?: string | undefined } | undefined
}

/** What `request.postern` tells a handler. */
export interface PosternState {
  /** `anonymous`: no credential, or nobody is logged in; `public`: the route is public and nobody was asked. */
  readonly status: 'verified' | 'not_required' | 'anonymous' | 'public' | 'observed' | 'off'
  /** The state of the subject's 2FA, where the service was asked. */
  readonly totp: TotpStatus | null
  /** The last step-up of this session, where there is one; `age` in seconds. */
  readonly stepUp: { readonly age: number; readonly factor: string } | null
  /** Remaining seconds of the login assurance, where there is one. */
  readonly expiresIn: number | null
}

/** Milliseconds on a clock that never steps back. */
export type Clock = () => number
