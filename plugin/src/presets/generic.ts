// A console that no other preset knows, described by settings: how to ask it who is logged in, and what changes
// settings.

import { headersOf } from '../proxy/exchange.ts'
import { createIdentities } from '../gateway/identities.ts'
import { cookieIn, jsonReply, objectIn, textAt } from '../gateway/calls.ts'
import { createEmptySessions } from '../gateway/empty-sessions.ts'
import type { ConsoleKnown, LoginCall, Preset, PresetParts } from '../gateway/preset.ts'
import type { FastifyRequest } from 'fastify'
import type { Identity } from '../model.ts'

export const generic: Preset = {
  name: 'generic',
  text: 'any console with a call that says who is logged in',
  settings: {
    generic_cookie: { type: 'text', text: 'The console\'s session cookie, if it has one.' },
    generic_token_header: { type: 'text', text: 'The header that carries its token, if it has tokens: `Authorization`, `X-Token`.' },
    generic_token_scheme: { type: 'text', text: 'What stands before the token; default `Bearer` in `Authorization`, nothing elsewhere.' },
    generic_token_key: { type: 'text', text: 'The key in local or session storage under which its pages keep the token.' },
    generic_who: { type: 'text', required: true, text: 'The call that says who is logged in, as `GET /api/me`. It answers 200 with JSON that names the user, or anything else for nobody.' },
    generic_subject: { type: 'text', default: 'id', text: 'Where that JSON has the user\'s immutable id: `data.user.id`.' },
    generic_email: { type: 'text', text: 'Where it has the e-mail address.' },
    generic_display_name: { type: 'text', text: 'Where it has the name to show.' },
    generic_who_seconds: { type: 'integer', default: '5', min: 0, max: 300, text: 'How long that answer is remembered for one session or token.' },
    generic_login: { type: 'text', text: 'The login call, as `POST /login`. Needed where its answer hands out a token.' },
    generic_login_token: { type: 'text', text: 'Where the JSON of its answer has the token. Such an answer is held until the code is right.' },
    generic_login_client: { type: 'text', default: 'page', oneOf: ['page', 'refuse'], text: 'A held login continues on a page in the browser (`page`), or is refused (`refuse`).' },
    generic_fresh_login: { type: 'flag', default: 'false', text: 'For a console that keeps its session id at login: the login call goes without the session cookie, so that it makes a new one.' },
    generic_step_up: { type: 'list', text: 'Calls that change settings: `POST /settings/*`.' },
    generic_password: { type: 'list', text: 'Calls after whose success the password is another one; all other verifications of the user end.' },
    generic_logout: { type: 'list', text: 'Calls that log out.' },
    generic_public: { type: 'list', text: 'Calls that need no second factor.' }
  },
  create: parts => createGeneric(parts)
}

