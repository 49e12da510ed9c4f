// What may `by` do now: the table of what is asked of whom; how assurances end.

import type { Ask, LoginStatus, TotpStatus } from './model.ts'
import type { Tenant } from './policy.ts'

/** The answer to the gate's question. Seconds are whole. */
export interface GateAnswer {
  readonly status: LoginStatus
  readonly login: { readonly expiresInSeconds: number } | null
  readonly stepUp: { readonly ageSeconds: number, readonly factor: string } | null
  readonly totp: TotpStatus
  readonly change: number
}

export interface Assurances {
  readonly question: (tenant: Tenant, ask: Ask, exempt: string | undefined) => Promise<GateAnswer>
  /** The session moved to a new name (the console rotated its id). */
  readonly move: (tenant: Tenant, session: string, to: string) => Promise<boolean>
  readonly end: (tenant: Tenant, session: string, requestId: string) => Promise<void>
  readonly credentialsChanged: (tenant: Tenant, subject: string, requestId: string, keep: Ask['by'] | undefined) => Promise<void>
}
