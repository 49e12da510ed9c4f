// What a right answer writes.

import { sql } from 'kysely'
import type { AcceptRequest } from '../../domain/records.ts'
import type { Schema } from '../schema.ts'
import { write, type On, type Part } from '../statements.ts'
import type { OwnBrowser } from './parts.ts'
import { insertAccepted } from './slots.ts'

interface Code {
  readonly id: string
  readonly tenant: string
  readonly subject: string
}

const authenticator = (on: On, { id, tenant, subject }: Code) => on
  .updateTable('authenticators').where('id', '=', id).where('tenant', '=', tenant).where('subject', '=', subject)
const advance = write((on, code: Code & { readonly to: number }) =>
  authenticator(on, code).set({ counter: code.to }).where('counter', '<', code.to))
const consume = write((on, code: Code) => authenticator(on, code).set({ counter: 1 }).where('counter', '=', 0))

/** The conditional write that makes a code single-use; none where the challenge that ends is what does. */
export function use ({ by: { tenant, subject }, use }: AcceptRequest): readonly Part[] {
  if (use.use === 'challenge') return []
  const code = { id: use.authenticator, tenant, subject }
  return [use.use === 'advance' ? advance.with({ ...code, to: use.to }) : consume.with(code)]
}

/** The end of the slot. */
export function first ({ by, slot, now, factor, record, idempotencyKey }: AcceptRequest): Part {
  return insertAccepted.with({
    tenant: by.tenant,
    slot: slot.id,
    at: now,
    expires_at: record?.expiresAt ?? now,
    subject: by.subject,
    session: by.session,
    browser: by.browser,
    purpose: slot.kind,
    factor,
    return_path: slot.returnPath,
    idempotency_key: idempotencyKey
  })
}

export type Assured = Schema['assurances']

const insertAssurance = (on: On, row: Assured) => on.insertInto('assurances').values({
  tenant: row.tenant,
  session: row.session,
  subject: row.subject,
  epoch: row.epoch,
  browser: row.browser,
  login_at: row.login_at,
  login_factor: row.login_factor,
  login_expires_at: row.login_expires_at,
  step_up_at: row.step_up_at,
  step_up_factor: row.step_up_factor,
  step_up_scope: row.step_up_scope,
  expires_at: row.expires_at
})

const REPLACING = [
  'subject', 'epoch', 'browser', 'login_at', 'login_factor', 'login_expires_at', 'step_up_at', 'step_up_factor',
  'step_up_scope', 'expires_at'
] as const

const replacing = () => Object.fromEntries(REPLACING.map(column => [column, sql.ref(`excluded.${column}`)]))

export const writeAssurance = write((on, row: Assured) =>
  insertAssurance(on, row).onConflict(conflict => conflict.columns(['tenant', 'session']).doUpdateSet(replacing())))

/** Not over a login that gates may know: they are to hear of it. */
export const writeUnheardAssurance = write((on, row: Assured) =>
  insertAssurance(on, row).onConflict(conflict => conflict
    .columns(['tenant', 'session'])
    .doUpdateSet(replacing())
    .where(eb => eb.or([
      eb('assurances.login_at', 'is', null),
      eb.and([
        eb('assurances.subject', '=', eb.ref('excluded.subject')),
        eb('assurances.browser', '=', eb.ref('excluded.browser'))
      ])
    ]))))

type SteppedUp = Pick<
  Assured,
  'tenant' | 'session' | 'subject' | 'epoch' | 'browser' | 'step_up_at' | 'step_up_factor' | 'step_up_scope' | 'expires_at'
>

/** A step-up beside the login that stands. */
export const writeStepUp = write((on, row: SteppedUp) => on
  .updateTable('assurances')
  .set(eb => ({
    step_up_at: row.step_up_at,
    step_up_factor: row.step_up_factor,
    step_up_scope: row.step_up_scope,
    expires_at: eb.case().when('expires_at', '>', row.expires_at).then(eb.ref('expires_at')).else(row.expires_at).end()
  }))
  .where('tenant', '=', row.tenant)
  .where('session', '=', row.session)
  .where('subject', '=', row.subject)
  .where('epoch', '=', row.epoch)
  .where('browser', '=', row.browser))

/** A browser that passed; `since` is what it must have passed after to be known. */
export interface Passing extends OwnBrowser {
  readonly now: number
  readonly since: number
}

export const passBrowser = write((on, { tenant, subject, browser, now, since }: Passing) => on
  .updateTable('browsers')
  .set({ failures_in_row: 0, passed_at: now })
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('browser', '=', browser)
  .where('passed_at', '>', since))

export const deleteBrowser = write((on, { tenant, subject, browser }: OwnBrowser) => on
  .deleteFrom('browsers')
  .where('tenant', '=', tenant)
  .where('subject', '=', subject)
  .where('browser', '=', browser))
