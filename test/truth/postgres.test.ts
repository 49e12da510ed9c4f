// Threat: PostgreSQL that is away, slow, locked, empty, older, newer, only a follower, or somebody else's. None of it
// opens a gate, and none of it keeps a request waiting.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { sql } from 'kysely'
import { selfSigned } from '../../examples/mailbox/certificate.ts'
import { openDatabase, NewerSchema } from '../../service/src/adapters/database.ts'
import { migrations } from '../../service/src/adapters/migrations.ts'
import { until } from '../helpers/browser.ts'
import { pgCommand, pgFolder, startPostgres } from '../helpers/postgres.ts'
import { dataFolder, postern, serve, settingsIn } from '../helpers/processes.ts'
import { by, startService } from '../helpers/service.ts'

/** Longest answer while the database is away: two seconds, and room for a machine that does other things too. */
const ANSWER_MS = 5_000

const server = await startPostgres(t)

const timed = async <T>(work: Promise<T>): Promise<{ readonly answer: T, readonly ms: number }> => {
  const began = performance.now()
  const answer = await work
  return { answer, ms: performance.now() - began }
}

t.test('C-34: five replicas start at once on an empty database: one migrates, all serve', async t => {
  const { url } = await server.fresh()
  const { settings } = settingsIn(dataFolder(t), { POSTERN_DATABASE: url })
  const ends = await Promise.all(Array.from({ length: 5 }, async () => await postern(['migrate'], settings)))
  t.same(ends.map(({ code, err }) => ({ code, err })), ends.map(() => ({ code: 0, err: '' })))
  t.equal(new Set(ends.map(({ out }) => out)).size, 1, 'and all name the same database')
  const databases = await Promise.all(Array.from({ length: 5 }, async () => await openDatabase(url)))
  t.teardown(async () => { await Promise.all(databases.map(async one => { await one.close() })) })
  const { url: second } = await server.fresh()
  const fresh = await Promise.all(Array.from({ length: 5 }, async () => await openDatabase(second)))
  t.teardown(async () => { await Promise.all(fresh.map(async one => { await one.close() })) })
  await Promise.all(fresh.map(async one => { await one.migrate() }))
  t.same(await fresh[0]?.pending(), [])
})

t.test('C-34: an older program refuses a newer schema, and a killed migration leaves nothing behind', async t => {
  const { url } = await server.fresh()
  const newer = await openDatabase(url, {
    steps: dialect => ({ ...migrations(dialect), '0099-later': { up: async db => { await sql`create table later (a int)`.execute(db) } } })
  })
  await newer.migrate()
  await newer.close()
  const older = await openDatabase(url)
  t.teardown(async () => { await older.close() })
  await t.rejects(older.pending(), new NewerSchema(['0099-later']))
  await t.rejects(older.migrate(), new NewerSchema(['0099-later']))
  const { settings } = settingsIn(dataFolder(t), { POSTERN_DATABASE: url })
  const { code, err } = await postern(['serve'], settings)
  t.equal(code, 1)
  t.match(err, /newer schema than this version of Postern knows \(0099-later\)/)
  t.notMatch(err, /127\.0\.0\.1|postgres:/)

  const { url: third, name } = await server.fresh()
  const killed = await openDatabase(third, {
    steps: dialect => ({
      ...migrations(dialect),
      '0099-later': {
        up: async db => {
          await sql`create table later (a int)`.execute(db)
          await sql`select pg_terminate_backend(pg_backend_pid())`.execute(db)
        }
      }
    })
  })
  await t.rejects(killed.migrate())
  await killed.close()
  t.same(await server.query("select tablename from pg_tables where schemaname = 'public' and tablename in ('later', 'subjects')", name), [])
  const after = await openDatabase(third)
  await after.migrate()
  t.same(await after.pending(), [])
  await after.close()
})

