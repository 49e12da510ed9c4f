// Every setting of the gateway with its type, range, default and sentence; environment and file become one Config.

import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { readSealKeys } from '../seal.ts'
import type { Preset, Setting } from './preset.ts'

/** Settings are named POSTERN_GATEWAY_<NAME> in the environment and <name> in the file. */
export const SETTINGS = {
  upstream: { type: 'url', required: true, text: 'The console behind, as `http://127.0.0.1:21114`. It must be reachable through the gateway only.' },
  service: { type: 'url', required: true, text: 'Where the 2FA service listens, as `http://127.0.0.1:7070`.' },
  tenant_key: { type: 'secret', required: true, text: 'Gate key of the tenant, made by `postern tenants key`.' },
  public_origin: { type: 'text', required: true, text: 'The console\'s origin as browsers see it, as `https://console.example`. Never taken from `Host`.' },
  preset: { type: 'text', required: true, text: 'Which console this is.' },
  host: { type: 'text', default: '127.0.0.1', text: 'Address that browsers and clients (or the proxy in front) reach the gateway under.' },
  port: { type: 'port', default: '8080', text: 'Port of the gateway; 0 takes a free one.' },
  operations_host: { type: 'text', default: '127.0.0.1', text: 'Address of the operations port (probes).' },
  operations_port: { type: 'port', default: '8081', text: 'Operations port; 0 takes a free one.' },
  trusted_proxies: { type: 'list', text: 'Addresses or networks of proxies in front, whose `X-Forwarded-For` is believed, as `10.0.0.0/8`; unset: nobody\'s.' },
  seal_keys: { type: 'secret', text: 'Key ring that seals held logins and the page cookie: `<id>:<base64 of 32 bytes>`, comma-separated; the first seals, all open. Replicas share it. Unset: made from the tenant key.' },
  prefix: { type: 'text', default: '/2fa', text: 'Where the pages of the second factor are mounted.' },
  step_up_patterns: { type: 'list', text: 'Calls that need a fresh verification, beside those that the preset names: `POST /settings/*`; ` 60` after it sets the seconds.' },
  public_patterns: { type: 'list', text: 'Calls that reach the console without a second factor, with whatever login they carry.' },
  mode: { type: 'text', default: 'enforce', text: '`enforce`, `observe` (passes and counts what it would refuse) or `off until <date>`, at most 7 days away.' },
  insecure_cookies: { type: 'flag', default: 'false', text: 'Plain HTTP off loopback: the network can read the browser binding. Warns at every start.' },
  grace_seconds: { type: 'integer', default: '300', min: 0, max: 900, text: 'How long verified sessions go on while the service does not answer.' },
  timeout_ms: { type: 'integer', default: '2000', min: 50, max: 10000, text: 'Deadline of one question to the service.' },
  cache_size: { type: 'integer', default: '10000', min: 1, max: 1000000, text: 'Sessions remembered in this process.' },
  upstream_timeout_seconds: { type: 'integer', default: '120', min: 1, max: 3600, text: 'How long the console may take until its answer begins.' },
  connections: { type: 'integer', default: '256', min: 1, max: 10000, text: 'Most connections to the console at once.' },
  log_level: { type: 'text', default: 'info', oneOf: ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], text: 'What is logged.' },
  drain_seconds: { type: 'integer', default: '5', min: 0, max: 60, text: 'How long requests are still served after SIGTERM while readiness is red.' }
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof SETTINGS

