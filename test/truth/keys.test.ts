// Threat: keys that are lost, mixed up, dropped too early or changed half-way. Nobody's enrolment may be treated as
// absent, and no secret may become unreadable.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import t from 'tap'
import { createSealer } from '../../service/src/adapters/crypto.ts'
import { openDatabase, type Database } from '../../service/src/adapters/database.ts'
import { checkKeys, rotateKeys, type Keys } from '../../service/src/adapters/key-ring.ts'
import { sealContext } from '../../service/src/domain/model.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { dataFolder, postern, serve, settingsIn } from '../helpers/processes.ts'
import { by, startService, type Teardown } from '../helpers/service.ts'

const server = await startPostgres(t)
const text = (id: string) => `${id}:${randomBytes(32).toString('base64')}`
const named = (one: string) => ({ id: one.split(':')[0] ?? '', key: new Uint8Array(Buffer.from(one.split(':')[1] ?? '', 'base64')) })
const [k1, k2, s1] = [text('k1'), text('k2'), text('s1')]
const keysOf = (...ring: string[]): Keys => ({ encryptionKeys: ring.map(named), serverKey: named(s1) })

/** A database with people in it, sealed under k1. */
async function filled (database: Database, people: number): Promise<void> {
  await database.migrate()
  const keys = keysOf(k1)
  const sealer = createSealer(keys)
  await checkKeys(database, keys, sealer, 1)
  for (let i = 0; i < people; i += 100) {
    const names = Array.from({ length: Math.min(100, people - i) }, (_, j) => `person ${i + j}`)
    await database.db.insertInto('subjects').values(names.map(subject => ({
      tenant: 't1', subject, epoch: 1, fenced: 0, failures_in_row: 0, contact: sealer.seal(`${subject}@x`, sealContext('contact', 't1', subject))
    }))).execute()
    await database.db.insertInto('authenticators').values(names.flatMap(subject => [
      { id: `id of ${subject}`, tenant: 't1', subject, factor: 'totp', secret: sealer.seal(subject, sealContext('authenticator', 't1', subject, 'totp', `id of ${subject}`)), counter: 0, confirmed_at: 1 },
      { id: `code of ${subject}`, tenant: 't1', subject, factor: 'backup_code', secret: 'v1.salt.tag.hash', counter: 0, confirmed_at: 1 }
    ])).execute()
  }
}

for (const [kind, open] of [
  ['SQLite', async (t: Teardown) => `sqlite:${join(dataFolder(t), 'p.db')}`],
  ['PostgreSQL', async () => (await server.fresh()).url]
] as const) {
  t.test(`C-31 on ${kind}: everything is sealed anew beside changes, may be interrupted, and the old key is then unneeded`, async t => {
    const url = await open(t)
    const database = await openDatabase(url)
    t.teardown(async () => { await database.close() })
    await filled(database, 450)
    const ring = keysOf(k2, k1)
    const sealer = createSealer(ring)
    await checkKeys(database, ring, sealer, 2)
    await t.rejects(checkKeys(database, keysOf(k2), createSealer(keysOf(k2)), 2),
      { message: /^900 secrets are sealed under key k1, which POSTERN_ENCRYPTION_KEYS does not hold/ }, 'dropped too early')

    // Ended in the middle: what is done stays done.
    await t.rejects(rotateKeys(database, ring, sealer, resealed => { if (resealed >= 200) throw new Error('killed') }), { message: 'killed' })
    await t.rejects(checkKeys(database, keysOf(k2), createSealer(keysOf(k2)), 2), { message: /^[67]00 secrets/ })

    // A row that somebody changes meanwhile keeps what they wrote; one that cannot be read is named and stays.
    await database.db.updateTable('authenticators').set({ secret: 'v1.k1.AAAA' }).where('id', '=', 'id of person 449').execute()
    const changed = sealer.seal('new', sealContext('contact', 't1', 'person 440'))
    let interfered = false
    const result = await rotateKeys(database, ring, sealer, () => {
      if (interfered) return
      interfered = true
      void database.db.updateTable('subjects').set({ contact: changed }).where('subject', '=', 'person 440').execute()
    })
    t.same(result.unreadable, ['authenticators t1 person 449 id of person 449'])
    t.same(result.unneeded, [], 'the unreadable one still names k1')
    await database.db.deleteFrom('authenticators').where('id', '=', 'id of person 449').execute()
    t.same((await rotateKeys(database, ring, sealer, () => {})), { resealed: 0, unreadable: [], unneeded: ['k1'] })
    await checkKeys(database, keysOf(k2), createSealer(keysOf(k2)), 3)
    const alone = createSealer(keysOf(k2))
    for (const row of await database.db.selectFrom('authenticators').selectAll().where('factor', '=', 'totp').execute()) {
      if (alone.unseal(row.secret, sealContext('authenticator', 't1', row.subject, 'totp', row.id)) !== row.subject) t.fail(row.id)
    }
    const subjects = await database.db.selectFrom('subjects').selectAll().execute()
    t.equal(subjects.length, 450)
    for (const { subject, contact } of subjects) {
      const plain = alone.unseal(contact ?? '', sealContext('contact', 't1', subject))
      if (plain !== `${subject}@x` && plain !== 'new') t.fail(subject)
    }
    t.equal((await database.db.selectFrom('authenticators').select('secret').where('factor', '=', 'backup_code').distinct().execute()).length, 1, 'hashes are left alone')
  })

  t.test(`C-33 on ${kind}: wrong keys are found out at start, before anybody is asked anything`, async t => {
    const url = await open(t)
    const database = await openDatabase(url)
    t.teardown(async () => { await database.close() })
    await filled(database, 10)
    const check = async (keys: Keys) => { await checkKeys(database, keys, createSealer(keys), 5) }
    await check(keysOf(k1))
    await t.rejects(check(keysOf(text('k1'))), { name: 'WrongKeys', message: /key k1 of POSTERN_ENCRYPTION_KEYS is not the k1/ })
    await t.rejects(check(keysOf(text('k7'))), { name: 'WrongKeys', message: /sealed under key k1/ })
    await t.rejects(check({ ...keysOf(k1), serverKey: named(text('s1')) }), { name: 'WrongKeys', message: /POSTERN_SERVER_KEY is not the key/ })
    // A part of a backup, without the marks.
    await database.db.deleteFrom('key_marks').execute()
    await t.rejects(check(keysOf(text('k1'))), { name: 'WrongKeys' })
    await check(keysOf(k1))
  })
}

