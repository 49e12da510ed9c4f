// What an enrolment needs, and what it shows to callers and pages.

import type { Attempts } from '../attempt.ts'
import type { Ask, Factor, TotpStatus, Verdict } from '../model.ts'
import type { Notices } from '../notices.ts'
import type { Tenant } from '../policy.ts'
import type { Pending } from '../pending.ts'
import type { Clock, Mailer, Randomness, Sealer } from '../ports.ts'
import type { Records } from '../records.ts'

/** All that a settings page shows. Times are epoch milliseconds, seconds are whole. */
export interface SettingsView {
  readonly totp: {
    readonly status: TotpStatus
    readonly confirmedAt: number | null
    readonly expiresAt: number | null
  }
  readonly email: {
    /** The tenant offers e-mail login verification. */
    readonly offered: boolean
    /** The preference; kept while TOTP is on. */
    readonly on: boolean
    /** false while TOTP is on: the box is disabled and keeps its value. */
    readonly applies: boolean
    /** The proven address that codes go to, masked. */
    readonly maskedAddress: string | null
    /** What the console says, masked, where no address is proven or it differs from the proven one. */
    readonly maskedConsoleAddress: string | null
  }
  readonly backupCodes: { readonly left: number; readonly of: number }
  readonly locked: boolean
  /** 2FA is required and nothing that counts is enrolled. */
  readonly mustEnrol: boolean
  /** What a first enrolment must be proven by now; `none` once a factor is there. */
  readonly proof: 'none' | 'email' | 'enrolment_code'
  /** Age of the session's step-up, if it has one. */
  readonly stepUpAgeSeconds: number | null
  /** Notices that could not be mailed. */
  readonly notices: readonly { readonly id: string; readonly message: string; readonly at: number }[]
}

export interface BegunTotp {
  readonly id: string
  /** Base32 without padding. */
  readonly key: string
  /** Key URI (otpauth://totp/…). */
  readonly uri: string
  readonly expiresInSeconds: number
  readonly attemptsLeft: number
}

export interface BegunEmail {
  readonly id: string
  readonly maskedAddress: string
  readonly expiresInSeconds: number
  readonly attemptsLeft: number
  readonly resendInSeconds: number
}

export type Confirmed =
  | { readonly verdict: 'accepted'; readonly backupCodes: readonly string[]; readonly boundToNext: boolean }
  | Exclude<Verdict, { verdict: 'accepted' }>

export interface Enrolments {
  readonly settings: (tenant: Tenant, ask: Ask) => Promise<SettingsView>
  /**
   * The live pending key of `by`, or a new one; renewing leaves the old key active until it is confirmed. Problems:
   * login_required, step_up_required (a factor is there), proof_required, proof_rejected.
   */
  readonly beginTotp: (
    tenant: Tenant,
    ask: Ask,
    options: { readonly proof?: string | undefined }
  ) => Promise<BegunTotp>
  /** The live pending key, without beginning one. */
  readonly pendingTotp: (tenant: Tenant, ask: Ask) => Promise<BegunTotp | undefined>
  readonly confirmTotp: (
    tenant: Tenant,
    ask: Ask,
    id: string,
    code: string,
    options: { readonly nextBrowser?: string | undefined }
  ) => Promise<Confirmed>
  /** Problems: step_up_required, not_enabled. */
  readonly removeTotp: (tenant: Tenant, ask: Ask) => Promise<void>
  /**
   * Sends a test code to `address`, else to the console's or the proven one. Problems as beginTotp, and
   * method_not_available, address_missing, address_invalid, waiting.
   */
  readonly beginEmail: (
    tenant: Tenant,
    ask: Ask,
    options: { readonly address?: string | undefined; readonly proof?: string | undefined }
  ) => Promise<BegunEmail>
  readonly pendingEmail: (tenant: Tenant, ask: Ask) => Promise<BegunEmail | undefined>
  readonly confirmEmail: (
    tenant: Tenant,
    ask: Ask,
    id: string,
    code: string,
    options: { readonly nextBrowser?: string | undefined }
  ) => Promise<Confirmed>
  readonly removeEmail: (tenant: Tenant, ask: Ask) => Promise<void>
  /** Six new codes; the old set dies. Problems: step_up_required, not_enabled. */
  readonly newBackupCodes: (tenant: Tenant, ask: Ask) => Promise<readonly string[]>
  /**
   * Mails the code that a tenant asks for before a first enrolment. Problems: address_missing, waiting,
   * method_not_available.
   */
  readonly sendProof: (
    tenant: Tenant,
    ask: Ask
  ) => Promise<{ readonly maskedAddress: string; readonly resendInSeconds: number }>
  readonly dismissNotice: (tenant: Tenant, ask: Ask, id: string) => Promise<void>
}

export interface EnrolmentsNeed {
  readonly records: Records
  readonly pending: Pending
  readonly sealer: Sealer
  readonly randomness: Randomness
  readonly mailer: Mailer
  readonly clock: Clock
  readonly notices: Notices
  readonly attempts: Attempts
  readonly factors: readonly Factor[]
}
