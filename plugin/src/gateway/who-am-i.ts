// A console described by settings: what it takes for a login, and the call that says whose it is.

import type { FastifyRequest } from 'fastify'
import type { Identity } from '../model.ts'
import { headersOf } from '../proxy/exchange.ts'
import { cookieIn, objectIn, textAt } from './calls.ts'
import { createIdentities } from './identities.ts'
import type { AnswerHead, ConsoleKnown, PresetParts, Setting } from './preset.ts'
import { createSessionUsers } from './session-users.ts'

const ROWS = {
  cookie: { type: 'text', text: 'The console\'s session cookie, if it has one.' },
  token_header: { type: 'text', text: 'The header that carries its token, if it has tokens: `Authorization`, `X-Token`.' },
  token_scheme: { type: 'text', text: 'What stands before the token; default `Bearer` in `Authorization`, nothing elsewhere.' },
  token_parameters: { type: 'list', text: 'Parameters in the address that it takes for a token. A login that comes in one is refused.' },
  token_key: { type: 'text', text: 'The key in local or session storage under which its pages keep the token.' },
  who: { type: 'text', required: true, text: 'The call that says who is logged in, as `GET /api/me`. It answers 200 with JSON that names the user, or anything else for nobody.' },
  subject: { type: 'text', default: 'id', text: 'Where that JSON has the user\'s immutable id: `data.user.id`.' },
  email: { type: 'text', text: 'Where it has the e-mail address.' },
  display_name: { type: 'text', text: 'Where it has the name to show.' },
  who_seconds: { type: 'integer', default: '5', min: 0, max: 300, text: 'How long that answer is remembered for one session or token.' }
} as const satisfies Record<string, Setting>

type Row = keyof typeof ROWS

/** The settings of such a console, for the preset whose settings begin with `prefix`. */
export function whoSettings (prefix: string): Readonly<Record<string, Setting>> {
  return Object.fromEntries(Object.entries(ROWS).map(([name, row]) => [`${prefix}_${name}`, row]))
}

export interface WhoAmI extends Pick<ConsoleKnown, 'credentials' | 'tokenInScript' | 'identify'> {
  /** Asks the console; nobody it knows is `null` for a token, and a session without a subject for a cookie. */
  readonly ask: (kind: 'cookie' | 'token', session: string) => Promise<Identity | null>
  readonly tokens: boolean
  readonly passing: (request: FastifyRequest, answer?: AnswerHead) => void
}

/** `advice` says what helps where a console keeps its session id at login. */
export function createWhoAmI (parts: PresetParts, prefix: string, advice: string): WhoAmI {
  const { value, list, wrong, warn, call, now } = parts
  const setting = (row: Row): string | undefined => value(`${prefix}_${row}`)
  const named = (row: Row): string => `POSTERN_GATEWAY_${prefix.toUpperCase()}_${row.toUpperCase()}`
  const cookie = setting('cookie')
  const header = setting('token_header')
  const scheme = setting('token_scheme') ?? (header?.toLowerCase() === 'authorization' ? 'Bearer' : '')
  const [method = '', path = ''] = /^([A-Z]+) (\/\S*)$/.exec(setting('who') ?? '')?.slice(1) ?? []
  if (path === '') wrong(`${named('who')} must be a call, as GET /api/me`)
  if (cookie === undefined && header === undefined) wrong(`${named('cookie')} or ${named('token_header')} is missing: what is a login?`)
  const key = setting('token_key')
  const subjectAt = setting('subject') ?? ROWS.subject.default
  const identities = createIdentities({ now, keepMs: Number(setting('who_seconds') ?? ROWS.who_seconds.default) * 1000 })
  const users = createSessionUsers()

  const ask: WhoAmI['ask'] = async (kind, session) => {
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
      users.stays(session, null)
      return { subject: null, session, kind }
    }
    if (kind === 'cookie' && !users.stays(session, subject)) {
      identities.keepNone()
      warn(`the console keeps its session id at login; such a session is nobody's here: ${advice}`)
      return null
    }
    const email = setting('email')
    const name = setting('display_name')
    return {
      subject,
      session,
      kind,
      ...(email === undefined ? {} : { email: textAt(said, email) ?? null }),
      ...(name === undefined ? {} : { displayName: textAt(said, name) })
    }
  }

  return {
    ask,
    tokens: header !== undefined,
    credentials: { cookies: cookie === undefined ? [] : [cookie], headers: header === undefined ? [] : [header], query: list(`${prefix}_token_parameters`) },
    tokenInScript: key === undefined || header === undefined ? undefined : { key, header, scheme: scheme === '' ? '' : `${scheme} ` },
    identify: request => {
      const token = header === undefined ? undefined : tokenIn(request, header, scheme)
      if (token !== undefined) return identities.of(`t ${token}`, async () => await ask('token', token))
      const session = cookie === undefined ? undefined : cookieIn(request, cookie)
      if (session === undefined || session === '') return null
      return identities.of(`c ${session}`, async () => await ask('cookie', session))
    },
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
