// lejianwen/rustdesk-api: the client API, and a web console that keeps its token in script and sends it as `api-token`.
// Its pages know no 2FA; they reload when an answer says `code: 403`, and that is where ours come in.

import { jsonReply, objectIn, textAt } from '../gateway/calls.ts'
import type {
  Answered, AskedFor, ConsoleKnown, DeniedReply, Login, LoginCall, Preset, PresetParts, Reply
} from '../gateway/preset.ts'
import type { FastifyRequest } from 'fastify'
import type { Identity } from '../model.ts'
import type { Denied } from '../options.ts'
import { clientApiSettings, createClientApi } from './client-api.ts'

export const lejianwen: Preset = {
  name: 'lejianwen',
  text: 'lejianwen/rustdesk-api: the client API and the web console at /_admin/',
  settings: clientApiSettings('lejianwen'),
  create: parts => createLejianwen(parts)
}

const HEADER = 'api-token'
const CONSOLE = '/_admin/'
/** The console's word for "log in again": its pages drop their token and reload. */
const RELOAD = 403
const FAILED = 101

/** What changes an account, or lets another in. */
const STEP_UP = [
  'POST /api/admin/user/changeCurPwd',
  'POST /api/admin/user/create',
  'POST /api/admin/user/update',
  'POST /api/admin/user/delete',
  'POST /api/admin/user/changePwd',
  'POST /api/admin/oauth/*',
  'POST /api/admin/user_token/*',
  'POST /api/admin/rustdesk/*',
  'POST /api/admin/group/*',
  'POST /api/admin/device_group/*'
]

function createLejianwen (parts: PresetParts): ConsoleKnown {
  const api = createClientApi('lejianwen', parts)

  function identify (request: FastifyRequest): Identity | null | Promise<Identity | null> {
    const token = request.headers[HEADER]
    if (token === undefined) return api.console.identify(request)
    // Exactly what its login hands out; anything else is nobody's, and so refused.
    return typeof token === 'string' && /^[A-Za-z0-9._-]+$/.test(token) ? api.owner(token) : null
  }

  async function logsIn (answer: Answered): Promise<Login | undefined> {
    const said = answer.status === 200 ? objectIn(answer.body) : {}
    const token = textAt(said, 'data.token')
    if (token === undefined) return undefined
    const identity = await api.owner(token)
    if (identity === null || identity.subject === null) throw new Error('the console does not know the token that it gave')
    return { identity, ask: 'page', returnPath: CONSOLE }
  }

  const reply: LoginCall['reply'] = (_call, _login, asked) => said(asked)
  const login = (pattern: string): LoginCall =>
    ({ pattern, login: async (_call, answer) => await logsIn(answer), reply })

  return {
    ...api.console,
    credentials: { headers: [HEADER, 'Authorization'], query: ['access_token', HEADER] },
    tokenInScript: { key: 'access_token', copies: ['wc-option:local:access_token'], header: HEADER },
    identify,
    logins: [
      ...api.console.logins,
      login('/api/admin/login'),
      login('/api/admin/user/register'),
      login('/api/admin/oidc/auth-query'),
      {
        ...login('/api/admin/user/current'),
        // It echoes the caller's own token, which has passed; only another one would be a login.
        login: async ({ request }, answer) => {
          const login = await logsIn(answer)
          return login?.identity.session === request.headers[HEADER] ? undefined : login
        }
      }
    ],
    stepUpPatterns: STEP_UP,
    passwordPatterns: ['POST /api/admin/user/changeCurPwd'],
    logoutPatterns: [...api.console.logoutPatterns ?? [], 'POST /api/admin/logout'],
    denied: (request, denied) => isConsole(request) ? refusal(denied) : api.console.denied?.(request, denied)
  }
}

function said (asked: AskedFor): Reply {
  switch (asked.asked) {
    case 'code': return coded(RELOAD, 'Two-factor verification required')
    case 'enrol': return coded(RELOAD, 'Two-factor verification must be set up first')
    case 'unavailable': return coded(FAILED, `Two-factor verification is not available right now; try again in ${asked.retryAfter} seconds`)
    default: return asked satisfies never
  }
}

function refusal ({ code, status, members }: Denied): DeniedReply {
  switch (code) {
    case 'step_up_required': return { ...coded(RELOAD, 'A fresh verification code is needed; then save again'), resume: 'token' }
    case 'login_required': return { ...coded(RELOAD, 'Two-factor verification required'), resume: 'token' }
    case 'enrolment_required': return { ...coded(RELOAD, 'Two-factor verification must be set up first'), resume: 'token' }
    // A token that is nobody's.
    case 'credentials_unknown': return coded(RELOAD, 'Please log in again')
    default: return coded(FAILED, status === 503 ? 'Two-factor verification is not available right now; try again soon' : textAt(members, 'detail') ?? code)
  }
}

/** Its calls always answer 200, and say in `code` how it went. */
function coded (code: number, message: string): Reply {
  return jsonReply(200, { code, message, data: null })
}

function isConsole (request: FastifyRequest): boolean {
  return request.headers[HEADER] !== undefined || /^\/+api\/+admin(?:\/|$)/i.test(request.raw.url ?? '')
}