t.test('C-16, C-17: with the database away, or tables missing, nobody is "not enrolled"', async t => {
  const own = await startPostgres(t)
  const { url, name } = await own.fresh()
  const s = await startService(t, { database: url })
  const ann = by('ann')
  const { key } = await s.enrol(ann)
  const later = by('ann', 'later')
  const stranger = by('stranger')
  const closed = async (why: string) => {
    for (const who of [ann, later, stranger]) {
      const { answer, ms } = await timed(s.question(who))
      t.match(answer, { status: 503, body: { code: 'unavailable' } }, `${why}: the question`)
      t.ok(answer.headers['retry-after'])
      t.ok(ms < ANSWER_MS, `${why}: ${Math.round(ms)} ms`)
    }
    t.equal((await s.open(later)).status, 503, why)
    t.equal((await s.begin(stranger)).status, 503, why)
    t.equal((await s.app.operations.inject('/readyz')).statusCode, 503, why)
    t.equal((await s.app.operations.inject('/livez')).statusCode, 200, why)
  }
  const opened = await s.open(later)
  await own.stop('immediate')
  await closed('stopped')
  t.equal((await s.answer(later, opened.body.challenge.id, s.code(key, 1))).status, 503, 'a right code too')
  await own.start()
  await until('the service to be ready again', async () =>
    (await s.app.operations.inject('/readyz')).statusCode === 200 ? true : undefined)
  t.match((await s.question(later)).body, { status: 'verification_required' })
  t.match((await s.question(stranger)).body, { status: 'not_required' })

  // The server lives but does not answer: a process that is stopped is not a port that is closed.
  const [postmaster = ''] = readFileSync(join(own.data, 'postmaster.pid'), 'utf8').split('\n')
  const backends = (await own.query('select pid from pg_stat_activity where datname is not null and pid <> pg_backend_pid()')) as { pid: number }[]
  const pids = [Number(postmaster), ...backends.map(({ pid }) => pid)]
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    await closed('frozen')
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
  await until('the service to be ready again', async () =>
    (await s.app.operations.inject('/readyz')).statusCode === 200 ? true : undefined)
  t.match((await s.question(later)).body, { status: 'verification_required' })

  await own.query('alter table authenticators rename to elsewhere', name)
  await closed('a table is missing')
  await own.query('alter table elsewhere rename to authenticators', name)
  t.match((await s.question(later)).body, { status: 'verification_required' })
  await own.query('truncate subjects, authenticators, assurances, identity, change_numbers', name)
  await closed('emptied beside the service')
})

t.test('C-17: an empty database in the place of the known one is refused where its id is configured', async t => {
  const [known, empty] = [await server.fresh(), await server.fresh()]
  const { settings } = settingsIn(dataFolder(t), { POSTERN_DATABASE: known.url })
  const id = /POSTERN_DATABASE_ID\): (\S+)/.exec((await postern(['migrate'], settings)).out)?.[1] ?? 'none'
  const pinned = { ...settings, POSTERN_DATABASE_ID: id }
  const running = await serve(t, pinned)
  running.stop()
  t.equal((await running.ended).code, 0)
  const onEmpty = await postern(['serve'], { ...pinned, POSTERN_DATABASE: empty.url })
  t.equal(onEmpty.code, 1)
  t.match(onEmpty.err, /the database is empty, and POSTERN_DATABASE_ID names one that is not/)
  await postern(['migrate'], { ...settings, POSTERN_DATABASE: empty.url })
  t.match((await postern(['serve'], { ...pinned, POSTERN_DATABASE: empty.url })).err, 'is not the one that POSTERN_DATABASE_ID names')
})

t.test('C-17: a standby is never asked, however fresh it is', async t => {
  const { url } = await server.fresh()
  const primary = await startService(t, { database: url })
  await primary.enrol(by('ann'))
  const data = join(pgFolder(t), 'standby')
  await pgCommand('pg_basebackup', ['-D', data, '-h', server.socket, '-p', String(server.port), '-U', 'postgres', '-R', '-c', 'fast'])
  const standby = await startPostgres(t, { data })
  t.same(await standby.query('select pg_is_in_recovery() as follows'), [{ follows: true }])
  const { settings } = settingsIn(dataFolder(t), { POSTERN_DATABASE: standby.address(new URL(url).pathname.slice(1)) })
  const { code, err } = await postern(['serve'], settings)
  t.equal(code, 1)
  t.match(err, 'the server is a standby')
})

