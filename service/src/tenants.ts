// Tenants as configuration: one console each, with its keys, rules and limits, checked one by one.

import { defaultLimits, LIMITS, type Limits, type Policy, type Tenant } from './domain/policy.ts'

/** A tenant's key: kept as SHA-256 of the whole key. */
export interface TenantKey {
  readonly id: string
  readonly scope: 'gate' | 'admin'
  readonly sha256: string
}

export interface TenantConfig extends Tenant {
  readonly keys: readonly TenantKey[]
}

/** Settings of a tenant that are one of a few words: the words, the default, what they are for. */
export const TENANT_WORDS = {
  require: { words: ['nobody', 'everyone'], default: 'nobody', text: 'Who must have 2FA.' },
  first_enrolment: {
    words: ['none', 'email', 'enrolment_code'],
    default: 'none',
    text: 'What a first enrolment asks for: nothing, a code to the console\'s address, or a code from an administrator.'
  },
  email: {
    words: ['on', 'off', 'counts'],
    default: 'on',
    text: 'Whether e-mail login verification is offered, and whether it counts where 2FA is required.'
  },
  step_up: { words: ['any', 'totp'], default: 'any', text: 'What a step-up takes of who has e-mail verification only.' }
} as const

/** The other settings of a tenant, for the documentation and the check of unknown ones. */
export const TENANT_SETTINGS = {
  id: { default: 'required', text: 'Immutable name, 1 to 40 of `a-z`, `0-9` and `-`; it stands in keys and rows.' },
  name: { default: 'required', text: 'What people are shown, 1 to 64 characters.' },
  issuer: { default: '`name`', text: 'Label of the key in authenticator apps, without a colon.' },
  keys: {
    default: 'required',
    text: 'Keys as `{ "id", "scope": "gate" or "admin", "sha256" }`, at most two of each scope; `postern tenants key` makes one.'
  },
  require_from: { default: 'at once', text: 'Date from which `require` bites, as `2027-01-31`.' },
  exempt: { default: '`[]`', text: 'Words by which `identify` may pass a login: `api_token`, `sso`.' },
  limits: { default: '`{}`', text: 'Limits and lifetimes, see below.' }
} as const

/** Limits are named in snake_case in configuration. */
export function snakeCase (name: string): string {
  return name.replace(/[A-Z]/g, letter => '_' + letter.toLowerCase())
}

/** The tenants of POSTERN_TENANTS or the file; mistakes are added by name. */
export function readTenants (
  text: string | undefined,
  fromFile: unknown,
  mistakes: string[]
): readonly TenantConfig[] {
  let given: unknown = fromFile
  if (text !== undefined) {
    try {
      given = JSON.parse(text)
    } catch {
      mistakes.push('POSTERN_TENANTS is not JSON')
    }
  }
  if (!Array.isArray(given) || given.length === 0) {
    mistakes.push('tenants is missing: name at least one console, in the file (POSTERN_CONFIG) or in POSTERN_TENANTS')
    return []
  }
  const tenants = given.flatMap((one: unknown, index) => {
    const tenant = readTenant(one, `tenants[${index}]`, mistakes)
    return tenant === undefined ? [] : [tenant]
  })
  if (new Set(tenants.map(tenant => tenant.id)).size !== tenants.length) {
    mistakes.push('tenants: two have the same id')
  }
  return tenants
}

