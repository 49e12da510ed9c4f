// Every setting with its type, range, default and sentence; environment and file become one frozen Config.

import { readFileSync } from 'node:fs'
import { mistakeInPostgresUrl } from './database-settings.ts'
import { readAuthority, readSender, readSmtp, type Sender, type Smtp } from './mail-settings.ts'
import { readRedis, type RedisSettings } from './redis-settings.ts'
import { isObject, readTenants, type TenantConfig } from './tenants.ts'

/** One row a setting: how it is read, what it defaults to (undefined = none) and what it is for. */
interface Setting {
  readonly type: 'text' | 'port' | 'integer' | 'flag' | 'secret' | 'list'
  readonly default?: string
  readonly min?: number
  readonly max?: number
  readonly oneOf?: readonly string[]
  readonly required?: boolean
  readonly text: string
}

/** Settings are named POSTERN_<NAME> in the environment and <name> in the file's `settings`. */
export const SETTINGS = {
  host: { type: 'text', default: '127.0.0.1', text: 'Address that consoles reach the service under.' },
  port: { type: 'port', default: '7070', text: 'Port of the interface; 0 takes a free one.' },
  operations_host: {
    type: 'text',
    default: '127.0.0.1',
    text: 'Address of the operations port (probes, metrics, OpenAPI).'
  },
  operations_port: { type: 'port', default: '7071', text: 'Operations port; 0 takes a free one.' },
  database: {
    type: 'secret',
    default: 'sqlite:data/postern.db',
    text: 'Where truth is kept: `sqlite:<file>`, or `postgres://user:password@host/name?sslmode=verify-full` (`disable`, the default, speaks plain text; `require` verifies as `verify-full` does, `verify-ca` all but the name).'
  },
  database_ca: { type: 'text', text: 'File with the certificate authority of the PostgreSQL server (PEM); unset: the system\'s.' },
  database_pool: { type: 'integer', default: '10', min: 1, max: 100, text: 'Most connections to PostgreSQL of one process.' },
  database_id: {
    type: 'text',
    text: 'Id of the database, as `postern migrate` prints it. Where set, an empty or another database is refused: in an empty one nobody has 2FA.'
  },
  migrate_on_start: {
    type: 'flag',
    default: 'true',
    text: 'Bring the schema up to date at start; otherwise the start refuses an old schema.'
  },
  redis: {
    type: 'secret',
    text: 'Where motion is kept: `redis://user:password@host:port/db`, `redis+sentinel://…@host:port,host:port/db?master=name` or `redis+cluster://…@host:port,host:port` (`rediss…` for TLS); unset: in this process, which must then be the only one.'
  },
  redis_ca: { type: 'text', text: 'File with the certificate authority of Redis (PEM); unset: the system\'s.' },
  redis_certificate: { type: 'text', text: 'File with the client certificate shown to Redis (PEM).' },
  redis_key: { type: 'text', text: 'File with the key of that certificate (PEM).' },
  redis_sentinel_password: { type: 'secret', text: 'Password of the sentinels, where they have one.' },
  redis_timeout_ms: {
    type: 'integer',
    default: '400',
    min: 50,
    max: 2000,
    text: 'Longest wait for one answer of Redis; a lost one is asked for once more, then the caller gets 503.'
  },
  encryption_keys: {
    type: 'secret',
    required: true,
    text: 'Key ring that seals secrets: `<id>:<base64 of 32 bytes>`, comma-separated; the first seals, all open.'
  },
  server_key: {
    type: 'secret',
    required: true,
    text: 'Key of all keyed names and hashes: `<id>:<base64 of 32 bytes>`. It does not rotate: with another one all sessions verify again.'
  },
  smtp: {
    type: 'secret',
    text: 'Mail server: `smtp://user:password@host:587` or `smtps://…`; unset: e-mail login verification is not offered.'
  },
  smtp_tls: {
    type: 'text',
    default: 'required',
    oneOf: ['required', 'opportunistic', 'none'],
    text: 'Whether mail may travel without TLS.'
  },
  smtp_ca: { type: 'text', text: 'File with the certificate authority of the mail server (PEM).' },
  mail_from: {
    type: 'text',
    default: 'postern@localhost',
    text: 'Sender of mails: an address, or `Name <name@example.org>`.'
  },
  log_level: {
    type: 'text',
    default: 'info',
    oneOf: ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'],
    text: 'What is logged.'
  },
  drain_seconds: {
    type: 'integer',
    default: '5',
    min: 0,
    max: 60,
    text: 'How long requests are still served after SIGTERM while readiness is red.'
  },
  shed_after_ms: {
    type: 'integer',
    default: '1000',
    min: 50,
    max: 10_000,
    text: 'Calls are refused with 503 while the event loop is this late on average over a second.'
  },
  event_retention_days: {
    type: 'integer',
    default: '400',
    min: 30,
    max: 3650,
    text: 'How long audit records are kept.'
  }
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof SETTINGS

export interface NamedKey {
  readonly id: string
  readonly key: Uint8Array
}

export interface Config {
  readonly host: string
  readonly port: number
  readonly operationsHost: string
  readonly operationsPort: number
  readonly database: string
  /** Certificates to trust instead of the system's, PEM. */
  readonly databaseCa: string | undefined
  readonly databasePool: number
  readonly databaseId: string | undefined
  readonly migrateOnStart: boolean
  readonly redis: RedisSettings | undefined
  readonly encryptionKeys: readonly NamedKey[]
  readonly serverKey: NamedKey
  readonly smtp: Smtp | undefined
  readonly mailFrom: Sender
  readonly logLevel: string
  readonly drainSeconds: number
  readonly shedAfterMs: number
  readonly eventRetentionDays: number
  readonly tenants: readonly TenantConfig[]
}

/** All mistakes of a configuration at once, by name and never by value. */
export class ConfigError extends Error {
  readonly mistakes: readonly string[]

  constructor (mistakes: readonly string[]) {
    super('The configuration has mistakes:\n' + mistakes.map(mistake => `  - ${mistake}`).join('\n'))
    this.name = 'ConfigError'
    this.mistakes = mistakes
  }
}

/**
 * Reads the configuration from the environment and, where POSTERN_CONFIG names one, a JSON file with `settings` and
 * `tenants` (the environment wins). Throws ConfigError with every mistake.
 */
export function readConfig (env: Readonly<Record<string, string | undefined>>): Config {
  const mistakes: string[] = []
  const file = readFile(env.POSTERN_CONFIG, mistakes)
  const known = new Set(Object.keys(SETTINGS).map(name => `POSTERN_${name.toUpperCase()}`))
  for (const name of Object.keys(env)) {
    if (
      name.startsWith('POSTERN_') &&
      !known.has(name) &&
      !['POSTERN_CONFIG', 'POSTERN_TENANTS'].includes(name) &&
      !name.startsWith('POSTERN_TEST_')
    ) {
      mistakes.push(`${name} is not a setting`)
    }
  }
  for (const name of Object.keys(file.settings)) {
    if (!Object.hasOwn(SETTINGS, name)) mistakes.push(`settings.${name} is not a setting`)
  }
  const value = (name: SettingName): string | undefined => {
    const row: Setting = SETTINGS[name]
    const given = env[`POSTERN_${name.toUpperCase()}`] ?? file.settings[name] ?? row.default
    const text = given === undefined || given === '' ? undefined : String(given)
    const called = `POSTERN_${name.toUpperCase()}`
    if (text === undefined) {
      if (row.required === true) mistakes.push(`${called} is missing: ${row.text}`)
      return undefined
    }
    if (row.oneOf !== undefined && !row.oneOf.includes(text)) {
      mistakes.push(`${called} must be one of ${row.oneOf.join(', ')}`)
    }
    return text
  }
  const integer = (name: SettingName): number => {
    const row: Setting = SETTINGS[name]
    const text = value(name) ?? '0'
    const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    const [min, max] = row.type === 'port' ? [0, 65535] : [row.min ?? 0, row.max ?? Number.MAX_SAFE_INTEGER]
    if (!(number >= min && number <= max)) {
      mistakes.push(`POSTERN_${name.toUpperCase()} must be a whole number from ${min} to ${max}`)
    }
    return number
  }
  const flag = (name: SettingName): boolean => {
    const text = value(name)
    if (text !== 'true' && text !== 'false') mistakes.push(`POSTERN_${name.toUpperCase()} must be true or false`)
    return text === 'true'
  }
  const keys = (name: SettingName): readonly NamedKey[] =>
    (value(name) ?? '')
      .split(',')
      .filter(part => part !== '')
      .flatMap((part, index) => {
        const match = /^([a-z0-9-]{1,16}):([A-Za-z0-9+/_-]+={0,2})$/.exec(part.trim())
        const key = Buffer.from(match?.[2] ?? '', 'base64')
        if (match === null || key.length !== 32) {
          mistakes.push(`POSTERN_${name.toUpperCase()}: key ${index + 1} is not <id>:<base64 of 32 bytes>`)
          return []
        }
        if (key.every(byte => byte === key[0])) {
          mistakes.push(`POSTERN_${name.toUpperCase()}: key ${index + 1} is not random`)
          return []
        }
        return [{ id: match[1] ?? '', key: new Uint8Array(key) }]
      })

  const database = value('database') ?? ''
  if (!/^(sqlite:.+|postgres(ql)?:\/\/.+)$/.test(database)) {
    mistakes.push('POSTERN_DATABASE must be sqlite:<file> or postgres://…')
  } else if (!database.startsWith('sqlite:')) {
    const mistake = mistakeInPostgresUrl(database)
    if (mistake !== undefined) mistakes.push(`POSTERN_DATABASE${mistake}`)
  }
  const tls = value('smtp_tls')
  const serverKeys = keys('server_key')
  if (serverKeys.length > 1) mistakes.push('POSTERN_SERVER_KEY must be one key')
  const encryptionKeys = keys('encryption_keys')
  if (new Set(encryptionKeys.map(key => key.id)).size !== encryptionKeys.length) {
    mistakes.push('POSTERN_ENCRYPTION_KEYS: two keys have the same id')
  }

  const config: Config = {
    host: value('host') ?? '',
    port: integer('port'),
    operationsHost: value('operations_host') ?? '',
    operationsPort: integer('operations_port'),
    database,
    databaseCa: readAuthority(value('database_ca'), 'POSTERN_DATABASE_CA', mistakes),
    databasePool: integer('database_pool'),
    databaseId: value('database_id'),
    migrateOnStart: flag('migrate_on_start'),
    redis: readRedis(
      {
        url: value('redis'),
        sentinelPassword: value('redis_sentinel_password'),
        ca: value('redis_ca'),
        certificate: value('redis_certificate'),
        key: value('redis_key'),
        timeoutMs: integer('redis_timeout_ms')
      },
      mistakes
    ),
    encryptionKeys,
    serverKey: serverKeys[0] ?? { id: '', key: new Uint8Array() },
    smtp: readSmtp(
      value('smtp'),
      tls === 'none' || tls === 'opportunistic' ? tls : 'required',
      value('smtp_ca'),
      mistakes
    ),
    mailFrom: readSender(value('mail_from') ?? '', mistakes),
    logLevel: value('log_level') ?? 'info',
    drainSeconds: integer('drain_seconds'),
    shedAfterMs: integer('shed_after_ms'),
    eventRetentionDays: integer('event_retention_days'),
    tenants: readTenants(env.POSTERN_TENANTS, file.tenants, mistakes)
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  return deepFreeze(config)
}

function readFile (
  path: string | undefined,
  mistakes: string[]
): { readonly settings: Readonly<Record<string, unknown>>; readonly tenants: unknown } {
  const nothing = { settings: {}, tenants: undefined }
  if (path === undefined || path === '') return nothing
  try {
    const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (!isObject(parsed)) throw new TypeError('not an object')
    for (const name of Object.keys(parsed)) {
      if (name !== 'settings' && name !== 'tenants') {
        mistakes.push(`${name} in the file is neither settings nor tenants`)
      }
    }
    const settings = parsed.settings ?? {}
    if (!isObject(settings)) throw new TypeError('settings')
    return { settings, tenants: parsed.tenants }
  } catch {
    mistakes.push('POSTERN_CONFIG names a file that cannot be read as a JSON object')
    return nothing
  }
}

function deepFreeze<T> (given: T): T {
  if (typeof given === 'object' && given !== null && !ArrayBuffer.isView(given)) {
    for (const part of Object.values(given)) deepFreeze(part)
    Object.freeze(given)
  }
  return given
}

/** Every setting with its default and sentence, for --help. */
export function describeSettings (): string {
  return Object.entries(SETTINGS)
    .map(([name, row]: [string, Setting]) => {
      const fallback =
        row.required === true ? 'required' : row.default === undefined ? 'unset' : `default ${row.default}`
      return `  POSTERN_${name.toUpperCase()} (${fallback})\n      ${row.text}`
    })
    .join('\n')
}
