// What a preset is: one object that knows a console. Types only; docs/presets.md explains how one is written.

import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Identity, LoggedIn, OpenChallenge, ServiceProblem } from '../model.ts'
import type { Denied, PosternOptions } from '../options.ts'
import type { Answered } from '../proxy/exchange.ts'

export type { Answered, Denied }

/** One row a setting. Settings of a preset are named `<preset>_…`. */
export interface Setting {
  readonly type: 'text' | 'url' | 'port' | 'integer' | 'flag' | 'secret' | 'list'
  readonly default?: string
  readonly min?: number
  readonly max?: number
  readonly oneOf?: readonly string[]
  readonly required?: boolean
  readonly text: string
}

export interface Preset {
  readonly name: string
  /** One sentence for --help. */
  readonly text: string
  readonly settings: Readonly<Record<string, Setting>>
  /** The console as these settings describe it. Says every mistake with `wrong`; called once, at start. */
  readonly create: (parts: PresetParts) => ConsoleKnown
}

export interface PresetParts {
  /** The text of a setting of this preset; undefined where it is unset. */
  readonly value: (name: string) => string | undefined
  readonly list: (name: string) => readonly string[]
  readonly wrong: (sentence: string) => void
  /** Something an operator should mend, met while running. */
  readonly warn: (sentence: string) => void
  readonly publicOrigin: string
  readonly prefix: string
  readonly trustedProxies: readonly string[]
  /** A call of the gateway's own to the console. Rejects where it does not answer. */
  readonly call: (call: UpstreamCall) => Promise<Answered>
  /** Epoch milliseconds. */
  readonly today: () => number
  /** Milliseconds on a clock that never steps back. */
  readonly now: () => number
}

export interface UpstreamCall {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
}

/** What the gateway has to know of a console. */
export interface ConsoleKnown {
  /** What it takes for a login; taken away from a request of which nobody is the owner. */
  readonly credentials: {
    readonly cookies?: readonly string[]
    readonly headers?: readonly string[]
    readonly query?: readonly string[]
  }
  /** Where a single-page console keeps its token, if it does. */
  readonly tokenInScript?: PosternOptions['tokenInScript']
  readonly publicPatterns?: readonly string[]
  readonly stepUpPatterns?: readonly (string | { readonly pattern: string; readonly maxAge?: number | undefined })[]
  /** Who is logged in on this request; `null` = no credential that belongs to anybody. */
  readonly identify: (request: FastifyRequest) => Identity | null | Promise<Identity | null>
  /** Calls whose answers hand out a login. They are looked at before anybody gets them. */
  readonly logins: readonly LoginCall[]
  /**
   * Logs in at the console for our pages, for one whose users may have no page of its own to log in at; undefined:
   * wrong. `address` is the client's.
   */
  readonly signIn?: (name: string, password: string, address: string) => Promise<LoggedIn | undefined>
  /** Calls after whose success the subject's password is another one. */
  readonly passwordPatterns?: readonly string[]
  /** Calls that log out: what the session passed ends. */
  readonly logoutPatterns?: readonly string[]
  /** How a refusal is put for this console's scripts; undefined: as a problem document. */
  readonly denied?: ((request: FastifyRequest, denied: Denied) => DeniedReply | undefined) | undefined
  /** Hears of every request of somebody before it reaches the console, and once more with the head of the answer. */
  readonly passing?: ((request: FastifyRequest, answer?: AnswerHead) => void) | undefined
  /** The call that goes without the session cookie, so that the console makes a new session. */
  readonly freshLogin?: string | undefined
  /** For a preset that is no proxy: it is asked, and answers nothing else but the pages. */
  readonly asked?: {
    /** Exact paths, each with what an answer there says. */
    readonly paths: ReadonlyMap<string, Telling>
    /** The request that a proxy in front asks about. */
    readonly question: (raw: IncomingMessage) => Question
  }
}

/**
 * `whole`: 204, or the answer that the client is to get. `verdict`: 204, 401 or 403 and no more, for a proxy that
 * passes nothing else on. `reason`: what the client is to get after such a refusal.
 */
export type Telling = 'whole' | 'verdict' | 'reason'

export type Question =
  | { readonly method: string; readonly target: string }
  | { readonly refused: string; readonly status: 400 | 403 }

export interface AnswerHead {
  readonly status: number
  readonly headers: readonly string[]
}

export interface Reply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: string | Buffer
}

export interface DeniedReply extends Reply {
  /**
   * The next document that this browser asks for is our page; with `token` the console's pages drop their token at this
   * answer, and get it back after our page.
   */
  readonly resume?: 'page' | 'token'
}

/** A call as it came: the body in memory, read as JSON or form where it is one. */
export interface Call {
  readonly request: FastifyRequest
  readonly body: Buffer
  readonly fields: Readonly<Record<string, unknown>>
}

/** Whom an answer of the console logs in. */
export interface Login {
  readonly identity: LoggedIn
  /** How the code is asked for: by the very client that called, or on a page of ours in the browser. */
  readonly ask: 'client' | 'page'
  /** Where a browser goes after the page. */
  readonly returnPath?: string
}

export interface LoginCall {
  /** `[METHOD ]/path`, matched whatever the case or escaping. */
  readonly pattern: string
  /** A call that is answered here and never forwarded, as the second one of a native client. */
  readonly second?: (call: Call, client: Held) => Promise<Reply | undefined>
  /** Before it is forwarded; a reply refuses it. */
  readonly first?: (call: Call) => Reply | undefined
  /** The body that goes on, where the call says whom it logs in: the console must read in it what was read here. */
  readonly forwarded?: (call: Call) => Buffer
  /** What the first call says of the device that the second must come from. */
  readonly device?: (call: Call) => string
  /** Whom this answer logs in; undefined: nobody, it is passed on. A throw is refused. */
  readonly login: (call: Call, answer: Answered) => Login | undefined | Promise<Login | undefined>
  /** What the client gets in place of the console's answer. */
  readonly reply: (call: Call, login: Login, asked: AskedFor) => Reply
}

/** What became of a held answer. */
export type AskedFor =
  /** `secret` names the challenge towards the client; only for `ask: 'client'`. */
  | { readonly asked: 'code'; readonly challenge: OpenChallenge; readonly secret: string; readonly verifyUrl: string }
  | { readonly asked: 'enrol'; readonly enrolUrl: string }
  | { readonly asked: 'unavailable'; readonly retryAfter: number; readonly code: string }

/** The second call of a native client. */
export interface Held {
  /**
   * Answers the challenge that `secret` names. `device` must be what the first call named. On success the console's
   * own answer comes back, also to an equal repeat.
   */
  readonly answer: (secret: string, device: string, code: string, request: FastifyRequest) => Promise<HeldAnswer>
}

export type HeldAnswer =
  | { readonly held: 'released'; readonly answer: Answered }
  | { readonly held: 'refused'; readonly problem: ServiceProblem }
  /** Not one of ours, of another device, or too old. */
  | { readonly held: 'unknown' }
  | { readonly held: 'away'; readonly retryAfter: number }
