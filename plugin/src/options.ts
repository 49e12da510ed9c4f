// The plugin's options, parsed once: every mistake is one sentence, and all are named together.

import type { FastifyRequest } from 'fastify'
import type { Identify } from './model.ts'
import { pattern, type Pattern } from './path.ts'
import { readSealKeys, type SealKey } from './seal.ts'

/** A refusal as it would be told to a script. */
export interface Denied {
  readonly status: number
  readonly code: string
  /** Further members of the problem document. */
  readonly members: Readonly<Record<string, unknown>>
}

/** The same refusal in the console's own words. */
export interface DeniedAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: string | Buffer
}

export interface PosternOptions {
  /** Where the service listens, as `http://127.0.0.1:7070`. */
  readonly service: string
  /** `pk_<tenant>_<key id>_<secret>`, made by `postern tenants key`. */
  readonly tenantKey: string
  /** The console's own origin as browsers see it, as `https://console.example`. Never taken from `Host`. */
  readonly publicOrigin: string
  /** Who is logged in on this request; `null` = no credential at all. */
  readonly identify: Identify
  /** Where the pages are mounted; default `/2fa`. */
  readonly prefix?: string
  /** What the console takes for a login. `Authorization` and `access_token` always count. */
  readonly credentials?:
    | {
      readonly cookies?: readonly string[] | undefined
      readonly headers?: readonly string[] | undefined
      readonly query?: readonly string[] | undefined
    }
    | undefined
  /**
   * Where a single-page console keeps its token: the key in local or session storage, and the header it is sent in
   * (default `Authorization: Bearer <token>`). The pages take it over once; without this they need a session cookie.
   */
  readonly tokenInScript?:
    | {
      readonly key: string
      /** Further keys under which the console's pages want the same token. */
      readonly copies?: readonly string[] | undefined
      /** They keep it as JSON text, in quotes. */
      readonly quoted?: boolean | undefined
      readonly header?: string | undefined
      readonly scheme?: string | undefined
    }
    | undefined
  /**
   * Key ring that seals the cookie which stands for a token on the pages: `<id>:<base64 of 32 bytes>` each; the first
   * seals, all open. Replicas share it. Default: made from the tenant key.
   */
  readonly sealKeys?: readonly string[] | undefined
  /** Plain HTTP off loopback: the binding is a cookie that anybody on the network can read. Warns at every start. */
  readonly insecureCookies?: boolean | undefined
  /** `observe` reports what it would have refused and refuses nothing; `off` needs an end at most 7 days away. */
  readonly mode?: 'enforce' | 'observe' | { readonly off: { readonly until: string } } | undefined
  /** Routes that need a step-up, for consoles that cannot declare it: `POST /settings/*`. */
  readonly stepUpPatterns?:
    readonly (string | { readonly pattern: string; readonly maxAge?: number | undefined })[] | undefined
  /** Routes that pass without 2FA, for consoles that cannot declare it. */
  readonly publicPatterns?: readonly string[] | undefined
  /** How long sessions already found verified go on while the service does not answer; default 300, 0 to 900. */
  readonly graceSeconds?: number | undefined
  /** Deadline of one question to the service; default 2000. */
  readonly timeoutMs?: number | undefined
  /** Status of a refused script; default 401. */
  readonly deniedStatus?: 401 | 403 | undefined
  /**
   * Puts the refusal of a script into the console's own words, for pages that know no problem documents; `undefined`
   * leaves it. It changes what is said, never whether the request passes.
   */
  readonly denied?: ((request: FastifyRequest, denied: Denied) => DeniedAnswer | undefined) | undefined
  /** Sessions remembered in this process; default 10000. */
  readonly cacheSize?: number | undefined
  /** Allows @fastify/middie and @fastify/express, whose middleware runs before any gate can. */
  readonly allowMiddleware?: boolean | undefined
}

export type Mode = { readonly mode: 'enforce' | 'observe' } | { readonly mode: 'off'; readonly until: number }

export interface StepUpPattern extends Pattern {
  readonly maxAge: number
}

