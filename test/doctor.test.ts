// postern doctor: each line is passed or failed, and a failed one says what to do. Every part is real, and broken for
// real.

import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { doctor } from '../service/src/cli/doctor.ts'
import { selfSigned } from '../examples/mailbox/certificate.ts'
import { startMailbox } from '../examples/mailbox/mailbox.ts'
import { startPostgres } from './helpers/postgres.ts'
import { dataFolder, postern, serve, settingsIn } from './helpers/processes.ts'
import { freePort, startRedis } from './helpers/redis.ts'

t.setTimeout(300_000)

const newKey = (id: string): string => `${id}:${randomBytes(32).toString('base64')}`

t.test('embedded stores beside the running service: all passed, and what is not configured is said', async t => {
  const { settings } = settingsIn(dataFolder(t))
  await serve(t, settings)
  const { code, out } = await postern(['doctor'], settings)
  t.equal(code, 0, out)
  t.same(out.trim().split('\n').map(line => line.replace(/: .*/, '')), [
    'passed  configuration', 'passed  key ring', 'passed  database', 'passed  redis', 'passed  smtp', 'passed  clock', 'all passed'
  ])
  t.match(out, /redis: not configured; .* must be the only one/)
  t.match(out, /smtp: not configured/)
})

t.test('PostgreSQL, Redis and a mail server: all passed, with both clocks compared', async t => {
  const folder = dataFolder(t)
  const certificate = selfSigned(new Date())
  const ca = join(folder, 'ca.pem')
  writeFileSync(ca, certificate.cert)
  const [postgres, redis, mailbox] = await Promise.all([startPostgres(t), startRedis(t), startMailbox({ certificate, password: 'right' })])
  t.teardown(async () => { await mailbox.close() })
  const { settings } = settingsIn(folder, {
    POSTERN_DATABASE: (await postgres.fresh()).url,
    POSTERN_REDIS: redis.url,
    POSTERN_SMTP: mailbox.smtp,
    POSTERN_SMTP_CA: ca
  })
  const before = await postern(['doctor'], settings)
  t.equal(before.code, 1)
  t.match(before.out, /failed {2}database: the schema is not up to date .*run "postern migrate"/)
  const migrated = await postern(['migrate'], settings)
  t.equal(migrated.code, 0)

  const { code, out } = await postern(['doctor'], settings)
  t.equal(code, 0, out)
  t.match(out, 'passed  database: PostgreSQL, its schema is up to date')
  t.match(out, 'passed  redis: answers, and its policy drops nothing')
  t.match(out, 'passed  smtp: answers, and the login is accepted')
  t.match(out, 'passed  clock: agrees with PostgreSQL and Redis')

  const wrong = await postern(['doctor'], { ...settings, POSTERN_SMTP: mailbox.smtp.replace(':right@', ':wr0ng@') })
  t.equal(wrong.code, 1)
  t.match(wrong.out, /failed {2}smtp: the login is refused \(EAUTH.* 535\): check user and password in POSTERN_SMTP/)
  const { POSTERN_SMTP_CA: _, ...untrusting } = settings
  t.match((await postern(['doctor'], untrusting)).out, /failed {2}smtp: .*POSTERN_SMTP_CA/)

  const pinned = { ...settings, POSTERN_DATABASE_ID: /POSTERN_DATABASE_ID\): (\S+)/.exec(migrated.out)?.[1] ?? 'none' }
  t.match((await postern(['doctor'], pinned)).out, 'passed  database: PostgreSQL, its schema is up to date, and its id is that of POSTERN_DATABASE_ID')
  const empty = await postern(['doctor'], { ...pinned, POSTERN_DATABASE: (await postgres.fresh()).url })
  t.equal(empty.code, 1)
  t.match(empty.out, /failed {2}database: the database is empty, and POSTERN_DATABASE_ID names one that is not: restore it/)
  t.match((await postern(['doctor'], { ...pinned, POSTERN_DATABASE_ID: 'another' })).out, 'failed  database: the database is not the one that POSTERN_DATABASE_ID names')

  const others = await postern(['doctor'], { ...settings, POSTERN_ENCRYPTION_KEYS: newKey('k1') })
  t.equal(others.code, 1)
  t.match(others.out, /failed {2}key ring: key k1 of POSTERN_ENCRYPTION_KEYS is not the k1 .*Put that key back/)
  t.match(others.out, 'passed  redis', 'one failure does not hide the others')
})