export interface Config {
  readonly upstream: string
  readonly service: string
  readonly tenantKey: string
  readonly publicOrigin: string
  readonly preset: Preset
  readonly presetValues: ReadonlyMap<string, string>
  readonly host: string
  readonly port: number
  readonly operationsHost: string
  readonly operationsPort: number
  readonly trustedProxies: readonly string[]
  readonly sealKeys: readonly string[]
  readonly prefix: string
  readonly stepUpPatterns: readonly (string | { readonly pattern: string; readonly maxAge: number })[]
  readonly publicPatterns: readonly string[]
  readonly mode: 'enforce' | 'observe' | { readonly off: { readonly until: string } }
  readonly insecureCookies: boolean
  readonly graceSeconds: number
  readonly timeoutMs: number
  readonly cacheSize: number
  readonly upstreamTimeoutMs: number
  readonly connections: number
  readonly logLevel: string
  readonly drainSeconds: number
}

/** All mistakes of a configuration at once, by name and never by value. */
export class ConfigError extends Error {
  constructor (mistakes: readonly string[]) {
    super('The configuration has mistakes:\n' + mistakes.map(mistake => `  - ${mistake}`).join('\n'))
    this.name = 'ConfigError'
  }
}

const START = 'POSTERN_GATEWAY_'
const envName = (name: string): string => `${START}${name.toUpperCase()}`

/**
 * Reads the configuration from the environment and, where POSTERN_GATEWAY_CONFIG names one, a JSON file (the
 * environment wins). Throws ConfigError with every mistake.
 */
export function readConfig (
  env: Readonly<Record<string, string | undefined>>,
  presets: ReadonlyMap<string, Preset>
): Config {
  const mistakes: string[] = []
  const wrong = (sentence: string): void => { mistakes.push(sentence) }
  const file = readFile(env[`${START}CONFIG`], wrong)
  const given = (name: string): string | undefined => {
    const value = env[envName(name)] ?? file.get(name)
    return value === undefined || value === '' ? undefined : value
  }
  const preset = presets.get(given('preset') ?? '')
  const rows = new Map<string, Setting>([...Object.entries(SETTINGS), ...Object.entries(preset?.settings ?? {})])
  for (const name of named(env, file)) {
    if (rows.has(name)) continue
    const other = [...presets.values()].find(one => Object.hasOwn(one.settings, name))
    if (other === undefined) wrong(`${envName(name)} is not a setting`)
    else if (preset !== undefined) wrong(`${envName(name)} is a setting of the preset "${other.name}"`)
  }
  const values = new Map<string, string>()
  for (const [name, row] of rows) {
    const text = given(name) ?? row.default
    if (text === undefined) {
      if (row.required === true) wrong(`${envName(name)} is missing: ${row.text}`)
      continue
    }
    const mistake = mistakeIn(row, text)
    if (mistake !== undefined) wrong(`${envName(name)} must be ${mistake}`)
    values.set(name, text)
  }
  if (given('preset') !== undefined && preset === undefined) {
    wrong(`${envName('preset')} must be one of ${[...presets.keys()].join(', ')}`)
  }
  const text = (name: SettingName): string => values.get(name) ?? ''
  const list = (name: SettingName): readonly string[] => listed(text(name))
  for (const proxy of list('trusted_proxies')) {
    if (!isNetwork(proxy)) wrong(`${envName('trusted_proxies')} names something that is no address or network`)
  }
  readSealKeys(list('seal_keys'), sentence => { wrong(`${envName('seal_keys')}: ${sentence}`) })
  const config = {
    upstream: text('upstream').replace(/\/+$/, ''),
    service: text('service'),
    tenantKey: text('tenant_key'),
    publicOrigin: text('public_origin').replace(/\/$/, ''),
    presetValues: new Map([...values].filter(([name]) => !Object.hasOwn(SETTINGS, name))),
    host: text('host'),
    port: Number(text('port')),
    operationsHost: text('operations_host'),
    operationsPort: Number(text('operations_port')),
    trustedProxies: list('trusted_proxies'),
    sealKeys: list('seal_keys'),
    prefix: text('prefix'),
    stepUpPatterns: list('step_up_patterns').map(one => {
      const [, pattern = one, age] = /^(.*\S) +(\d+)$/.exec(one) ?? []
      return age === undefined ? pattern : { pattern, maxAge: Number(age) }
    }),
    publicPatterns: list('public_patterns'),
    mode: readMode(text('mode'), wrong),
    insecureCookies: text('insecure_cookies') === 'true',
    graceSeconds: Number(text('grace_seconds')),
    timeoutMs: Number(text('timeout_ms')),
    cacheSize: Number(text('cache_size')),
    upstreamTimeoutMs: Number(text('upstream_timeout_seconds')) * 1000,
    connections: Number(text('connections')),
    logLevel: text('log_level'),
    drainSeconds: Number(text('drain_seconds'))
  }
  if (mistakes.length > 0 || preset === undefined) throw new ConfigError(mistakes)
  return Object.freeze({ ...config, preset })
}