t.test('C-32, C-19: a dump that is restored beside a fence brings back enrolments, but no used code and no session', async t => {
  const source = await server.fresh()
  const s = await startService(t, { database: source.url })
  const [ann, bob] = [by('ann'), by('bob')]
  const keys = { ann: await s.enrol(ann), bob: await s.enrol(bob) }
  const file = join(pgFolder(t), 'backup')
  const reach = ['-h', server.socket, '-p', String(server.port), '-U', 'postgres']
  await pgCommand('pg_dump', [...reach, '-Fc', '-f', file, source.name])

  // What the dump does not know of: codes that were used, and the sessions they opened.
  s.nextStep()
  const used = { ann: s.code(keys.ann.key), bob: s.code(keys.bob.key) }
  const [annLater, bobLater] = [by('ann', 'later'), by('bob', 'later')]
  t.equal((await s.verify(annLater, 'login', used.ann)).status, 200)
  t.equal((await s.verify(bobLater, 'login', used.bob)).status, 200)
  const seen = (await s.question(annLater)).body.change as number

  const target = await server.fresh()
  await pgCommand('pg_restore', [...reach, '--exit-on-error', '-d', target.name, file])
  const { settings } = settingsIn(dataFolder(t), { POSTERN_DATABASE: target.url, ...s.secrets })
  const restored = await startService(t, { database: target.url, env: s.secrets, overrides: { clock: s.clock } })
  t.match((await restored.question(ann)).body, { status: 'verified' }, 'without a fence a session of before passes')
  t.equal((await restored.verify(by('bob', 'thief'), 'login', used.bob)).status, 200, 'and a used code opens once more')

  const { code, out, err } = await postern(['restore-fence'], settings)
  t.match({ code, out, err }, { code: 0, out: /^fenced: 2 subjects, 3 sessions ended, 0 backup codes void$/m, err: '' })
  for (const who of [ann, bob, annLater, bobLater, by('bob', 'thief')]) {
    t.match((await restored.question(who)).body, { status: 'verification_required' }, who.subject)
  }
  t.ok((await restored.question(ann)).body.change > seen, 'gates that read further than the dump are told to forget')
  t.match((await restored.verify(by('ann', 'thief'), 'login', used.ann)).body, { code: 'code_used' })
  // The fence took the time of the machine; the service of this test is moved past the steps that it closed.
  s.advance(Math.max(0, Date.now() - s.clock.now()) + 90_000)
  t.equal((await restored.verify(by('ann', 'new'), 'login', s.code(keys.ann.key))).status, 200, 'the enrolment works')
  t.equal((await restored.verify(by('bob', 'new'), 'login', keys.bob.backupCodes[0] ?? '')).status, 200, 'and its backup codes')
  const fenced = await postern(['restore-fence', '--backup-codes'], settings)
  t.match(fenced.out, /, 11 backup codes void/)
  t.match((await restored.verify(by('bob', 'last'), 'login', keys.bob.backupCodes[1] ?? '')).body, { code: 'code_used' })
})

t.test('C-18: a lock on one subject, and a server without connections, are waited for two seconds and harm nobody else', async t => {
  const own = await startPostgres(t, { settings: ['max_connections=20'] })
  const { url, name } = await own.fresh()
  const s = await startService(t, { database: url, env: { POSTERN_DATABASE_POOL: '4' } })
  const [ann, bob] = [by('ann'), by('bob')]
  const keys = { ann: await s.enrol(ann), bob: await s.enrol(bob) }
  s.nextStep()
  const holder = await own.session(name)
  await holder.query("begin; select * from subjects where subject = 'ann' for update")
  const opened = (await s.open(by('bob', '2'))).body.challenge.id
  const stuck = Array.from({ length: 30 }, async () => await timed(
    s.call('POST', `/v1/subjects/${s.encoded('ann')}/credentials-changed`, {})))
  const { answer, ms } = await timed(s.answer(by('bob', '2'), opened, s.code(keys.bob.key)))
  t.equal(answer.status, 200, 'somebody else gets in meanwhile')
  t.ok(ms < ANSWER_MS, `${Math.round(ms)} ms`)
  for (const { answer, ms } of await Promise.all(stuck)) {
    t.equal(answer.status, 503)
    t.ok(ms < ANSWER_MS, `${Math.round(ms)} ms`)
  }
  await holder.query('rollback')
  t.equal((await s.call('POST', `/v1/subjects/${s.encoded('ann')}/credentials-changed`, {})).status, 204)

  const pids = (await own.query("select pid from pg_stat_activity where application_name = 'postern'")) as { pid: number }[]
  for (const { pid } of pids) await own.query(`select pg_terminate_backend(${pid})`)
  await own.query(`alter database ${name} connection limit 0`)
  await own.query('create role postern login')
  const poor = await startService(t, { database: url.replace('postgres@', 'postern@') }).then(() => undefined, error => error)
  t.match(poor?.message, /too many connections/)
  await own.query(`alter database ${name} connection limit -1`)
  await until('the service to recover', async () => (await s.question(ann)).status === 200 ? true : undefined)
})

