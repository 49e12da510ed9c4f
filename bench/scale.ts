// What a million enrolments cost: fills a database in bulk, then times the gate's question and a verification, at 1,000
// and at 1,000,000 subjects, and weighs what a subject takes.
//
//   node --import tsx bench/scale.ts sqlite:data/scale.db [subjects]
//   node --import tsx bench/scale.ts postgres://postgres@127.0.0.1:5432/scale [subjects]
//
// The database must be new: it is filled, never emptied.

import { randomBytes, randomInt } from 'node:crypto'
import { statSync } from 'node:fs'
import { sql } from 'kysely'
import { createSealer } from '../service/src/adapters/crypto.ts'
import { openDatabase } from '../service/src/adapters/database.ts'
import { databaseId } from '../service/src/adapters/key-ring.ts'
import { createRecords } from '../service/src/adapters/sql.ts'
import { sealContext } from '../service/src/domain/model.ts'

const [url = '', most = '1000000'] = process.argv.slice(2)
if (!/^(sqlite:|postgres)/.test(url)) throw new Error('usage: node --import tsx bench/scale.ts <database> [subjects]')

const now = Date.now()
const sealer = createSealer({
  encryptionKeys: [{ id: 'k1', key: randomBytes(32) }], serverKey: { id: 's1', key: randomBytes(32) }
})
const database = await openDatabase(url)
await database.migrate()
const records = createRecords(database, await databaseId(database, now))
const secret = sealer.seal('A'.repeat(32), sealContext('authenticator', 't1', 'u0', 'totp', 'x'))
const hash = `v1.${randomBytes(16).toString('base64url')}.abc.${randomBytes(32).toString('base64url')}`
const contact = sealer.seal('somebody@example.org', sealContext('contact', 't1', 'u0'))

/** Each subject as it is after an enrolment: a key, six backup codes, one session, one known browser, one event. */
async function fill (from: number, to: number): Promise<void> {
  const series = database.dialect === 'sqlite'
    ? sql`(with recursive n(i) as (select ${sql.lit(from)} union all select i + 1 from n where i + 1 < ${sql.lit(to)}) select i from n) as n`
    : sql`generate_series(${sql.lit(from)}, ${sql.lit(to - 1)}) as n(i)`
  const six = sql`(select 1 as k union all select 2 union all select 3 union all select 4 union all select 5 union all select 6) as six`
  const at = sql.lit(now)
  await database.patiently(async db => {
    for (const statement of [
      sql`insert into subjects (tenant, subject, epoch, contact, locale) select 't1', 'u' || n.i, ${at}, ${sql.lit(contact)}, 'en' from ${series}`,
      sql`insert into authenticators (id, tenant, subject, factor, secret, counter, confirmed_at)
        select 'key-of-' || n.i || '-0123456789012345678901', 't1', 'u' || n.i, 'totp', ${sql.lit(secret)}, 0, ${at} from ${series}`,
      sql`insert into authenticators (id, tenant, subject, factor, secret, counter, confirmed_at)
        select 'code-' || six.k || '-of-' || n.i || '-01234567890123456', 't1', 'u' || n.i, 'backup_code', ${sql.lit(hash)}, 0, ${at}
        from ${series}, ${six}`,
      sql`insert into assurances (tenant, session, subject, browser, epoch, login_at, login_factor, login_expires_at, expires_at)
        select 't1', 'session-of-' || n.i || '-012345678901234567890', 'u' || n.i, 'browser-of-' || n.i || '-012345678901234567890', ${at},
        ${at}, 'totp', ${sql.lit(now + 86_400_000)}, ${sql.lit(now + 86_400_000)} from ${series}`,
      sql`insert into browsers (tenant, subject, browser, passed_at)
        select 't1', 'u' || n.i, 'browser-of-' || n.i || '-012345678901234567890', ${at} from ${series}`,
      sql`insert into events (tenant, at, subject, kind, outcome, actor, factor, request_id)
        select 't1', ${at}, 'u' || n.i, 'enrolment', 'done', 'subject', 'totp', '01234567-0123-0123-0123-012345678901' from ${series}`
    ]) await statement.execute(db)
  })
}

const quantile = (times: number[], part: number): number =>
  [...times].sort((a, b) => a - b)[Math.floor(times.length * part)] ?? 0

async function times (work: (i: number) => Promise<unknown>, subjects: number): Promise<readonly number[]> {
  const all: number[] = []
  for (let n = 0; n < 2_200; n++) {
    const began = performance.now()
    await work(randomInt(subjects))
    // The first ones warm up caches and compilers.
    if (n >= 200) all.push((performance.now() - began) * 1000)
  }
  return [quantile(all, 0.5), quantile(all, 0.99)].map(Math.round)
}

const byOf = (i: number) => ({
  tenant: 't1',
  subject: `u${i}`,
  session: `session-of-${i}-012345678901234567890`,
  browser: `browser-of-${i}-012345678901234567890`
})
let slot = 0
const verify = async (i: number): Promise<void> => {
  const by = byOf(i)
  const state = await records.subject(by, now)
  const totp = state.authenticators.find(own => own.factor === 'totp')
  if (totp === undefined) throw new Error(`${by.subject} has no key`)
  const { result } = await records.accept({
    by,
    bindTo: by.browser,
    slot: { id: `slot ${++slot}`, kind: 'login', epoch: state.epoch, returnPath: null },
    use: { use: 'advance', authenticator: totp.id, to: totp.counter + 1 },
    factor: 'totp',
    whileLocked: false,
    record: { purpose: 'login', expiresAt: now + 1000, scope: 'any' },
    idempotencyKey: null,
    now,
    event: { kind: 'verification', subject: by.subject, outcome: 'accepted', actor: 'subject', factor: 'totp' },
    notices: []
  })
  if (result !== 'accepted') throw new Error(result)
}

async function bytes (): Promise<number> {
  if (database.dialect === 'sqlite') {
    await sql`pragma wal_checkpoint(truncate)`.execute(database.db)
    return statSync(url.slice('sqlite:'.length)).size
  }
  const { rows: [row] } = await sql<{ size: number }>`
    select pg_database_size(current_database()) as size`.execute(database.db)
  return row?.size ?? 0
}

const empty = await bytes()
let filled = 0
process.stdout.write('| subjects | question, median / p99 (µs) | verification in SQL, median / p99 (µs) | bytes a subject |\n|---|---|---|---|\n')
for (const subjects of [1_000, Number(most)]) {
  while (filled < subjects) {
    const to = Math.min(filled + 50_000, subjects)
    await fill(filled, to)
    filled = to
  }
  await database.patiently(async db => { await sql`analyze`.execute(db) })
  const size = Math.round((await bytes() - empty) / subjects)
  const question = await times(async i => await records.question(byOf(i), now), subjects)
  const verification = await times(verify, subjects)
  process.stdout.write(`| ${subjects} | ${question.join(' / ')} | ${verification.join(' / ')} | ${size} |\n`)
}
await records.close()
