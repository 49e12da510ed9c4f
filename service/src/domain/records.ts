// The store of what must survive: subjects, authenticators, assurances, events. Each method is one whole step and says
// what happened; nothing above an adapter reads and then writes. Implementations pass test/contracts.

import type { Authenticator, By, Change, Event, Purpose, Slot, SubjectState, Use } from './model.ts'
import type { Limits } from './policy.ts'

/** A row for the outbox: mailed if it can be, else shown at the next verified page until dismissed. */
export interface Notice {
  /** One of NOTICES; a row may hold one of an earlier version. */
  readonly message: string
  /** Address sealed for `sealContext('contact', tenant, subject)`, or null when there is none. */
  readonly to: string | null
  readonly locale: string | null
  readonly values: Readonly<Record<string, string>>
}

export interface AcceptRequest {
  readonly by: By
  /** The browser the login assurance will belong to (`next_browser`), else `by.browser`. */
  readonly bindTo: string
  readonly slot: Pick<Slot, 'id' | 'kind' | 'epoch' | 'returnPath'>
  readonly use: Use
  readonly factor: string
  /** TOTP and e-mail are refused while locked; backup codes are not. */
  readonly whileLocked: boolean
  /**
   * What to record; null leaves no assurance behind. Scope `recovery` with purpose `login` records the login and,
   * beside it, a step-up of that scope.
   */
  readonly record: {
    readonly purpose: Purpose
    readonly expiresAt: number
    readonly scope: 'any' | 'recovery'
  } | null
  readonly idempotencyKey: string | null
  readonly now: number
  readonly event: Event
  readonly notices: readonly Notice[]
  /** The subject as it was read for this answer. It decides nothing: where it still fits, round trips are fewer. */
  readonly seen?: SubjectState | undefined
}

export type AcceptResult =
  | { readonly result: 'accepted'; readonly backupCodesLeft: number }
  /** The conditional write did not happen: the code was already used. */
  | { readonly result: 'used' }
  /** Epoch changed, challenge already accepted by another, or authenticator gone. */
  | { readonly result: 'gone' }
  | { readonly result: 'locked' }

/** A recorded success, for an idempotent repeat within 60 s. */
export interface AcceptedBefore {
  readonly by: By
  readonly factor: string
  readonly purpose: Purpose
  readonly returnPath: string | null
  readonly idempotencyKey: string | null
  readonly at: number
  readonly expiresAt: number
}

/** A change of factors: one transaction with its step-up check, event, change row, notices and new epoch. */
export interface FactorChange {
  readonly by: By
  readonly now: number
  /** Epoch the decision was made under; the transaction refuses another. */
  readonly epoch: number
  /**
   * `step_up`: the session's step-up must be younger than `stepUpMs` (scope `recovery` only where `recovery` is true)
   * and
   * made with one of `factors`. `first`: the subject must have no authenticator that counts, and a fence only opens
   * by `enrolmentCodeHash`.
   */
  readonly allowedBy:
    | {
      readonly by: 'step_up'
      readonly stepUpMs: number
      readonly factors: readonly string[]
      readonly recovery: boolean
    }
    | { readonly by: 'first'; readonly enrolmentCodeHash: string | null }
    | { readonly by: 'administrator' }
  /** Factors whose authenticators are removed first. */
  readonly remove: readonly string[]
  readonly add: readonly Authenticator[]
  /** The session that did it is re-recorded under the new epoch with these; null leaves it ended. */
  readonly record: {
    readonly factor: string
    readonly browser: string
    readonly login: boolean
    readonly stepUp: boolean
    readonly loginExpiresAt: number
  } | null
  /** Ends lock and counts (renewing TOTP, a new set of codes). */
  readonly unlock: boolean
  /** The slot whose confirmation this is: accepted once. */
  readonly slot: string | null
  readonly event: Event
  readonly notices: readonly Notice[]
}

export type FactorChangeResult =
  | { readonly result: 'changed'; readonly epoch: number }
  | { readonly result: 'step_up_required' }
  | { readonly result: 'proof_required' }
  | { readonly result: 'gone' }

export interface RecordedEvent extends Event {
  /** Place in the tenant's log; a later read never shows a lower one that was not there before. */
  readonly id: number
  readonly tenant: string
  readonly at: number
}

export interface PendingNotice extends Notice {
  readonly id: string
  readonly tenant: string
  readonly subject: string
  readonly at: number
}

/**
 * Truth: what must never happen twice and must survive. SQL. Each method is one transaction; a write that the domain's
 * conditions forbid MUST leave nothing behind. MUST throw Problem `unavailable` when the database cannot be used, and
 * MUST NOT report a subject as unknown unless it knows.
 */
