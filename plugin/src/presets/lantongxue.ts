// lantongxue/rustdesk-api-server-pro: the client API, and a panel that keeps its token in script. What the server says
// of a user is a name that anybody may be given, so the login's own user name is taken, and kept for the token in
// memory: after a restart of the gateway people log in again.

import { createHash } from 'node:crypto'
import { jsonReply, objectIn, textAt } from '../gateway/calls.ts'
import type {
  AskedFor, Call, ConsoleKnown, DeniedReply, LoginCall, Preset, PresetParts, Reply
} from '../gateway/preset.ts'
import type { FastifyRequest } from 'fastify'
import type { Identity } from '../model.ts'
import type { Denied } from '../options.ts'
import { CONSOLE_URL, createClientApi, failed } from './client-api.ts'

export const lantongxue: Preset = {
  name: 'lantongxue',
  text: 'lantongxue/rustdesk-api-server-pro: the client API and the panel at /admin/',
  // Its tokens are known by their login alone, and it has no single sign-on.
  settings: { lantongxue_console_url: CONSOLE_URL },
  create: parts => createLantongxue(parts)
}

/** The panel's codes: what it shows as an error, and what makes it forget its token. */
const SHOWN = 500
const LOGGED_OUT = 8888
const REMEMBERED = 20_000
const UNFIT = 'This user name cannot be used here: letters other than a to z are compared differently by databases'

const STEP_UP = ['/admin/users/add', '/admin/users/edit', '/admin/users/delete', '/admin/users/totp']

function createLantongxue (parts: PresetParts): ConsoleKnown {
  const owners = new Map<string, string>()

  function owner (token: string): Identity | null {
    const subject = owners.get(hashed(token))
    return subject === undefined ? null : { subject, session: token, kind: 'bearer' }
  }

  function logsIn (call: Call, token: string): string {
    const subject = userName(call)
    if (subject === undefined) throw new Error('the server logged in a user whose name it was not told')
    // The oldest go first.
    for (const key of owners.keys()) {
      if (owners.size < REMEMBERED) break
      owners.delete(key)
    }
    owners.set(hashed(token), subject)
    return subject
  }

  const api = createClientApi('lantongxue', parts, { owner, logsIn })

  return {
    ...api.console,
    tokenInScript: { key: 'SOY_token', quoted: true, header: 'Authorization', scheme: '' },
    identify: request => {
      const token = /^(?:Bearer )?([A-Za-z0-9]{16,128})$/.exec(request.headers.authorization ?? '')?.[1]
      return token === undefined ? null : owner(token)
    },
    logins: [
      ...api.console.logins.map(login => ({
        ...login,
        forwarded,
        first: (call: Call) => told(call) && userName(call) === undefined ? failed(400, UNFIT) : undefined
      })),
      panelLogin(logsIn)
    ],
    stepUpPatterns: STEP_UP,
    denied: (request, denied) => isPanel(request) ? refusal(denied) : api.console.denied?.(request, denied)
  }
}

function panelLogin (logsIn: (call: Call, token: string) => string): LoginCall {
  return {
    pattern: '/admin/auth/login',
    forwarded,
    first: call => told(call) && userName(call) === undefined ? coded(SHOWN, UNFIT) : undefined,
    login: (call, answer) => {
      const token = answer.status === 200 ? textAt(objectIn(answer.body), 'data.token') : undefined
      if (token === undefined) return undefined
      return { identity: { subject: logsIn(call, token), session: token, kind: 'bearer' }, ask: 'page', returnPath: '/' }
    },
    reply: (_call, _login, asked) => panelReply(asked)
  }
}

function panelReply (asked: AskedFor): Reply {
  switch (asked.asked) {
    case 'code': return coded(SHOWN, 'Two-factor verification required: reload this page')
    case 'enrol': return coded(SHOWN, 'Two-factor verification must be set up first: reload this page')
    case 'unavailable': return coded(SHOWN, `Two-factor verification is not available right now; try again in ${asked.retryAfter} seconds`)
    default: return asked satisfies never
  }
}

function refusal ({ code, status, members }: Denied): DeniedReply {
  switch (code) {
    case 'step_up_required': return { ...coded(SHOWN, 'A fresh verification code is needed: reload this page, then save again'), resume: 'page' }
    case 'login_required': return { ...coded(SHOWN, 'Two-factor verification required: reload this page'), resume: 'page' }
    case 'enrolment_required': return { ...coded(SHOWN, 'Two-factor verification must be set up first: reload this page'), resume: 'page' }
    case 'credentials_unknown': return coded(LOGGED_OUT, 'Please log in again')
    default: return coded(SHOWN, status === 503 ? 'Two-factor verification is not available right now; try again soon' : textAt(members, 'detail') ?? code)
  }
}

function coded (code: number, message: string): Reply {
  return jsonReply(200, { code, message, data: null })
}

/** The server reads JSON whatever the type says, and keys whatever their case; of two alike the last counts. */
const named = ({ body }: Call): readonly string[] =>
  Object.keys(objectIn(body)).filter(key => key.toUpperCase().toLowerCase() === 'username')
const told = (call: Call): boolean => named(call).length > 0
const forwarded = ({ body }: Call): Buffer => Buffer.from(JSON.stringify(objectIn(body)))

/**
 * The same for every spelling that a database may take for the same user: case, width, white space. Letters whose
 * comparison differs between databases are nobody's, and so is a name that is said twice.
 */
function userName (call: Call): string | undefined {
  const [key, ...more] = named(call)
  if (key === undefined || more.length > 0) return undefined
  const name = (textAt(objectIn(call.body), key) ?? '').normalize('NFKC').trim().toLowerCase()
  return /^[\x21-\x7e\p{Script=Han} ]+$/u.test(name) ? name : undefined
}

function isPanel (request: FastifyRequest): boolean {
  return /^\/+admin(?:\/|$)/i.test(request.raw.url ?? '')
}

function hashed (token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}
