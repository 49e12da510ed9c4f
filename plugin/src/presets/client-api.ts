// The client API of RustDesk-style servers as the unmodified native client speaks it: POST /api/login, single sign-on,
// Bearer tokens. Shared by the presets of such servers, each under its own name.

import { createHash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { at, jsonReply, objectIn, textAt } from '../gateway/calls.ts'
import { createIdentities } from '../gateway/identities.ts'
import type {
  Answered, AskedFor, Call, ConsoleKnown, HeldAnswer, Login, LoginCall, PresetParts, Reply, Setting
} from '../gateway/preset.ts'
import type { Identity, LoggedIn } from '../model.ts'

export const CONSOLE_URL: Setting = {
  type: 'text',
  text: 'Where users set up their second factor, named in the message of clients that must; default: the settings page.'
}

/** The settings of the client API, named after the preset. */
export function clientApiSettings (preset: string): Readonly<Record<string, Setting>> {
  return {
    [`${preset}_sso`]: {
      type: 'text',
      default: 'ask',
      oneOf: ['ask', 'exempt'],
      text: 'Logins through an identity provider: `ask` for the code like any other, or `exempt` where the tenant allows `sso`.'
    },
    [`${preset}_old_tokens_until`]: {
      type: 'text',
      text: 'Until this date (`2027-01-31`) every token of the server passes that the gateway gets to see, so that devices of before need not log in again; the tenant must allow `api_token`. Logins are asked for the code all the same.'
    },
    [`${preset}_console_url`]: CONSOLE_URL
  }
}

/** Strings that clients translate; sent verbatim. */
const WRONG_CODE = 'The verification code is incorrect or has expired'
const KIND = 'bearer'
/** A token belongs to one user for its whole life. */
const KEEP_MS = 60_000
const LOGGED_IN_BY = 20_000

export interface ClientApi {
  /** All there is to know of a server that has nothing else. */
  readonly console: ConsoleKnown
  readonly signIn: NonNullable<ConsoleKnown['signIn']>
  /** Whose a token is, in whatever header it came. */
  readonly owner: (token: string) => Identity | null | Promise<Identity | null>
}

/** For a server whose answers do not name a user for good. */
export interface Naming {
  readonly owner: ClientApi['owner']
  /** Whom the call logs in; remembers whose the token is. Throws where it cannot be told. */
  readonly logsIn: (call: Call, token: string) => string
}

export function createClientApi (
  preset: string,
  { value, wrong, call, now, today, publicOrigin, prefix }: PresetParts,
  naming?: Naming
): ClientApi {
  const identities = createIdentities({ now, keepMs: KEEP_MS })
  const settingsUrl = value(`${preset}_console_url`) ?? `${publicOrigin}${prefix}/settings`
  const setUp = `Two-factor verification must be set up first: open ${settingsUrl} in a browser`
  const until = value(`${preset}_old_tokens_until`)
  const oldUntil = until === undefined ? undefined : Date.parse(until)
  if (oldUntil !== undefined && Number.isNaN(oldUntil)) {
    wrong(`POSTERN_GATEWAY_${preset.toUpperCase()}_OLD_TOKENS_UNTIL must be a date, as 2027-01-31`)
  }
  const exempt = value(`${preset}_sso`) === 'exempt'
  /** Tokens that came through an identity provider, by hash: only what this process released. */
  const bySso = new Map<string, true>()

  /** Who-am-I, once for each token; 400 and 401, and an answer that names nobody, are nobody. */
  async function ask (token: string): Promise<Identity | null> {
    const answer = await call({
      method: 'POST',
      path: '/api/currentUser',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json' },
      body: '{}'
    })
    if (answer.status >= 500) throw new Error('the server could not say whose a token is')
    const said = answer.status === 200 ? objectIn(answer.body) : {}
    const subject = textAt(said, 'name')
    const old = oldUntil !== undefined && today() < oldUntil
    const word = bySso.has(hashed(token)) ? 'sso' : old ? 'api_token' : undefined
    return subject === undefined ? null : person(subject, token, textAt(said, 'email'), word)
  }

  const owner: ClientApi['owner'] = naming?.owner ?? (token => identities.of(token, async () => await ask(token)))

  function identify (request: FastifyRequest): Identity | null | Promise<Identity | null> {
    const { authorization } = request.headers
    if (authorization === undefined || authorization === '') return null
    // Some servers take any seven bytes before the token: another form is nobody's, and so refused.
    const token = /^Bearer ([A-Za-z0-9._~+/=-]+)$/.exec(authorization)?.[1]
    return token === undefined ? null : owner(token)
  }

  function logins (call: Call, answer: Answered, sso: boolean): Login | undefined {
    const said = answer.status === 200 ? objectIn(answer.body) : {}
    const token = textAt(said, 'access_token')
    if (token === undefined) return undefined
    const subject = naming === undefined ? textAt(said, 'user.name') : naming.logsIn(call, token)
    if (subject === undefined) throw new Error('the server logged somebody in and did not say whom')
    if (sso && exempt) {
      if (bySso.size >= LOGGED_IN_BY) bySso.clear()
      bySso.set(hashed(token), true)
    }
    const word = sso && exempt ? 'sso' : undefined
    return { identity: person(subject, token, textAt(said, 'user.email'), word), ask: 'client' }
  }

  /** As a browser logs in, which is no device. */
  const signIn: ClientApi['signIn'] = async (username, password, address) => {
    const answer = await call({
      method: 'POST',
      path: '/api/login',
      headers: { 'content-type': 'application/json', accept: 'application/json', 'x-forwarded-for': address },
      body: JSON.stringify({ username, password, id: '', uuid: '', autoLogin: false, type: 'account', deviceInfo: { os: '', type: 'browser', name: '' } })
    })
    if (answer.status >= 500) throw new Error('the server could not log anybody in')
    const said = answer.status === 200 ? objectIn(answer.body) : {}
    const [token, subject] = [textAt(said, 'access_token'), textAt(said, 'user.name')]
    return token === undefined || subject === undefined ? undefined : person(subject, token, textAt(said, 'user.email'), undefined)
  }

  /** The second call carries no password and no token, only the code and what the first answer gave. */
  const second: NonNullable<LoginCall['second']> = async ({ request, fields }, held) => {
    if (fields['type'] !== 'email_code') return undefined
    const secret = textAt(fields, 'secret')
    const code = (textAt(fields, 'tfaCode') ?? textAt(fields, 'verificationCode') ?? '').trim()
    if (secret === undefined) return failed(400, 'Please log in again')
    return answered(await held.answer(secret, deviceOf(fields), code, request))
  }

  const reply: LoginCall['reply'] = (_call, login, asked) => challenge(login, asked)

  function challenge ({ identity }: Login, asked: AskedFor): Reply {
    switch (asked.asked) {
      case 'code': {
        const { methods, maskedAddress, mailed, waitFor, resendIn, locked } = asked.challenge
        const mail = methods[0] === 'email'
        if (locked && !methods.includes('backup_code')) return failed(403, 'Too many wrong codes; ask an administrator')
        if (waitFor > 0) return failed(429, `Too many wrong codes; try again in ${waitFor} seconds`)
        if (mail && !mailed) return failed(429, `Please try again in ${Math.max(1, resendIn)} seconds`)
        return jsonReply(200, {
          type: 'email_check',
          tfa_type: mail ? 'email_check' : 'tfa_check',
          // The single sign-on answer must have it, as a text.
          access_token: '',
          secret: asked.secret,
          user: {
            name: identity.subject,
            ...(mail && maskedAddress !== null ? { email: maskedAddress } : {}),
            info: {}
          }
        })
      }
      case 'enrol':
        return failed(403, setUp)
      default:
        return failed(429, `Two-factor verification is not available right now; try again in ${asked.retryAfter} seconds`)
    }
  }

  const account: LoginCall = {
    pattern: '/api/login',
    device: ({ fields }) => deviceOf(fields),
    second,
    login: (call, answer) => logins(call, answer, false),
    reply
  }

  const known: ConsoleKnown = {
    // Some servers take the cookie for the header of that name; clients send none.
    credentials: { cookies: ['authorization'], headers: ['Authorization'], query: ['access_token'] },
    identify,
    logins: [account, {
      pattern: '/api/oidc/auth-query',
      device: ({ request }: Call) => deviceOf(queryOf(request)),
      login: (call, answer) => logins(call, answer, true),
      reply
    }],
    logoutPatterns: ['POST /api/logout'],
    denied: (_request, { status, code, members }) => {
      if (status >= 500) return undefined
      if (code === 'enrolment_required') return failed(403, setUp)
      // The text logs the Sciter client out, 401 all others: they ask for the password again.
      if (code === 'login_required' || code === 'credentials_unknown') return failed(401, 'Invalid token')
      return failed(status, textAt(members, 'detail') ?? code)
    }
  }
  return { console: known, signIn, owner }
}

function person (subject: string, session: string, email: string | undefined, exempt: LoggedIn['exempt']): LoggedIn {
  return { subject, session, kind: KIND, ...(email === undefined ? {} : { email }), exempt }
}

function answered (one: HeldAnswer): Reply {
  switch (one.held) {
    case 'released': {
      const headers: Record<string, string> = {}
      for (let i = 0; i < one.answer.headers.length; i += 2) {
        const name = (one.answer.headers[i] ?? '').toLowerCase()
        if (name !== 'content-length') headers[name] = one.answer.headers[i + 1] ?? ''
      }
      return { status: one.answer.status, headers, body: one.answer.body }
    }
    case 'refused': {
      const { code, retryAfter = 30 } = one.problem
      if (code === 'waiting') return failed(429, `Too many wrong codes; try again in ${retryAfter} seconds`)
      if (code === 'locked') return failed(403, 'Too many wrong codes; ask an administrator')
      return failed(400, WRONG_CODE)
    }
    case 'unknown':
      return failed(400, WRONG_CODE)
    case 'away':
      return failed(429, `Two-factor verification is not available right now; try again in ${one.retryAfter} seconds`)
    default:
      return one satisfies never
  }
}

/** What clients show is the text of `error`, whatever the status. */
export function failed (status: number, error: string): Reply {
  return jsonReply(status, { error })
}

/** The device that both calls name. */
function deviceOf (fields: Readonly<Record<string, unknown>>): string {
  return JSON.stringify([at(fields, 'id') ?? null, at(fields, 'uuid') ?? null])
}

function queryOf (request: FastifyRequest): Readonly<Record<string, unknown>> {
  const target = request.raw.url ?? ''
  const mark = target.indexOf('?')
  return Object.fromEntries(new URLSearchParams(mark === -1 ? '' : target.slice(mark)))
}

function hashed (token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}
