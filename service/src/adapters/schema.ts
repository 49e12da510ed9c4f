// The tables as the query builder knows them. Times are epoch milliseconds, flags are 0 or 1.

import type { Generated } from 'kysely'

export interface Schema {
  subjects: {
    tenant: string
    subject: string
    epoch: number
    failures_in_row: number
    locked_at: number | null
    required_from: number | null
    fenced: number
    enrolment_code_hash: string | null
    enrolment_code_expires_at: number | null
    contact: string | null
    set_address: string | null
    locale: string | null
  }
  authenticators: {
    id: string
    tenant: string
    subject: string
    factor: string
    secret: string
    counter: number
    confirmed_at: number
  }
  assurances: {
    tenant: string
    session: string
    subject: string
    browser: string
    epoch: number
    login_at: number | null
    login_factor: string | null
    login_expires_at: number | null
    step_up_at: number | null
    step_up_factor: string | null
    step_up_scope: string
    expires_at: number
  }
  accepted: {
    tenant: string
    slot: string
    at: number
    expires_at: number
    subject: string
    session: string
    browser: string
    purpose: string
    factor: string
    return_path: string | null
    idempotency_key: string | null
  }
  browsers: {
    tenant: string
    subject: string
    browser: string
    passed_at: number
    failures_in_row: number
  }
  failures: {
    tenant: string
    subject: string
    at: number
  }
  events: {
    id: Generated<number>
    tenant: string
    at: number
    subject: string
    kind: string
    outcome: string
    actor: string
    purpose: string | null
    factor: string | null
    reason: string | null
    request_id: string | null
    address_prefix: string | null
    /** Place in the log as readers see it, given after the commit; null until a reader came by. */
    number: number | null
  }
  /** One row a tenant: the number of its newest numbered event; its lock lets one reader number at a time. */
  event_numbers: {
    tenant: string
    number: number
  }
  /** Which keys this database was used with, without the keys: `encryption` or `server`. */
  key_marks: {
    kind: string
    id: string
    mark: string
    first_seen_at: number
  }
  /** One row, `database`: which database this is. */
  identity: {
    name: string
    id: string
    made_at: number
  }
  /** The rules of each tenant as they were last started or reloaded with. */
  rules: {
    tenant: string
    digest: string
    changed_at: number
  }
  /** One row a tenant: the number of its newest change; the row's lock keeps changes in the order of their commits. */
  change_numbers: {
    tenant: string
    number: number
  }
  changes: {
    tenant: string
    number: number
    at: number
    kind: string
    session: string | null
    subject: string | null
  }
  notices: {
    id: string
    tenant: string
    subject: string
    at: number
    message: string
    recipient: string | null
    locale: string | null
    details: string
    /** When to try next; null: delivered, or undeliverable. */
    next_at: number | null
    sent_at: number | null
    dismissed_at: number | null
  }
  lease: {
    name: string
    holder: string
    host: string
    pid: number
    renewed_at: number
  }
}