export interface Settings {
  readonly service: string
  readonly tenantKey: string
  readonly tenant: string
  readonly publicOrigin: string
  readonly identify: Identify
  readonly prefix: string
  readonly cookies: readonly string[]
  readonly headers: readonly string[]
  readonly query: readonly string[]
  readonly tokenInScript:
    | {
      readonly key: string
      readonly copies: readonly string[]
      readonly quoted: boolean
      readonly header: string
      readonly scheme: string
    }
    | undefined
  readonly sealKeys: readonly SealKey[]
  readonly insecureCookies: boolean
  readonly mode: Mode
  readonly stepUpPatterns: readonly StepUpPattern[]
  readonly publicPatterns: readonly Pattern[]
  readonly graceMs: number
  readonly timeoutMs: number
  readonly deniedStatus: 401 | 403
  readonly denied: PosternOptions['denied']
  readonly cacheSize: number
  readonly allowMiddleware: boolean
}

/** Oldest step-up any route may accept, and the one a route gets that names none. In seconds. */
export const STEP_UP = { ceiling: 900, standard: 300 } as const

const KNOWN = new Set([
  'service',
  'tenantKey',
  'publicOrigin',
  'identify',
  'prefix',
  'credentials',
  'tokenInScript',
  'sealKeys',
  'insecureCookies',
  'mode',
  'stepUpPatterns',
  'publicPatterns',
  'graceSeconds',
  'timeoutMs',
  'deniedStatus',
  'denied',
  'cacheSize',
  'allowMiddleware'
])

/** RFC 9110 5.6.2: what a name of a header or cookie is made of. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

const LONGEST_OFF = 7 * 86_400_000

/** Throws one error that names every mistake. `today` is epoch milliseconds, for the end of `off`. */
export function parseOptions (options: PosternOptions, today: number): Settings {
  const mistakes: string[] = []
  const wrong = (sentence: string): void => {
    mistakes.push(sentence)
  }

  for (const name of Object.keys(options)) if (!KNOWN.has(name)) wrong(`there is no option "${name}"`)

  const service = url(options.service)
  if (service === undefined || service.search !== '' || service.hash !== '' || service.username !== '') {
    wrong('"service" must be the URL of the 2FA service, as http://127.0.0.1:7070')
  }
  const tenant =
    typeof options.tenantKey === 'string'
      ? /^pk_([a-z0-9-]{1,40})_[a-z0-9-]{1,40}_[A-Za-z0-9_-]{16,}$/.exec(options.tenantKey)?.[1]
      : undefined
  if (options.tenantKey === undefined || options.tenantKey === '') { wrong('"tenantKey" is missing; make one with "postern tenants key"') } else if (tenant === undefined) wrong('"tenantKey" is not a key of the form pk_<tenant>_<key id>_<secret>')

  const insecureCookies = options.insecureCookies ?? false
  const origin = url(options.publicOrigin)
  if (origin === undefined || origin.origin !== options.publicOrigin) {
    wrong(
      '"publicOrigin" must be the origin that browsers see, scheme, host and port only, as https://console.example'
    )
  } else if (origin.protocol === 'http:' && !loopback(origin.hostname) && !insecureCookies) {
    wrong(
      '"publicOrigin" is plain HTTP off loopback, where browsers drop Secure cookies; use HTTPS, or set "insecureCookies: true" and accept that the network can read the binding'
    )
  }
  if (typeof options.identify !== 'function') wrong('"identify" must be a function that says who is logged in')

  const prefix = options.prefix ?? '/2fa'
  if (!/^(?:\/[A-Za-z0-9_-]+)+$/.test(prefix)) wrong('"prefix" must be a path like /2fa')

  const { cookies = [], headers = [], query = [] } = options.credentials ?? {}
  for (const name of [...cookies, ...headers, ...query]) {
    if (typeof name === 'string' && TOKEN.test(name)) continue
    wrong(`"credentials" names ${JSON.stringify(name)}, which cannot be the name of a cookie, header or parameter`)
  }
  const token = options.tokenInScript
  const { header = 'Authorization', scheme = header.toLowerCase() === 'authorization' ? 'Bearer ' : '' } = token ?? {}
  if (token !== undefined && (typeof token.key !== 'string' || token.key === '' || !TOKEN.test(header))) {
    wrong('"tokenInScript" must name the "key" in storage, and a "header" that can be one')
  }
  const sealKeys = readSealKeys([options.sealKeys ?? []].flat(), sentence => { wrong(`"sealKeys": ${sentence}`) })
  const graceSeconds = options.graceSeconds ?? 300
  if (!within(graceSeconds, 0, 900)) wrong('"graceSeconds" must be a whole number from 0 to 900')
  const timeoutMs = options.timeoutMs ?? 2000
  if (!within(timeoutMs, 50, 10_000)) wrong('"timeoutMs" must be a whole number from 50 to 10000')
  const cacheSize = options.cacheSize ?? 10_000
  if (!within(cacheSize, 1, 1_000_000)) wrong('"cacheSize" must be a whole number from 1 to 1000000')
  const deniedStatus = options.deniedStatus ?? 401
  if (deniedStatus !== 401 && deniedStatus !== 403) wrong('"deniedStatus" must be 401 or 403')

  if (options.denied !== undefined && typeof options.denied !== 'function') wrong('"denied" must be a function')

  const mode = parseMode(options.mode ?? 'enforce', today, wrong)
  const stepUpPatterns = (options.stepUpPatterns ?? []).flatMap(given => {
    const { pattern: text, maxAge = STEP_UP.standard } = typeof given === 'string' ? { pattern: given } : given
    if (!within(maxAge, 0, STEP_UP.ceiling)) { wrong(`the step-up pattern "${text}" has a "maxAge" that is not a whole number from 0 to ${STEP_UP.ceiling}`) }
    return compiled(text, 'loose', wrong).map(one => ({ ...one, maxAge }))
  })
  const publicPatterns = (options.publicPatterns ?? []).flatMap(text => compiled(text, 'exact', wrong))

  if (mistakes.length > 0 || service === undefined || tenant === undefined || mode === undefined) {
    throw new Error(`postern cannot start: ${mistakes.join('; ')}.`)
  }
  return Object.freeze({
    service: service.href.replace(/\/+$/, ''),
    tenantKey: options.tenantKey,
    tenant,
    publicOrigin: options.publicOrigin,
    identify: options.identify,
    prefix,
    cookies,
    headers: token === undefined ? headers : [...new Set([...headers, header])],
    query,
    tokenInScript: token === undefined
      ? undefined
      : { key: token.key, copies: token.copies ?? [], quoted: token.quoted ?? false, header, scheme },
    sealKeys,
    insecureCookies,
    mode,
    stepUpPatterns,
    publicPatterns,
    graceMs: graceSeconds * 1000,
    timeoutMs,
    deniedStatus,
    denied: options.denied,
    cacheSize,
    allowMiddleware: options.allowMiddleware ?? false
  })
}

