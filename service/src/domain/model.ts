// The nouns of Postern as types. Imports nothing, so every room may speak them.

/** Why a code is asked for. Purposes never stand in for one another. */
export type Purpose = 'login' | 'step_up'

/**
 * What a slot of the Pending port is for: a challenge of a purpose, or a pending enrolment, or the proof before a
 * first one.
 */
export type SlotKind = Purpose | 'enrol_totp' | 'enrol_email' | 'proof'

/**
 * Who asks, as the gate sees them on this very request. `session` and `browser` are the keyed names that the service
 * stores, never the console's own ids; `browser` is `none` for a native client's login.
 */
export interface By {
  readonly tenant: string
  readonly subject: string
  readonly session: string
  readonly browser: string
}

/** What the console knows of who asks. */
export interface About {
  /** Absent says nothing, `null` says that the console has none. */
  readonly email?: string | null | undefined
  readonly displayName?: string | undefined
  /** BCP 47, as `en` or `zh-CN`. */
  readonly locale?: string | undefined
  /** The client's address as the console sees it. */
  readonly address?: string | undefined
  readonly userAgent?: string | undefined
  /** What a step-up is for, in the console's words. */
  readonly action?: string | undefined
}

/** One enrolled secret of a subject. `secret` is sealed (TOTP key, e-mail address) or hashed (backup code). */
export interface Authenticator {
  readonly id: string
  readonly factor: string
  readonly secret: string
  /** The highest time step that was accepted (TOTP), 1 for a backup code that was used; else 0. */
  readonly counter: number
  readonly confirmedAt: number
}

/** The recorded result of verifications in one session. Times are epoch milliseconds. */
export interface Assurance {
  readonly loginAt: number | null
  readonly loginFactor: string | null
  readonly loginExpiresAt: number | null
  readonly stepUpAt: number | null
  readonly stepUpFactor: string | null
  /** `recovery`: a step-up by backup code during a lock; good only for renewing TOTP or a new set of codes. */
  readonly stepUpScope: 'any' | 'recovery'
}

/**
 * All that decisions need to know of a subject: one indexed read. A subject never seen has epoch 0 and nothing else.
 */
export interface SubjectState {
  readonly subject: string
  readonly epoch: number
  readonly authenticators: readonly Authenticator[]
  /** TOTP and e-mail are locked (100 failures in a row, or 100 in 30 days). */
  readonly lockedAt: number | null
  /** Failures in a row of the budget that `by` spends: the subject's, or its own where the browser is known. */
  readonly inARow: number
  readonly in30Days: number
  /** This browser passed for this subject within 30 days. */
  readonly browserKnown: boolean
  /** 2FA is required of this subject from then on (by name). */
  readonly requiredFrom: number | null
  /** After a reset nothing passes without the enrolment code. */
  readonly fenced: boolean
  readonly enrolmentCodeHash: string | null
  readonly enrolmentCodeExpiresAt: number | null
  /** Sealed: the console's last known address, for notices. */
  readonly contact: string | null
  /** Sealed: an address that an administrator's call set; applies at once. */
  readonly setAddress: string | null
  readonly locale: string | null
  /** What this session and browser passed under this epoch, if anything. */
  readonly assurance: Assurance | null
}

/** A live slot: an open challenge or a pending enrolment. */
export interface Slot {
  /** `tag` + kind + 128 random bits, base64url. */
  readonly id: string
  readonly kind: SlotKind
  readonly by: By
  /** The subject's epoch when it was opened; compared for equality at the answer. */
  readonly epoch: number
  readonly expiresAt: number
  readonly attemptsLeft: number
  readonly returnPath: string | null
  /** Sealed secret of a pending enrolment (TOTP key or address). */
  readonly payload: string | null
  /** The newest mailed code, as a keyed hash. */
  readonly mailedHash: string | null
  readonly mailedAt: number | null
}

/** What accepting a code uses up. Each is one conditional write that answers whether it happened. */
export type Use =
  | { readonly use: 'advance'; readonly authenticator: string; readonly to: number }
  | { readonly use: 'consume'; readonly authenticator: string }
  | { readonly use: 'challenge' }

/** Which budget an attempt is booked on. */
export type Budget = 'subject' | 'backup_code'

/** What matching a code may look at and call. */
export interface MatchContext {
  readonly own: readonly Authenticator[]
  readonly slot: Slot
  readonly now: number
  /** Steps accepted either side of now. */
  readonly window: number
  /** Opens a secret sealed for `context`; throws if the key is unknown or the text was moved. */
  readonly unseal: (sealed: string, context: string) => string
  readonly keyedHash: (purpose: string, ...parts: readonly string[]) => string
  readonly scrypt: (whose: Pick<By, 'tenant' | 'subject'>, code: string, salt: string) => Promise<string>
}

