// The subjects that everything is measured with: their keys and codes, made from their number, and filling a database
// with them in bulk.

import { createHash, createHmac, randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import type { Database } from '../service/src/adapters/database.ts'
import type { Sealer } from '../service/src/domain/ports.ts'
import { sealContext, type By } from '../service/src/domain/model.ts'

const STEP_MS = 30_000
/** Rows in one statement with values; SQLite takes 32,766 parameters. */
const ROWS = 2_000

/** The TOTP key of a subject. */
export const keyOf = (i: number): Buffer => createHash('sha256').update(`key of ${i}`).digest().subarray(0, 20)

/** RFC 6238 with 6 digits, by hand: the driver makes thousands a second. */
export function codeOf (key: Buffer, step: number): string {
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(step))
  const mac = createHmac('sha1', key).update(counter).digest()
  const at = (mac[19] ?? 0) & 15
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0')
}

/** The next subject, with a code that is right for it now. */
export type Walk = () => { readonly i: number, readonly code: string }

/**
 * Walks through subjects (each `every`-th of those that were filled) so that each has a code that it has not used;
 * throws where there are too few of them.
 */
export function createWalk (subjects: number, every = 1): Walk {
  const used = new Int32Array(subjects)
  let turn = 0
  return () => {
    const at = turn++ % subjects
    const step = Math.max(Math.floor(Date.now() / STEP_MS), (used[at] ?? 0) + 1)
    if (step > Math.floor(Date.now() / STEP_MS) + 1) throw new Error(`${subjects} subjects are too few for this speed`)
    used[at] = step
    const i = at * every
    return { i, code: codeOf(keyOf(i), step) }
  }
}

/** The session and browser that a subject was filled with. */
export const filledBy = (i: number): By => ({
  tenant: 't1',
  subject: `u${i}`,
  session: `session-of-${i}-012345678901234567890`,
  browser: `browser-of-${i}-012345678901234567890`
})

/**
 * Subjects 0 to `count` as they are after an enrolment: a key, six backup codes, one session, one known browser, one
 * event. Only each `every`-th has a key that can be opened; the others are there to be many.
 */
export async function fill (database: Database, sealer: Sealer, count: number, every = 1): Promise<void> {
  const now = Date.now()
  const series = database.dialect === 'sqlite'
    ? sql`(with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < ${sql.lit(count)}) select i from n) as n`
    : sql`generate_series(0, ${sql.lit(count - 1)}) as n(i)`
  const six = sql`(select 1 as k union all select 2 union all select 3 union all select 4 union all select 5 union all select 6) as six`
  const at = sql.lit(now)
  const hash = `v1.${randomBytes(16).toString('base64url')}.abc.${randomBytes(32).toString('base64url')}`
  await database.patiently(async db => {
    for (let first = 0; first < count; first += ROWS * every) {
      const length = Math.ceil(Math.min(ROWS * every, count - first) / every)
      const some = Array.from({ length }, (_, n) => first + n * every)
      await db.insertInto('subjects').values(some.map(i => {
        const contact = sealer.seal('somebody@example.org', sealContext('contact', 't1', `u${i}`))
        return { tenant: 't1', subject: `u${i}`, epoch: now, failures_in_row: 0, fenced: 0, contact, locale: 'en' }
      })).execute()
      await db.insertInto('authenticators').values(some.map(i => {
        const id = `key-of-${i}-0123456789012345678901`
        const plain = keyOf(i).toString('base64url')
        const secret = sealer.seal(plain, sealContext('authenticator', 't1', `u${i}`, 'totp', id))
        return { id, tenant: 't1', subject: `u${i}`, factor: 'totp', secret, counter: 0, confirmed_at: now }
      })).execute()
    }
    const contact = sealer.seal('somebody@example.org', 'nobody')
    const secret = sealer.seal(keyOf(0).toString('base64url'), 'nobody')
    const others = sql`${series} where n.i % ${sql.lit(every)} <> 0`
    for (const statement of [
      ...(every === 1
        ? []
        : [
            sql`insert into subjects (tenant, subject, epoch, failures_in_row, fenced, contact, locale)
              select 't1', 'u' || n.i, ${at}, 0, 0, ${sql.lit(contact)}, 'en' from ${others}`,
            sql`insert into authenticators (id, tenant, subject, factor, secret, counter, confirmed_at)
              select 'key-of-' || n.i || '-0123456789012345678901', 't1', 'u' || n.i, 'totp', ${sql.lit(secret)}, 0, ${at} from ${others}`
          ]),
      sql`insert into authenticators (id, tenant, subject, factor, secret, counter, confirmed_at)
        select 'code-' || six.k || '-of-' || n.i || '-01234567890123456', 't1', 'u' || n.i, 'backup_code', ${sql.lit(hash)}, 0, ${at}
        from ${series}, ${six}`,
      sql`insert into assurances (tenant, session, subject, browser, epoch, login_at, login_factor, login_expires_at, expires_at)
        select 't1', 'session-of-' || n.i || '-012345678901234567890', 'u' || n.i, 'browser-of-' || n.i || '-012345678901234567890', ${at},
        ${at}, 'totp', ${sql.lit(now + 86_400_000)}, ${sql.lit(now + 86_400_000)} from ${series}`,
      sql`insert into browsers (tenant, subject, browser, passed_at)
        select 't1', 'u' || n.i, 'browser-of-' || n.i || '-012345678901234567890', ${at} from ${series}`,
      sql`insert into events (tenant, at, subject, kind, outcome, actor, factor, request_id)
        select 't1', ${at}, 'u' || n.i, 'enrolment', 'done', 'subject', 'totp', '01234567-0123-0123-0123-012345678901' from ${series}`,
      sql`analyze`
    ]) await statement.execute(db)
  })
}