t.test('TLS: verified by name and authority, or not spoken at all', async t => {
  const [certificate, other] = [selfSigned(new Date()), selfSigned(new Date())]
  const own = await startPostgres(t, { tls: certificate })
  const { url } = await own.fresh()
  const folder = dataFolder(t)
  const files = { ca: join(folder, 'ca.pem'), other: join(folder, 'other.pem') }
  writeFileSync(files.ca, certificate.cert)
  writeFileSync(files.other, other.cert)
  const at = async (query: string, ca?: string, host = '127.0.0.1') => await postern(['migrate'], {
    ...settingsIn(folder).settings,
    POSTERN_DATABASE: url.replace('127.0.0.1', host) + query,
    ...(ca === undefined ? {} : { POSTERN_DATABASE_CA: ca })
  })
  for (const mode of ['require', 'verify-ca', 'verify-full']) {
    t.equal((await at(`?sslmode=${mode}`, files.ca)).code, 0, mode)
    t.equal((await at(`?sslmode=${mode}`, files.other)).code, 1, `${mode}, another authority`)
    t.equal((await at(`?sslmode=${mode}`)).code, 1, `${mode}, an authority that nobody trusts`)
  }
  t.equal((await at('?sslmode=verify-full', files.ca, 'localhost')).code, 0)
  t.match(await own.query("select count(*)::int as count from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'postern' and not ssl"), [{ count: 0 }])
  t.equal((await at('')).code, 1, 'the server refuses plain text')

  // The certificate names 127.0.0.1 and localhost, and this address reaches the same server by another name.
  const elsewhere = await startPostgres(t, { tls: certificate, settings: ['listen_addresses=127.0.0.2'] }).catch(() => undefined)
  if (elsewhere !== undefined) {
    writeFileSync(join(elsewhere.data, 'pg_hba.conf'), 'local all all trust\nhostssl all all 127.0.0.0/8 trust\n')
    await elsewhere.query('select pg_reload_conf()')
    const there = elsewhere.address('postgres').replace('127.0.0.1', '127.0.0.2')
    const with127 = async (mode: string) => await postern(['migrate'], {
      ...settingsIn(folder).settings, POSTERN_DATABASE: `${there}?sslmode=${mode}`, POSTERN_DATABASE_CA: files.ca
    })
    t.equal((await with127('verify-full')).code, 1, 'another name')
    t.equal((await with127('require')).code, 1, 'another name')
    t.equal((await with127('verify-ca')).code, 0)
  }
  for (const [query, sentence] of [
    ['?sslmode=prefer', /sslmode must be one of disable, require, verify-ca, verify-full/],
    ['?sslmode=no-verify', /sslmode must be one of/],
    ['?sslrootcert=/etc/ca.pem', /must not hold "sslrootcert"; the certificate authority is POSTERN_DATABASE_CA/],
    ['?options=x', /must not hold "options"/]
  ] as const) t.match((await at(query)).err, sentence)
  t.match((await at('?sslmode=require', '/no/such/file')).err, /POSTERN_DATABASE_CA must name a file/)
})

t.test('numbers of 64 bits come back as numbers, and one beyond what is exact is refused', async t => {
  const { url, name } = await server.fresh()
  const s = await startService(t, { database: url, env: { POSTERN_ENCRYPTION_KEYS: `k1:${randomBytes(32).toString('base64')}` } })
  await s.enrol(by('ann'))
  await server.query('update subjects set epoch = 9007199254740993', name)
  t.equal((await s.question(by('ann'))).status, 503)
})