export function listed (text: string): readonly string[] {
  return text.split(',').map(one => one.trim()).filter(one => one !== '')
}

function named (
  env: Readonly<Record<string, string | undefined>>,
  file: ReadonlyMap<string, string>
): ReadonlySet<string> {
  const inEnv = Object.keys(env).filter(name => name.startsWith(START) && name !== `${START}CONFIG`)
  return new Set([...inEnv.map(name => name.slice(START.length).toLowerCase()), ...file.keys()])
}

function mistakeIn ({ type, oneOf, min, max }: Setting, text: string): string | undefined {
  if (oneOf !== undefined) return oneOf.includes(text) ? undefined : `one of ${oneOf.join(', ')}`
  switch (type) {
    case 'flag':
      return text === 'true' || text === 'false' ? undefined : 'true or false'
    case 'port':
    case 'integer': {
      const [least, most] = type === 'port' ? [0, 65535] : [min ?? 0, max ?? Number.MAX_SAFE_INTEGER]
      const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
      return number >= least && number <= most ? undefined : `a whole number from ${least} to ${most}`
    }
    case 'url': {
      const url = URL.canParse(text) ? new URL(text) : undefined
      const plain = url !== undefined && /^https?:$/.test(url.protocol) && url.search === '' && url.hash === '' && url.username === ''
      return plain && url.pathname === '/' ? undefined : 'a URL of scheme, host and port'
    }
    default:
      return undefined
  }
}

function isNetwork (text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const version = isIP(address)
  return version > 0 && rest.length === 0 && (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) > 0 && Number(bits) <= (version === 4 ? 32 : 128)))
}

function readMode (text: string, wrong: (sentence: string) => void): Config['mode'] {
  if (text === 'enforce' || text === 'observe') return text
  const until = /^off until (\S.*)$/.exec(text)?.[1]
  if (until === undefined) wrong(`${envName('mode')} must be enforce, observe or off until <date>`)
  return { off: { until: until ?? '' } }
}

// Lists and numbers of the file become the text that the environment would have held.
function readFile (path: string | undefined, wrong: (sentence: string) => void): ReadonlyMap<string, string> {
  if (path === undefined || path === '') return new Map()
  try {
    const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new TypeError('not an object')
    return new Map(Object.entries(parsed).map(([name, value]: [string, unknown]) =>
      [name, Array.isArray(value) ? value.map(String).join(',') : typeof value === 'object' ? '' : String(value)]))
  } catch {
    wrong(`${START}CONFIG names a file that cannot be read as a JSON object`)
    return new Map()
  }
}

/** Every setting with its default and sentence, for --help. */
export function describeSettings (presets: ReadonlyMap<string, Preset>): string {
  const describe = ([name, row]: [string, Setting]): string => {
    const fallback = row.required === true ? 'required' : row.default === undefined ? 'unset' : `default ${row.default}`
    return `  ${envName(name)} (${fallback})\n      ${row.text}`
  }
  return [
    ...Object.entries(SETTINGS).map(describe),
    ...[...presets.values()].flatMap(preset => [
      `\nPreset ${preset.name}: ${preset.text}`,
      ...Object.entries(preset.settings).map(describe)
    ])
  ].join('\n')
}