/**
 * `true` trusts whoever connects, and a number trusts nobody in current Fastify: both make every client's address a
 * lie (GHSA-444r-cwp2-x5xf).
 */
export function refusedTrustProxy (trustProxy: unknown): string | undefined {
  if (trustProxy !== true && typeof trustProxy !== 'number') return undefined
  return `postern cannot start: the server has "trustProxy: ${String(trustProxy)}", which lets any client choose its address; name the proxies' addresses instead, as trustProxy: '10.0.0.0/8'.`
}

/** The seconds of a `maxAge`, or a sentence. */
export function checkedMaxAge (maxAge: number | undefined, where: string): number {
  const age = maxAge ?? STEP_UP.standard
  if (!within(age, 0, STEP_UP.ceiling)) {
    throw new Error(
      `postern cannot start: ${where} has a "maxAge" that is not a whole number from 0 to ${STEP_UP.ceiling}.`
    )
  }
  return age
}

function parseMode (
  mode: NonNullable<PosternOptions['mode']>,
  today: number,
  wrong: (sentence: string) => void
): Mode | undefined {
  if (mode === 'enforce' || mode === 'observe') return { mode }
  const until = typeof mode === 'object' && mode !== null ? Date.parse(mode.off?.until) : Number.NaN
  if (Number.isNaN(until)) wrong('"mode" must be "enforce", "observe" or { off: { until: "<date>" } }')
  else if (until - today > LONGEST_OFF) wrong('"mode" is off for more than 7 days; choose an earlier end')
  else return { mode: 'off', until }
  return undefined
}

function compiled (text: string, reading: 'exact' | 'loose', wrong: (sentence: string) => void): readonly Pattern[] {
  try {
    return [pattern(text, reading)]
  } catch (error) {
    wrong(error instanceof Error ? error.message.replace('postern: ', '') : 'a pattern is wrong')
    return []
  }
}

function url (text: unknown): URL | undefined {
  if (typeof text !== 'string' || !URL.canParse(text)) return undefined
  const parsed = new URL(text)
  return parsed.protocol === 'http:' || parsed.protocol === 'https:' ? parsed : undefined
}

function loopback (host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host)
}

function within (value: unknown, least: number, most: number): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most
}