function readTenant (given: unknown, where: string, mistakes: string[]): TenantConfig | undefined {
  if (!isObject(given)) {
    mistakes.push(`${where} is not an object`)
    return undefined
  }
  const before = mistakes.length
  const known = new Set([...Object.keys(TENANT_SETTINGS), ...Object.keys(TENANT_WORDS)])
  for (const name of Object.keys(given)) {
    if (!known.has(name)) mistakes.push(`${where}.${name} is not a setting of a tenant`)
  }
  const { id, name, issuer } = given
  if (typeof id !== 'string' || !/^[a-z0-9-]{1,40}$/.test(id)) {
    mistakes.push(`${where}.id must be 1 to 40 of a-z, 0-9 and -`)
  }
  if (typeof name !== 'string' || !/^[^\p{C}]{1,64}$/u.test(name)) {
    mistakes.push(`${where}.name must be 1 to 64 characters`)
  }
  if (issuer !== undefined && (typeof issuer !== 'string' || !/^[^\p{C}:]{1,64}$/u.test(issuer))) {
    mistakes.push(`${where}.issuer must be 1 to 64 characters without a colon`)
  }
  const word = <N extends keyof typeof TENANT_WORDS>(name: N): (typeof TENANT_WORDS)[N]['words'][number] => {
    const row = TENANT_WORDS[name]
    const words: readonly (typeof TENANT_WORDS)[N]['words'][number][] = row.words
    const chosen = given[name] === undefined ? row.default : words.find(one => one === given[name])
    if (chosen === undefined) mistakes.push(`${where}.${name} must be one of ${words.join(', ')}`)
    return chosen ?? row.default
  }
  const exempt = given.exempt ?? []
  if (!Array.isArray(exempt) || !exempt.every(one => one === 'api_token' || one === 'sso')) {
    mistakes.push(`${where}.exempt must be a list of api_token, sso`)
  }
  const from = given.require_from
  const requireFrom = from === undefined ? null : typeof from === 'string' ? Date.parse(from) : Number.NaN
  if (Number.isNaN(requireFrom)) mistakes.push(`${where}.require_from must be a date as 2027-01-31`)
  const policy: Policy = {
    require: word('require'),
    requireFrom,
    firstEnrolment: word('first_enrolment'),
    email: word('email'),
    stepUp: word('step_up'),
    exempt: Array.isArray(exempt) ? exempt.map(String) : [],
    limits: readLimits(given.limits, `${where}.limits`, mistakes)
  }
  const keys = readKeys(given.keys, `${where}.keys`, mistakes)
  if (mistakes.length > before || typeof id !== 'string' || typeof name !== 'string') return undefined
  return { id, name, issuer: typeof issuer === 'string' ? issuer : name.replaceAll(':', ' '), policy, keys }
}

function readLimits (given: unknown, where: string, mistakes: string[]): Limits {
  if (given === undefined) return defaultLimits
  if (!isObject(given)) {
    mistakes.push(`${where} is not an object`)
    return defaultLimits
  }
  const limits: { -readonly [name in keyof Limits]: number } = { ...defaultLimits }
  const names = new Map(Object.entries(LIMITS).map(([name, row]) => [snakeCase(name), { name, row }]))
  for (const [written, value] of Object.entries(given)) {
    const found = names.get(written)
    if (found === undefined) mistakes.push(`${where}.${written} is not a limit`)
    else if (
      typeof value !== 'number' ||
      !Number.isInteger(value) ||
      value < found.row.min ||
      value > found.row.max
    ) {
      mistakes.push(
        `${where}.${written} must be a whole number from ${found.row.min} to ${found.row.max} (${found.row.unit})`
      )
    } else if (isLimit(found.name)) limits[found.name] = value
  }
  return limits
}

function isLimit (name: string): name is keyof Limits {
  return Object.hasOwn(LIMITS, name)
}

function readKeys (given: unknown, where: string, mistakes: string[]): readonly TenantKey[] {
  if (!Array.isArray(given) || given.length === 0) {
    mistakes.push(`${where} is missing: a tenant needs at least one key`)
    return []
  }
  const keys = given.flatMap((one: unknown, index): TenantKey[] => {
    const at = `${where}[${index}]`
    if (!isObject(one)) {
      mistakes.push(`${at} is not an object`)
      return []
    }
    const { id, scope, sha256 } = one
    if (typeof id !== 'string' || !/^[a-z0-9-]{1,16}$/.test(id)) mistakes.push(`${at}.id must be 1 to 16 of a-z, 0-9 and -`)
    else if (scope !== 'gate' && scope !== 'admin') mistakes.push(`${at}.scope must be gate or admin`)
    else if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) {
      mistakes.push(`${at}.sha256 must be the SHA-256 of the key in hex`)
    } else return [{ id, scope, sha256 }]
    return []
  })
  for (const scope of ['gate', 'admin']) {
    if (keys.filter(key => key.scope === scope).length > 2) {
      mistakes.push(`${where}: at most two keys of scope ${scope}`)
    }
  }
  if (new Set(keys.map(key => key.id)).size !== keys.length) mistakes.push(`${where}: two keys have the same id`)
  return keys
}

/** A JSON object, not an array. */
export function isObject (given: unknown): given is Record<string, unknown> {
  return typeof given === 'object' && given !== null && !Array.isArray(given)
}
