// Reading a subject: one statement, whatever the decision needs.

import { CompiledQuery, sql } from 'kysely'
import type { Authenticator, By, SubjectState } from '../../domain/model.ts'
import type { Records } from '../../domain/records.ts'
import { REMEMBERED_MS, transaction, writeChange, type Db, type Dialect } from './parts.ts'

interface Row {
  readonly epoch: number | null
  readonly failures_in_row: number | null
  readonly locked_at: number | null
  readonly required_from: number | null
  readonly fenced: number | null
  readonly enrolment_code_hash: string | null
  readonly enrolment_code_expires_at: number | null
  readonly contact: string | null
  readonly set_address: string | null
  readonly locale: string | null
  readonly own: unknown
  readonly in_30_days: number
  readonly browser_failures: number | null
  readonly passed_at: number | null
  readonly session_subject: string | null
  readonly session_browser: string | null
  readonly session_epoch: number | null
  readonly login_at: number | null
  readonly login_factor: string | null
  readonly login_expires_at: number | null
  readonly step_up_at: number | null
  readonly step_up_factor: string | null
  readonly step_up_scope: string | null
  readonly expires_at: number | null
  readonly change: number | null
  readonly database_id: string | null
}

/** The aggregate's rows: text on SQLite, parsed on PostgreSQL. */
function authenticators (own: unknown): readonly Authenticator[] {
  const rows: unknown = typeof own === 'string' ? JSON.parse(own) : own
  if (!Array.isArray(rows)) return []
  return rows.map((row: readonly [string, string, string, number, number]) => {
    const [id, factor, secret, counter, confirmedAt] = row
    return { id, factor, secret, counter: Number(counter), confirmedAt: Number(confirmedAt) }
  })
}

function stateOf (by: By, row: Row, now: number): SubjectState {
  const epoch = row.epoch ?? 0
  const browserKnown = row.passed_at !== null && row.passed_at > now - REMEMBERED_MS
  const fits =
    row.session_subject === by.subject &&
    row.session_browser === by.browser &&
    row.session_epoch === epoch &&
    (row.expires_at ?? 0) > now
  return {
    subject: by.subject,
    epoch,
    authenticators: authenticators(row.own),
    lockedAt: row.locked_at,
    inARow: browserKnown ? (row.browser_failures ?? 0) : (row.failures_in_row ?? 0),
    in30Days: Number(row.in_30_days),
    browserKnown,
    requiredFrom: row.required_from,
    fenced: row.fenced === 1,
    enrolmentCodeHash: row.enrolment_code_hash,
    enrolmentCodeExpiresAt: row.enrolment_code_expires_at,
    contact: row.contact,
    setAddress: row.set_address,
    locale: row.locale,
    assurance: fits
      ? {
          loginAt: row.login_at,
          loginFactor: row.login_factor,
          loginExpiresAt: row.login_expires_at,
          stepUpAt: row.step_up_at,
          stepUpFactor: row.step_up_factor,
          stepUpScope: row.step_up_scope === 'recovery' ? 'recovery' : 'any'
        }
      : null
  }
}