t.test('what is away, or would drop what it must keep, is named with what to do', async t => {
  const evicting = await startRedis(t, '--maxmemory-policy', 'allkeys-lru')
  const { settings } = settingsIn(dataFolder(t), { POSTERN_REDIS: evicting.url })
  await postern(['migrate'], settings)
  const { code, out } = await postern(['doctor'], settings)
  t.equal(code, 1)
  t.match(out, /failed {2}redis: .*allkeys-lru.*noeviction/)
  t.match(out, /1 failed\n$/)

  const nobody = await freePort()
  const away = await postern(['doctor'], {
    ...settings,
    POSTERN_DATABASE: `postgres://postern:s3cret@127.0.0.1:${nobody}/postern`,
    POSTERN_REDIS: `redis://:s3cret@127.0.0.1:${nobody}`,
    POSTERN_SMTP: `smtp://postern:s3cret@127.0.0.1:${nobody}`
  })
  t.equal(away.code, 1)
  for (const [what, name] of [['database', 'POSTERN_DATABASE'], ['redis', 'POSTERN_REDIS'], ['smtp', 'POSTERN_SMTP']] as const) {
    t.match(away.out, new RegExp(`^failed  ${what}: .*ECONNREFUSED.*: check .*host and port in ${name}.*what may leave this network$`, 'm'))
  }
  t.match(away.out, '3 failed')
  t.notMatch(away.out + away.err, 's3cret')
})

t.test('a login that PostgreSQL or Redis refuses, and a database that is not there, are told from one that is away', async t => {
  const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
  const { settings } = settingsIn(dataFolder(t), {
    POSTERN_DATABASE: postgres.address('nowhere'), POSTERN_REDIS: redis.url.replace('//', '//stranger:wr0ng@')
  })
  const { code, out } = await postern(['doctor'], settings)
  t.equal(code, 1)
  t.match(out, /^failed {2}database: database "nowhere" does not exist: create it, or check the name in POSTERN_DATABASE$/m)
  t.match(out, /^failed {2}redis: .*WRONGPASS.*: check user and password in POSTERN_REDIS, percent-encoded$/m)
  t.notMatch(out, 'wr0ng')
  const stranger = await postern(['doctor'], { ...settings, POSTERN_DATABASE: postgres.address('postgres').replace('postgres@', 'stranger:wr0ng@') })
  t.match(stranger.out, /^failed {2}database: .*stranger.*: check user and password in POSTERN_DATABASE, percent-encoded$/m)
  t.notMatch(stranger.out + stranger.err, 'wr0ng')
  const nowhere = await postern(['doctor'], { ...settings, POSTERN_DATABASE: 'sqlite:/proc/nowhere/deeper/postern.db' })
  t.match(nowhere.out, /^failed {2}database: .*ENOENT.*mkdir '\/proc\/nowhere'/m)
})

t.test('a clock that is off is named with how far, and with what to do', async t => {
  const redis = await startRedis(t)
  const { settings } = settingsIn(dataFolder(t), { POSTERN_REDIS: redis.url })
  t.equal((await postern(['migrate'], settings)).code, 0)
  // In this process, whose clock is a minute behind that of Redis.
  const said: string[] = []
  const now = Date.now
  t.teardown(() => { Date.now = now })
  Date.now = () => now() - 60_000
  const say = (line: string): void => { said.push(line) }
  const code = await doctor.run([], { env: settings, print: say, complain: say })
  Date.now = now
  const out = said.join('\n')
  t.equal(code, 1, out)
  t.match(out, /^failed {2}clock: Redis is (59|60|61) s off this machine's: right codes are refused when clocks differ; set both by NTP$/m)
  t.match(out, /1 failed$/)
})

t.test('a configuration with mistakes is named mistake by mistake, never by value', async t => {
  const { settings } = settingsIn(dataFolder(t), { POSTERN_PORT: 'many', POSTERN_REDIS: 's3cret' })
  const { code, out, err } = await postern(['doctor'], settings)
  t.equal(code, 1)
  t.match(out, 'failed  configuration: POSTERN_PORT must be a whole number from 0 to 65535')
  t.match(out, 'failed  configuration: POSTERN_REDIS must be')
  t.match(out, '2 failed')
  t.notMatch(out + err, 's3cret')
  t.equal((await postern(['doctor', 'now'], settings)).code, 2)
})