function createGeneric ({ value, list, wrong, warn, call, now }: PresetParts): ConsoleKnown {
  const cookie = value('generic_cookie')
  const header = value('generic_token_header')
  const scheme = value('generic_token_scheme') ?? (header?.toLowerCase() === 'authorization' ? 'Bearer' : '')
  const [method = '', path = ''] = /^([A-Z]+) (\/\S*)$/.exec(value('generic_who') ?? '')?.slice(1) ?? []
  if (path === '') wrong('POSTERN_GATEWAY_GENERIC_WHO must be a call, as GET /api/me')
  if (cookie === undefined && header === undefined) wrong('POSTERN_GATEWAY_GENERIC_COOKIE or POSTERN_GATEWAY_GENERIC_TOKEN_HEADER is missing: what is a login?')
  const tokenAt = value('generic_login_token')
  const login = value('generic_login')
  if (tokenAt !== undefined && (login === undefined || header === undefined)) wrong('POSTERN_GATEWAY_GENERIC_LOGIN_TOKEN needs POSTERN_GATEWAY_GENERIC_LOGIN and POSTERN_GATEWAY_GENERIC_TOKEN_HEADER')
  const key = value('generic_token_key')
  const subjectAt = value('generic_subject') ?? 'id'
  const identities = createIdentities({ now, keepMs: Number(value('generic_who_seconds') ?? '5') * 1000 })
  const empty = createEmptySessions()

  async function ask (kind: 'cookie' | 'token', session: string): Promise<Identity | null> {
    const answer = await call({
      method,
      path,
      headers: { accept: 'application/json', ...(kind === 'cookie' ? { cookie: `${cookie ?? ''}=${session}` } : { [header ?? '']: scheme === '' ? session : `${scheme} ${session}` }) }
    })
    if (answer.status >= 500) throw new Error('the console could not say who is logged in')
    const said = answer.status === 200 ? objectIn(answer.body) : {}
    const subject = textAt(said, subjectAt)
    if (subject === undefined) {
      if (kind === 'token') return null
      empty.add(session)
      return { subject: null, session, kind }
    }
    if (kind === 'cookie' && empty.has(session)) {
      warn('the console keeps its session id at login; such a session is nobody\'s here: set POSTERN_GATEWAY_GENERIC_FRESH_LOGIN')
      return null
    }
    const email = value('generic_email')
    const name = value('generic_display_name')
    return {
      subject,
      session,
      kind,
      ...(email === undefined ? {} : { email: textAt(said, email) ?? null }),
      ...(name === undefined ? {} : { displayName: textAt(said, name) })
    }
  }

  function identify (request: FastifyRequest): Identity | null | Promise<Identity | null> {
    const token = header === undefined ? undefined : tokenIn(request, header, scheme)
    if (token !== undefined) return identities.of(`t ${token}`, async () => await ask('token', token))
    const session = cookie === undefined ? undefined : cookieIn(request, cookie)
    if (session === undefined || session === '') return null
    return identities.of(`c ${session}`, async () => await ask('cookie', session))
  }

  const held: readonly LoginCall[] = tokenAt === undefined || login === undefined
    ? []
    : [{
        pattern: login,
        login: async (_call, answer) => {
          const token = answer.status < 300 ? textAt(objectIn(answer.body), tokenAt) : undefined
          if (token === undefined) return undefined
          const identity = await ask('token', token)
          if (identity === null || identity.subject === null) throw new Error('the console does not know the token that it gave')
          return { identity, ask: 'page' }
        },
        reply: (_call, _login, asked) => {
          switch (asked.asked) {
            case 'code': return jsonReply(401, { error: 'Two-factor verification required', code: 'login_required', verify_url: value('generic_login_client') === 'page' ? asked.verifyUrl : null })
            case 'enrol': return jsonReply(403, { error: 'Two-factor verification must be set up first', code: 'enrolment_required', verify_url: asked.enrolUrl })
            default: return jsonReply(429, { error: 'Two-factor verification is not available right now', code: asked.code, retry_after: asked.retryAfter })
          }
        }
      }]

  return {
    credentials: { cookies: cookie === undefined ? [] : [cookie], headers: header === undefined ? [] : [header] },
    tokenInScript: key === undefined || header === undefined ? undefined : { key, header, scheme: scheme === '' ? '' : `${scheme} ` },
    publicPatterns: list('generic_public'),
    stepUpPatterns: list('generic_step_up'),
    passwordPatterns: list('generic_password'),
    logoutPatterns: list('generic_logout'),
    identify,
    logins: held,
    freshLogin: value('generic_fresh_login') === 'true' ? login : undefined,
    passing: (request, answer) => {
      const sets = answer !== undefined && cookie !== undefined && headersOf(answer, 'set-cookie').some(one => one.startsWith(`${cookie}=`))
      // A call that changes something may have changed who is logged in.
      if (!sets && ['GET', 'HEAD', 'OPTIONS'].includes(request.method)) return
      const session = cookie === undefined ? undefined : cookieIn(request, cookie)
      if (session !== undefined) identities.forget(`c ${session}`)
    }
  }
}

function tokenIn (request: FastifyRequest, header: string, scheme: string): string | undefined {
  const text = request.headers[header.toLowerCase()]
  if (typeof text !== 'string' || text === '') return undefined
  if (scheme === '') return text
  const start = `${scheme} `
  // Another form is nobody's, and so refused: the console may be less strict.
  return text.slice(0, start.length).toLowerCase() === start.toLowerCase() && /^\S+$/.test(text.slice(start.length)) ? text.slice(start.length) : undefined
}