t.test('C-31: an operator rotates the key beside the running service, twice at once; each secret is sealed anew once', async t => {
  const folder = dataFolder(t)
  const { settings } = settingsIn(folder, { POSTERN_ENCRYPTION_KEYS: k1, POSTERN_SERVER_KEY: s1 })
  const database = await openDatabase(settings.POSTERN_DATABASE ?? '')
  await filled(database, 3_000)
  await database.close()
  const ring = { ...settings, POSTERN_ENCRYPTION_KEYS: `${k2},${k1}` }
  const running = await serve(t, ring)
  const rotation = postern(['keys', 'rotate'], ring)
  const second = await postern(['keys', 'rotate'], ring)
  const first = await rotation
  t.same([first.code, second.code], [0, 0], first.err + second.err)
  const counted = [first, second].map(({ out }) => Number(/sealed anew under k2: (\d+)/.exec(out)?.[1]))
  t.equal((counted[0] ?? 0) + (counted[1] ?? 0), 6_000, 'two at once do the work once')
  t.match((await postern(['keys', 'rotate'], ring)).out, /sealed anew under k2: 0\nno longer needed: k1/)
  running.stop()
  await running.ended
  const without = await serve(t, { ...settings, POSTERN_ENCRYPTION_KEYS: k2 })
  without.stop()
  t.equal((await without.ended).code, 0)
  t.match((await postern(['subject', 'status', 't1', 'person 1'], { ...settings, POSTERN_SERVER_KEY: text('s1') })).err, 'POSTERN_SERVER_KEY is not the key')
})

t.test('a lost server key is replaced on purpose: sessions, backup codes and enrolment codes are worth nothing then', async t => {
  const { url } = await server.fresh()
  const env = { POSTERN_ENCRYPTION_KEYS: k1, POSTERN_SERVER_KEY: s1 }
  const before = await startService(t, { database: url, env })
  const ann = by('ann')
  const { key, backupCodes } = await before.enrol(ann)
  const s2 = text('s2')
  const { settings } = settingsIn(dataFolder(t), { ...env, POSTERN_SERVER_KEY: s2, POSTERN_DATABASE: url })
  t.equal((await postern(['serve'], settings)).code, 1)
  t.match((await postern(['keys', 'replace-server-key'], settings)).out, 'the server key is now s2')
  const after = await startService(t, { database: url, env: { ...env, POSTERN_SERVER_KEY: s2 } })
  after.advance(90_000)
  before.advance(90_000)
  t.match((await after.question(ann)).body, { status: 'verification_required' })
  t.not((await after.verify(ann, 'login', backupCodes[0] ?? '')).status, 200)
  t.equal((await after.verify(ann, 'login', after.code(key))).status, 200)
})
