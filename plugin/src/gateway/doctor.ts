// postern-gateway doctor: looks at everything the gateway needs, one line each, and says what to do where something is
// amiss. It listens nowhere and changes nothing.

import { createHash, randomBytes } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { createUpstream, type Upstream } from '../proxy/exchange.ts'
import { createKnown, type Clocks } from './known.ts'
import type { ConsoleKnown, Preset } from './preset.ts'
import { readConfig, type Config } from './settings.ts'

export interface DoctorParts {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly presets: ReadonlyMap<string, Preset>
  readonly clocks: Clocks
  readonly print: (line: string) => void
  /** Where the console itself would be reached from outside, if it were. */
  readonly upstreamPublic?: string | undefined
}

const PATIENCE_MS = 5_000

/** Prints what passed and what failed; answers the exit code. */
export async function diagnoseGateway ({ env, presets, clocks, print, upstreamPublic }: DoctorParts): Promise<0 | 1> {
  let failures = 0
  const look = async <T>(what: string, find: () => Promise<readonly [string, T]>): Promise<T | undefined> => {
    try {
      const [sentence, found] = await find()
      print(`passed  ${what}: ${sentence}`)
      return found
    } catch (error) {
      failures += 1
      print(`failed  ${what}: ${error instanceof Error ? error.message : String(error)}`)
      return undefined
    }
  }
  const verdict = (): 0 | 1 => {
    print(failures === 0 ? 'all passed' : `${failures} failed`)
    return failures === 0 ? 0 : 1
  }

  let upstream: Upstream | undefined
  let asked: { readonly path: string, readonly status: number } | undefined
  const parts = await look('configuration', async () => {
    const config = readConfig(env, presets)
    const behind = createUpstream({ ...config, origin: config.upstream, timeoutMs: PATIENCE_MS })
    upstream = behind
    const heard: Upstream['read'] = async outgoing => {
      const answer = await behind.read(outgoing)
      asked = { path: outgoing.path, status: 'failed' in answer ? 0 : answer.status }
      return answer
    }
    const known = createKnown(config, heard, clocks, () => {})
    return [`preset ${config.preset.name}`, { config, known, heard }] as const
  })
  if (parts === undefined) return verdict()
  const { config, known, heard } = parts
  try {
    const there = await look('console', async () => await lookAtConsole(config, heard))
    if (there === true) await look('who is logged in', async () => await lookAtNobody(known, () => asked))
    await look('service', async () => await lookAtService(config))
    if (upstreamPublic !== undefined) await look('console from outside', async () => await lookFromOutside(config, upstreamPublic))
  } finally {
    await upstream?.close()
  }
  return verdict()
}

async function lookAtConsole ({ upstream, publicOrigin }: Config, read: Upstream['read']): Promise<readonly [string, true]> {
  const answer = await read({ method: 'GET', path: '/', headers: ['host', new URL(publicOrigin).host, 'accept-encoding', 'identity'], body: undefined })
  if ('failed' in answer) throw new Error(`nothing answers at ${upstream}; start the console, or correct POSTERN_GATEWAY_UPSTREAM`)
  return [`answers at ${upstream}`, true]
}

/** An invented login must be nobody's, and the call that says so must be there. */
async function lookAtNobody (
  known: ConsoleKnown,
  asked: () => { readonly path: string, readonly status: number } | undefined
): Promise<readonly [string, undefined]> {
  const invented = randomBytes(16).toString('hex')
  const { cookies = [], headers = [] } = known.credentials
  const logins = [
    ...cookies.map(name => ({ cookie: `${name}=${invented}` })),
    ...headers.flatMap(name => [`Bearer ${invented}`, invented].map(value => ({ [name.toLowerCase()]: value })))
  ]
  let said: { readonly path: string, readonly status: number } | undefined
  for (const login of logins) {
    const before = asked()
    const identity = await known.identify(requestWith(login))
    const after = asked()
    if (after !== before) said = after
    if (identity !== null && identity.subject !== null) throw new Error('the console takes an invented login for somebody\'s; the settings of the preset name the wrong call')
  }
  if (said === undefined) throw new Error('the preset asked the console nothing; name the cookie or header of its logins')
  if (said.status === 404 || said.status === 405) throw new Error(`${said.path} answers ${said.status}, so everybody would be nobody; is it the call that says who is logged in?`)
  return [`${said.path} answers ${said.status} for an invented login, which is nobody's`, undefined]
}

async function lookAtService ({ service, tenantKey, timeoutMs }: Config): Promise<readonly [string, undefined]> {
  const name = createHash('sha256').update('postern-gateway doctor').digest('base64url')
  const headers = { authorization: `Bearer ${tenantKey}`, 'postern-subject': Buffer.from('doctor').toString('base64url'), 'postern-browser': 'none' }
  const answer = await answerOf(`${service}/v1/assurances/${name}`, timeoutMs, headers)
  if (answer === undefined) throw new Error(`nothing answers at ${service}; start postern serve, or correct POSTERN_GATEWAY_SERVICE`)
  if (answer.status === 401 || answer.status === 403) throw new Error('the service does not know POSTERN_GATEWAY_TENANT_KEY as a gate key; make one with postern tenants key')
  if (answer.status !== 200) throw new Error(`${service} answers ${answer.status}; is it the address of the 2FA service?`)
  return [`answers at ${service} and knows the key`, undefined]
}

async function lookFromOutside ({ prefix }: Config, address: string): Promise<readonly [string, undefined]> {
  if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol)) throw new Error('--upstream-public must be a URL, as http://203.0.113.7:21114')
  const { origin } = new URL(address)
  const answer = await answerOf(origin, PATIENCE_MS)
  if (answer === undefined) return [`nothing answers at ${origin}`, undefined]
  const own = await answerOf(`${origin}${prefix}/postern.js`, PATIENCE_MS)
  if (own?.status === 200) return [`the gateway answers at ${origin}`, undefined]
  throw new Error(`${origin} answers past the gateway, without a second factor; bind the console to loopback or a private network, or close its port to others`)
}

async function answerOf (
  url: string,
  timeoutMs: number,
  headers: Readonly<Record<string, string>> = {}
): Promise<Response | undefined> {
  try {
    const answer = await fetch(url, { headers, redirect: 'manual', signal: AbortSignal.timeout(timeoutMs) })
    await answer.body?.cancel()
    return answer
  } catch {
    return undefined
  }
}

// The one narrowing of this boundary: as much of a request as presets look at.
function requestWith (headers: Readonly<Record<string, string>>): FastifyRequest {
  return { method: 'GET', url: '/', headers, raw: { url: '/', headers, rawHeaders: Object.entries(headers).flat() } } as unknown as FastifyRequest
}
