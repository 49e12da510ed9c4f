// A console that no other preset knows, described by settings: how to ask it who is logged in, and what changes
// settings.

import { jsonReply, objectIn, textAt } from '../gateway/calls.ts'
import { createWhoAmI, whoSettings } from '../gateway/who-am-i.ts'
import type { ConsoleKnown, LoginCall, Preset, PresetParts } from '../gateway/preset.ts'

export const generic: Preset = {
  name: 'generic',
  text: 'any console with a call that says who is logged in',
  settings: {
    ...whoSettings('generic'),
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

function createGeneric (parts: PresetParts): ConsoleKnown {
  const { value, list, wrong } = parts
  const console = createWhoAmI(parts, 'generic', 'set POSTERN_GATEWAY_GENERIC_FRESH_LOGIN')
  const tokenAt = value('generic_login_token')
  const login = value('generic_login')
  if (tokenAt !== undefined && (login === undefined || !console.tokens)) wrong('POSTERN_GATEWAY_GENERIC_LOGIN_TOKEN needs POSTERN_GATEWAY_GENERIC_LOGIN and POSTERN_GATEWAY_GENERIC_TOKEN_HEADER')

  const held: readonly LoginCall[] = tokenAt === undefined || login === undefined
    ? []
    : [{
        pattern: login,
        login: async (_call, answer) => {
          const token = answer.status < 300 ? textAt(objectIn(answer.body), tokenAt) : undefined
          if (token === undefined) return undefined
          const identity = await console.ask('token', token)
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
    credentials: console.credentials,
    tokenInScript: console.tokenInScript,
    publicPatterns: list('generic_public'),
    stepUpPatterns: list('generic_step_up'),
    passwordPatterns: list('generic_password'),
    logoutPatterns: list('generic_logout'),
    identify: console.identify,
    logins: held,
    freshLogin: value('generic_fresh_login') === 'true' ? login : undefined,
    passing: console.passing
  }
}