export interface Records {
  /**
   * One indexed read. `in30Days` counts failures younger than 30 days before `now`; the assurance is only returned if
   * session, browser, subject and epoch fit and it has not expired.
   */
  readonly subject: (by: By, now: number) => Promise<SubjectState>
  /**
   * The gate's question: as `subject`, and ends a record of this session that names another subject (with its change
   * row). Also the tenant's newest change number.
   */
  readonly question: (by: By, now: number) => Promise<{ readonly state: SubjectState; readonly change: number }>
  /** Who a session was recorded with. */
  readonly subjectOf: (tenant: string, session: string, now: number) => Promise<string | undefined>
  /**
   * The one transaction of a right answer. Checks: epoch equal, authenticator active and its use possible, not locked
   * (unless `whileLocked`), `(tenant, slot)` not yet accepted (unique). Then: uses it up, resets the failures in a
   * row of the budget of `by`, records the assurance, marks the browser known, writes event and notices.
   */
  readonly accept: (request: AcceptRequest) => Promise<AcceptResult>
  readonly acceptedBefore: (tenant: string, slot: string) => Promise<AcceptedBefore | undefined>
  /** Binds an idempotent repeat's assurance to the newest next browser. */
  readonly rebind: (by: By, browser: string) => Promise<void>
  /**
   * The transaction of a wrong answer: counts, event, and at the cap the lock with its change row and notices.
   * Returns the counts after it.
   */
  readonly reject: (
    by: By,
    options: {
      readonly now: number
      readonly browserKnown: boolean
      readonly limits: Limits
      readonly event: Event
      readonly lockNotices: readonly Notice[]
    }
  ) => Promise<{ readonly inARow: number; readonly in30Days: number; readonly locked: boolean }>
  readonly changeFactors: (change: FactorChange) => Promise<FactorChangeResult>
  /** Writes what the console said: address and language, sealed by the caller. */
  readonly remember: (
    tenant: string,
    subject: string,
    known: {
      readonly contact?: string | null | undefined
      readonly locale?: string | undefined
      readonly notices: readonly Notice[]
      readonly now: number
    }
  ) => Promise<void>
  /** The console rotated its session id. False if there was nothing to move. */
  readonly move: (by: Pick<By, 'tenant' | 'session'>, to: string, now: number) => Promise<boolean>
  /** Log-out. */
  readonly endSession: (tenant: string, session: string, now: number, event: Event) => Promise<void>
  /** Raises the epoch; `keep` is re-recorded under the new one. Writes the change row and event. */
  readonly raiseEpoch: (
    tenant: string,
    subject: string,
    options: {
      readonly keep?: By | undefined
      readonly clearWaits: boolean
      readonly now: number
      readonly event: Event
    }
  ) => Promise<void>
  readonly sessions: (
    tenant: string,
    subject: string,
    now: number
  ) => Promise<
    readonly { readonly session: string; readonly at: number; readonly expiresAt: number; readonly factor: string }[]
  >

  /**
   * Administration. Each writes its event, change row and notices and raises the epoch where factors or rules change.
   */
  readonly administer: (
    tenant: string,
    subject: string,
    act:
      | { readonly act: 'unlock' }
      /** Removes all factors; fenced until `enrolmentCodeHash` is given, unless null (open). */
      | { readonly act: 'reset'; readonly enrolmentCodeHash: string | null; readonly expiresAt: number }
      | { readonly act: 'enrolment_code'; readonly enrolmentCodeHash: string; readonly expiresAt: number }
      | { readonly act: 'require'; readonly from: number | null }
      | { readonly act: 'address'; readonly sealed: string | null }
      /** Erases all but the audit rows, in which `keyed` replaces the subject. */
      | { readonly act: 'delete'; readonly keyed: string }
      /** Secrets are bound to their subject, so they are sealed anew. */
      | {
        readonly act: 'rename'
        readonly to: string
        readonly reseal: (sealed: string, place: 'contact' | 'authenticator', factor: string, id: string) => string
      },
    options: { readonly now: number; readonly event: Event; readonly notices: readonly Notice[] }
  ) => Promise<'done' | 'target_has_factors' | 'unknown'>

  readonly writeEvent: (tenant: string, event: Event, now: number) => Promise<void>
  readonly events: (
    tenant: string,
    after: number,
    limit: number,
    subject?: string
  ) => Promise<readonly RecordedEvent[]>
  readonly changes: {
    readonly since: (tenant: string, number: number, limit: number) => Promise<readonly Change[]>
    readonly newest: (tenant: string) => Promise<number>
    /** The newest numbers of several tenants in one look; one that has no change yet is missing. */
    readonly newestOf: (tenants: readonly string[]) => Promise<ReadonlyMap<string, number>>
    /** The rules of the whole tenant changed in this process (reload). */
    readonly tenantChanged: (tenant: string, now: number) => Promise<void>
    /**
     * Remembers the digest of the rules that a process starts with. Where it is another than before, or became so
     * within the hour (the other replicas of a roll-out), gates are told; true then.
     */
    readonly rules: (tenant: string, digest: string, now: number) => Promise<boolean>
  }
  readonly notices: {
    /** Takes due rows for a while, so that no other worker sends them. */
    readonly take: (now: number, limit: number) => Promise<readonly PendingNotice[]>
    readonly sent: (id: string, now: number) => Promise<void>
    /** `retryAt` null: it cannot be delivered and is shown on pages instead. */
    readonly failed: (id: string, retryAt: number | null) => Promise<void>
    readonly shown: (tenant: string, subject: string) => Promise<readonly PendingNotice[]>
    readonly dismiss: (tenant: string, subject: string, id: string, now: number) => Promise<void>
  }
  /** Embedded mode: one process. Resolves with who holds the lease if it is held by another. */
  readonly lease: {
    readonly take: (
      holder: { readonly id: string; readonly host: string; readonly pid: number },
      now: number,
      staleMs: number
    ) => Promise<{ readonly host: string; readonly pid: number } | undefined>
    readonly release: (id: string) => Promise<void>
  }
  /** Tenants that have rows. */
  readonly tenants: () => Promise<readonly string[]>
  /** Prunes what no rule needs any more: accepted marks, expired assurances, old failures, events past retention. */
  readonly prune: (now: number, eventRetentionMs: number) => Promise<void>
  readonly now: () => Promise<number>
  readonly check: () => Promise<void>
  readonly close: () => Promise<void>
}
