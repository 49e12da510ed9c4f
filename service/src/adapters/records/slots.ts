// What ends a slot: the first answer to it, whoever gave it.

import type { Schema } from '../schema.ts'
import { write } from '../statements.ts'

/** The first answer to a slot is the only one. */
export const insertAccepted = write((on, row: Schema['accepted']) => on
  .insertInto('accepted')
  .values({
    tenant: row.tenant,
    slot: row.slot,
    at: row.at,
    expires_at: row.expires_at,
    subject: row.subject,
    session: row.session,
    browser: row.browser,
    purpose: row.purpose,
    factor: row.factor,
    return_path: row.return_path,
    idempotency_key: row.idempotency_key
  })
  .onConflict(conflict => conflict.columns(['tenant', 'slot']).doNothing()))
