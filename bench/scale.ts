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
import { fill } from './subjects.ts'

const [url = '', most = '1000000'] = process.argv.slice(2)
if (!/^(sqlite:|postgres)/.test(url)) throw new Error('usage: node --import tsx bench/scale.ts <database> [subjects]')

const now = Date.now()
const sealer = createSealer({
  encryptionKeys: [{ id: 'k1', key: randomBytes(32) }], serverKey: { id: 's1', key: randomBytes(32) }
})
const database = await openDatabase(url)
await database.migrate()
const records = createRecords(database, await databaseId(database, now))
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
    await fill(database, sealer, filled, to)
    filled = to
  }
  const size = Math.round((await bytes() - empty) / subjects)
  const question = await times(async i => await records.question(byOf(i), now), subjects)
  const verification = await times(verify, subjects)
  process.stdout.write(`| ${subjects} | ${question.join(' / ')} | ${verification.join(' / ')} | ${size} |\n`)
}
await records.close()