export function createStates (
  db: Db,
  dialect: Dialect,
  id: string
): Pick<Records, 'subject' | 'question' | 'subjectOf' | 'sessions' | 'acceptedBefore'> {
  const own =
    dialect === 'sqlite'
      ? sql`(select json_group_array(json_array(a.id, a.factor, a.secret, a.counter, a.confirmed_at)) from (select * from authenticators where tenant = one.tenant and subject = one.subject order by id) a)`
      : sql`(select json_agg(json_build_array(a.id, a.factor, a.secret, a.counter, a.confirmed_at) order by a.id) from authenticators a where a.tenant = one.tenant and a.subject = one.subject)`
  const named = (name: string) => (dialect === 'sqlite' ? sql`${''} as ${sql.ref(name)}` : sql`${''}::text as ${sql.ref(name)}`)
  // Compiled once: it is most of what a gate asks, and making its text costs as much as running it.
  const { sql: text } = sql`
    select s.epoch, s.failures_in_row, s.locked_at, s.required_from, s.fenced, s.enrolment_code_hash, s.enrolment_code_expires_at,
      s.contact, s.set_address, s.locale, ${own} as own,
      (select count(*) from failures f where f.tenant = one.tenant and f.subject = one.subject and f.at > ${0}) as in_30_days,
      b.failures_in_row as browser_failures, b.passed_at,
      x.subject as session_subject, x.browser as session_browser, x.epoch as session_epoch, x.login_at, x.login_factor,
      x.login_expires_at, x.step_up_at, x.step_up_factor, x.step_up_scope, x.expires_at,
      (select n.number from change_numbers n where n.tenant = one.tenant) as change,
      (select i.id from identity i where i.name = 'database') as database_id
    from (select ${sql.join([named('tenant'), named('subject'), named('session'), named('browser')])}) one
    left join subjects s on s.tenant = one.tenant and s.subject = one.subject
    left join browsers b on b.tenant = one.tenant and b.subject = one.subject and b.browser = one.browser
    left join assurances x on x.tenant = one.tenant and x.session = one.session`.compile(db)

  const read = async ({ tenant, subject, session, browser }: By, now: number): Promise<Row> => {
    const parameters = [now - REMEMBERED_MS, tenant, subject, session, browser]
    const { rows } = await db.executeQuery<Row>(CompiledQuery.raw(text, parameters))
    const [row] = rows
    if (row === undefined) throw new Error('a read of one row gave none')
    // Emptied, or restored from elsewhere, beside the running service: that somebody is missing says nothing then.
    if (row.database_id !== id) throw new Error('the database is another than at start')
    return row
  }

  return {
    subject: async (by, now) => stateOf(by, await read(by, now), now),

    question: async (by, now) => {
      const row = await read(by, now)
      if (row.session_subject !== null && row.session_subject !== by.subject) {
        // Somebody else logged in within this session: what the first one passed is over.
        await transaction(db, async tx => {
          const gone = await tx
            .deleteFrom('assurances')
            .where('tenant', '=', by.tenant)
            .where('session', '=', by.session)
            .where('subject', '!=', by.subject)
            .executeTakeFirst()
          if (gone.numDeletedRows > 0n) {
            await writeChange(tx, by.tenant, now, { kind: 'session', session: by.session })
          }
        })
      }
      return { state: stateOf(by, row, now), change: row.change ?? 0 }
    },

    subjectOf: async (tenant, session, now) => {
      const row = await db
        .selectFrom('assurances')
        .select('subject')
        .where('tenant', '=', tenant)
        .where('session', '=', session)
        .where('expires_at', '>', now)
        .executeTakeFirst()
      return row?.subject
    },

    sessions: async (tenant, subject, now) => {
      const rows = await db
        .selectFrom('assurances')
        .innerJoin('subjects', join =>
          join
            .onRef('subjects.tenant', '=', 'assurances.tenant')
            .onRef('subjects.subject', '=', 'assurances.subject')
            .onRef('subjects.epoch', '=', 'assurances.epoch')
        )
        .select([
          'assurances.session',
          'assurances.login_at',
          'assurances.login_factor',
          'assurances.login_expires_at'
        ])
        .where('assurances.tenant', '=', tenant)
        .where('assurances.subject', '=', subject)
        .where('assurances.login_expires_at', '>', now)
        .orderBy('assurances.login_at')
        .execute()
      return rows.map(row => ({
        session: row.session,
        at: row.login_at ?? 0,
        expiresAt: row.login_expires_at ?? 0,
        factor: row.login_factor ?? ''
      }))
    },

    acceptedBefore: async (tenant, slot) => {
      const row = await db
        .selectFrom('accepted')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('slot', '=', slot)
        .executeTakeFirst()
      if (row === undefined || (row.purpose !== 'login' && row.purpose !== 'step_up')) return undefined
      return {
        by: { tenant, subject: row.subject, session: row.session, browser: row.browser },
        factor: row.factor,
        purpose: row.purpose,
        returnPath: row.return_path,
        idempotencyKey: row.idempotency_key,
        at: row.at,
        expiresAt: row.expires_at
      }
    }
  }
}
