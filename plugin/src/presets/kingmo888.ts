// kingmo888/rustdesk-api-server: the client API, and a Django console with a session cookie and two logins.

import { cookieIn, jsonReply, objectIn, textAt } from '../gateway/calls.ts'
import { createIdentities } from '../gateway/identities.ts'
import type { AskedFor, ConsoleKnown, LoginCall, Preset, PresetParts, Reply } from '../gateway/preset.ts'
import { createSessionUsers } from '../gateway/session-users.ts'
import type { FastifyRequest } from 'fastify'
import type { Identity } from '../model.ts'
import { headersOf } from '../proxy/exchange.ts'
import { clientApiSettings, createClientApi } from './client-api.ts'

export const kingmo888: Preset = {
  name: 'kingmo888',
  text: 'kingmo888/rustdesk-api-server: the client API, the web console and the Django administration',
  settings: clientApiSettings('kingmo888'),
  create: parts => createKingmo888(parts)
}

const COOKIE = 'sessionid'
const HOME = '/api/work'
/** A session belongs to one user for its whole life: Django makes a new one at login. */
const KEEP_MS = 60_000

function createKingmo888 (parts: PresetParts): ConsoleKnown {
  const { call, now, warn } = parts
  const api = createClientApi('kingmo888', parts)
  const identities = createIdentities({ now, keepMs: KEEP_MS })
  const users = createSessionUsers()

  /** There is no call that says who is logged in: the home page does, in its head line. */
  async function ask (session: string): Promise<Identity | null> {
    const answer = await call({ method: 'GET', path: HOME, headers: { cookie: `${COOKIE}=${session}`, accept: 'text/html' } })
    if (answer.status >= 500) throw new Error('the console could not say who is logged in')
    if (answer.status !== 200) {
      users.stays(session, null)
      return { subject: null, session, kind: 'cookie' }
    }
    // Up to the last bracket and untrimmed: anybody may register a name with brackets or spaces in it.
    const name = /【[^【】<:：]*[:：]([^<]+)】\s*</.exec(answer.body.toString('utf8'))?.[1]
    if (name === undefined) throw new Error('the console\'s home page does not name the user')
    const subject = unescaped(name)
    if (!users.stays(session, subject)) {
      identities.keepNone()
      warn('the console kept a session id at login; such a session is nobody\'s here')
      return null
    }
    return { subject, session, kind: 'cookie' }
  }

  const owner = (session: string) => identities.of(session, async () => await ask(session))

  function identify (request: FastifyRequest): Identity | null | Promise<Identity | null> {
    if (request.headers.authorization !== undefined) return api.console.identify(request)
    const session = cookieIn(request, COOKIE)
    return session === undefined || !/^[a-z0-9]{16,64}$/.test(session) ? null : owner(session)
  }

  const login = (pattern: string, reply: (asked: AskedFor) => Reply): LoginCall => ({
    pattern,
    login: async (_call, answer) => {
      const session = headersOf(answer, 'set-cookie')
        .map(line => new RegExp(`^${COOKIE}=([a-z0-9]{16,64})(?:;|$)`).exec(line)?.[1]).find(one => one !== undefined)
      const identity = session === undefined ? null : await owner(session)
      if (identity === null || identity.subject === null) return undefined
      const [location = ''] = headersOf(answer, 'location')
      return { identity, ask: 'page', returnPath: location.startsWith('/') ? location : (textAt(objectIn(answer.body), 'url') ?? HOME) }
    },
    reply: (_call, _login, asked) => reply(asked)
  })

  return {
    ...api.console,
    credentials: { ...api.console.credentials, cookies: [COOKIE] },
    identify,
    // Its routes have no end: `/api/loginX` logs in as well.
    logins: [...api.console.logins.map(one => ({ ...one, pattern: `${one.pattern}*` })), login('/api/user_action', pageReply), login('/admin/login', documentReply)],
    stepUpPatterns: ['POST /admin/password_change', 'POST /admin/api/*', 'POST /admin/auth/*'],
    passwordPatterns: ['POST /admin/password_change'],
    logoutPatterns: [...api.console.logoutPatterns ?? [], '/admin/logout'],
    denied: (request, denied) =>
      request.headers.authorization === undefined ? undefined : api.console.denied?.(request, denied)
  }
}

/** Its login page goes where `url` says. */
function pageReply (asked: AskedFor): Reply {
  switch (asked.asked) {
    case 'code': return jsonReply(200, { code: 1, url: asked.verifyUrl })
    case 'enrol': return jsonReply(200, { code: 1, url: asked.enrolUrl })
    case 'unavailable': return jsonReply(200, { code: 0, msg: unavailable(asked.retryAfter) })
    default: return asked satisfies never
  }
}

function documentReply (asked: AskedFor): Reply {
  switch (asked.asked) {
    case 'code': return { status: 303, headers: { location: asked.verifyUrl, 'cache-control': 'no-store' } }
    case 'enrol': return { status: 303, headers: { location: asked.enrolUrl, 'cache-control': 'no-store' } }
    case 'unavailable': return {
      status: 429,
      headers: { 'content-type': 'text/plain; charset=utf-8', 'retry-after': String(asked.retryAfter), 'cache-control': 'no-store' },
      body: unavailable(asked.retryAfter)
    }
    default: return asked satisfies never
  }
}

function unavailable (seconds: number): string {
  return `Two-factor verification is not available right now; try again in ${seconds} seconds`
}

/** What Django's templates escape. */
function unescaped (text: string): string {
  return text.replace(/&(?:lt|gt|quot|#x27|#39|amp);/g, one =>
    ({ '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#x27;': "'", '&#39;': "'", '&amp;': '&' })[one] ?? one)
}
