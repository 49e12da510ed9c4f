// Limits and lifetimes with their safe ranges, and the arithmetic over them. Pure: no clock, no store.

/**
 * One row per limit of a tenant: default, safe range, unit and sentence. Settings, docs and the check at start come
 * from it.
 */
export const LIMITS = {
  totpWindowSteps: {
    value: 1,
    min: 0,
    max: 1,
    unit: 'steps',
    text: 'Time steps accepted either side of now (RFC 6238 5.2).'
  },
  totpExpiresDays: {
    value: 180,
    min: 30,
    max: 3650,
    unit: 'days',
    text: 'Age at which a TOTP enrolment is shown as expired; it still works.'
  },
  challengeSeconds: {
    value: 600,
    min: 60,
    max: 600,
    unit: 'seconds',
    text: 'How long a challenge and an e-mailed code live (NIST SP 800-63B 3.1.3: at most 10 minutes).'
  },
  challengeAttempts: {
    value: 5,
    min: 1,
    max: 10,
    unit: 'attempts',
    text: 'Codes one challenge or pending enrolment takes.'
  },
  enrolmentSeconds: { value: 900, min: 60, max: 3600, unit: 'seconds', text: 'How long a pending enrolment lives.' },
  waitAfterFailures: {
    value: 5,
    min: 1,
    max: 10,
    unit: 'failures',
    text: 'Failures in a row from which each doubles a wait.'
  },
  waitFirstSeconds: { value: 30, min: 10, max: 300, unit: 'seconds', text: 'The first wait.' },
  waitLongestSeconds: {
    value: 3600,
    min: 300,
    max: 86400,
    unit: 'seconds',
    text: 'The longest wait (NIST SP 800-63B 3.2.2).'
  },
  lockInARow: {
    value: 100,
    min: 10,
    max: 100,
    unit: 'failures',
    text: 'Failures in a row that lock TOTP and e-mail (NIST SP 800-63B 3.2.2: at most 100).'
  },
  lockIn30Days: {
    value: 100,
    min: 10,
    max: 100,
    unit: 'failures',
    text: 'Failures in 30 days that lock, whatever came between.'
  },
  backupWrongPerHour: {
    value: 10,
    min: 1,
    max: 50,
    unit: 'attempts',
    text: 'Wrong backup codes an hour per subject and browser.'
  },
  mailResendSeconds: { value: 60, min: 30, max: 600, unit: 'seconds', text: 'Wait between two e-mailed codes.' },
  mailPerHour: { value: 5, min: 1, max: 20, unit: 'mails', text: 'E-mailed codes an hour per subject.' },
  callsPerMinute: {
    value: 1000,
    min: 10,
    max: 100_000,
    unit: 'calls',
    text: 'Calls a minute from one client address (IPv6 by /64) that open, send, answer or enrol, pages included.'
  },
  mailPerDay: { value: 20, min: 1, max: 100, unit: 'mails', text: 'E-mailed codes a day per subject.' },
  loginDays: { value: 30, min: 1, max: 180, unit: 'days', text: 'Longest login assurance of a session.' },
  stepUpSeconds: { value: 900, min: 60, max: 900, unit: 'seconds', text: 'Oldest step-up any route may accept.' },
  enrolmentCodeHours: {
    value: 72,
    min: 1,
    max: 168,
    unit: 'hours',
    text: 'Life of an enrolment code from an administrator.'
  }
} as const

export type Limits = { readonly [name in keyof typeof LIMITS]: number }

/** How a tenant treats its subjects (design: tenants). */
export interface Policy {
  readonly require: 'nobody' | 'everyone'
  /** Epoch milliseconds from which `everyone` bites; null = at once. */
  readonly requireFrom: number | null
  readonly firstEnrolment: 'none' | 'email' | 'enrolment_code'
  readonly email: 'on' | 'off' | 'counts'
  readonly stepUp: 'any' | 'totp'
  /** Words `identify` may exempt a login by. */
  readonly exempt: readonly string[]
  readonly limits: Limits
}

/** One console that uses the service. `id` is immutable. */
export interface Tenant {
  readonly id: string
  readonly name: string
  /** Label of key URIs. */
  readonly issuer: string
  readonly policy: Policy
}

/** All limits at their defaults. */
export const defaultLimits: Limits = Object.freeze(
  Object.fromEntries(Object.entries(LIMITS).map(([name, row]) => [name, row.value])) as {
    [name in keyof typeof LIMITS]: number
  }
)

/** The wait that the `failures`-th failure in a row begins, in milliseconds; 0 below the threshold. */
export function waitAfter (
  failures: number,
  limits: Pick<Limits, 'waitAfterFailures' | 'waitFirstSeconds' | 'waitLongestSeconds'>
): number {
  if (failures < limits.waitAfterFailures) return 0
  const doublings = Math.min(failures - limits.waitAfterFailures, 20)
  return Math.min(limits.waitFirstSeconds * 2 ** doublings, limits.waitLongestSeconds) * 1000
}

/** Is the subject locked at these counts? */
export function locks (counts: { inARow: number; in30Days: number }, limits: Limits): boolean {
  return counts.inARow >= limits.lockInARow || counts.in30Days >= limits.lockIn30Days
}

/** Whole seconds, rounded up, as people and `Retry-After` are told. */
export function seconds (ms: number): number {
  return Math.max(0, Math.ceil(ms / 1000))
}