/** A kind of second factor. To add one: one file, one line in FACTORS. */
export interface Factor {
  readonly name: string
  /** `factor` counts as 2FA, `check` is the weaker e-mail check, `backup` only stands in for another. */
  readonly strength: 'factor' | 'check' | 'backup'
  readonly budget: Budget
  /**
   * The form a normalised code must have to be worth an attempt; a code that no offered factor accepts is malformed,
   * not wrong.
   */
  readonly accepts: RegExp
  /** Brings what was typed into the form that `accepts` describes. */
  readonly normalise: (typed: string) => string
  /** May this subject answer with it now? `email` only where TOTP is off. */
  readonly offered: (state: SubjectState) => boolean
  /** Evaluated during a lock too (NIST 800-63B 3.2.2: codes of 64 bits and more need no throttle). */
  readonly whileLocked: boolean
  /** Looks at a code that is already booked as a failure. A wrong code is `undefined`, never an error. */
  readonly match: (code: string, context: MatchContext) => Promise<Use | undefined>
}

/** The answer to one submitted code. Seconds are whole and rounded up. */
export type Verdict =
  | { readonly verdict: 'accepted'; readonly accepted: Accepted }
  | { readonly verdict: 'rejected'; readonly left: number; readonly clockOffSeconds?: number | undefined }
  | { readonly verdict: 'used'; readonly nextIn: number }
  | { readonly verdict: 'waiting'; readonly waitFor: number }
  | { readonly verdict: 'locked' }
  | { readonly verdict: 'gone' }
  | { readonly verdict: 'malformed' }

/** What an accepted verification gives the caller. */
export interface Accepted {
  readonly purpose: Purpose
  readonly factor: string
  readonly expiresInSeconds: number
  readonly returnPath: string | null
  readonly held: string | null
  /** The assurance belongs to the browser that was named as the next one. */
  readonly boundToNext: boolean
  /** How many backup codes are left, where one was used. */
  readonly backupCodesLeft: number | null
}

/** The state of a subject's TOTP that people see. */
export type TotpStatus = 'not_enabled' | 'enabled' | 'expired'

/** What a gate must know of `by`. */
export type LoginStatus = 'verified' | 'not_required' | 'enrolment_required' | 'verification_required'

/** Says whose assurance ended or whose rules changed. Numbered per tenant without gaps. */
export interface Change {
  readonly number: number
  readonly kind: 'session' | 'subject' | 'tenant'
  /** Which session, by its `session_ref`. */
  readonly session: string | null
  readonly subject: string | null
}

/**
 * Additional data that binds a sealed text to its place: `authenticator` (tenant, subject, factor, id), `contact`
 * (tenant, subject), `pending` (tenant, subject, kind).
 */
export function sealContext (place: 'authenticator' | 'contact' | 'pending', ...parts: readonly string[]): string {
  return JSON.stringify([place, ...parts])
}

/** One request of a console's or a person's, as the domain takes it. */
export interface Ask {
  readonly by: By
  readonly about: About
  readonly requestId: string
}

/** An audit record. Never holds a code, a secret or an address. */
export interface Event {
  readonly kind: string
  readonly subject: string
  readonly purpose?: string | undefined
  readonly factor?: string | undefined
  readonly outcome: 'accepted' | 'rejected' | 'refused' | 'done'
  readonly reason?: string | undefined
  /** `subject`, `admin:<key id>`, `host` or `service`. */
  readonly actor: string
  readonly requestId?: string | undefined
  /** IPv4 /24 or IPv6 /48 of the client. */
  readonly addressPrefix?: string | undefined
}

/** The purpose of a challenge's slot; `undefined` for what belongs to an enrolment. */
export function purposeOf (kind: SlotKind): Purpose | undefined {
  return kind === 'login' || kind === 'step_up' ? kind : undefined
}

const control = /\p{Cc}/u

/** A subject id exactly as given, or `undefined`: refused, never repaired (design: compared byte for byte). */
export function checkedSubject (subject: string): string | undefined {
  if (subject === '' || Buffer.byteLength(subject) > 255 || control.test(subject)) return undefined
  if (
    subject.trim() !== subject ||
    subject.normalize('NFC') !== subject ||
    Buffer.from(subject).toString() !== subject
  ) { return undefined }
  return subject
}

/** The status that people see: TOTP is `expired` some days after it was confirmed, and still works. */
export function totpStatus (
  state: Pick<SubjectState, 'authenticators'>,
  now: number,
  expiresAfterDays: number
): TotpStatus {
  const totp = state.authenticators.find(own => own.factor === 'totp')
  if (totp === undefined) return 'not_enabled'
  return now - totp.confirmedAt > expiresAfterDays * 86_400_000 ? 'expired' : 'enabled'
}
