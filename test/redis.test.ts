// Redis in every shape the service may be given, and what a wrong one says at start.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { createRandomness, createSealer } from '../service/src/adapters/crypto.ts'
import { connectRedis, type RedisSettings } from '../service/src/adapters/redis-client.ts'
import { createRedisPending } from '../service/src/adapters/redis.ts'
import { defaultLimits } from '../service/src/domain/policy.ts'
import { readRedis } from '../service/src/redis-settings.ts'
import { dataFolder, postern, settingsIn } from './helpers/processes.ts'
import { freePort, startRedis } from './helpers/redis.ts'
import { startRelay } from './helpers/relay.ts'
import { admin, startCluster, startSentinel, until } from './helpers/redis-shapes.ts'
import { by, name, startService, totpCode, type Teardown } from './helpers/service.ts'

const key = (first: number) => new Uint8Array(32).map((_, index) => index + first)
const sealer = createSealer({ encryptionKeys: [{ id: 'k1', key: key(0) }], serverKey: { id: 's1', key: key(1) } })
const randomness = createRandomness()

const given = { sentinelPassword: undefined, ca: undefined, certificate: undefined, key: undefined, timeoutMs: 400 }

function settingsOf (url: string, more: Partial<Parameters<typeof readRedis>[0]> = {}): RedisSettings {
  const mistakes: string[] = []
  const read = readRedis({ ...given, url, ...more }, mistakes)
  if (read === undefined || mistakes.length > 0) throw new Error(mistakes.join('; '))
  return read
}

async function connected (t: Teardown, url: string, more: Partial<Parameters<typeof readRedis>[0]> = {}) {
  const redis = await connectRedis(settingsOf(url, more))
  t.teardown(() => { redis.close() })
  return { redis, pending: createRedisPending({ redis: redis.client, sealer, randomness }) }
}

type Store = Awaited<ReturnType<typeof connected>>['pending']
const who = (subject: string) => ({ tenant: 't1', subject, session: 's', browser: 'b' })
const opening = { epoch: 1, browserKnown: false, inARow: 0, limits: defaultLimits, lifetimeMs: 600_000, returnPath: '/x' }
const looking = () => ({ browserKnown: false, limits: defaultLimits })
const taking = { browserKnown: false, inARow: 0, limits: defaultLimits }

/** Opens, takes and gives back for subjects spread over all slots; answers how many it went through for. */
async function works (pending: Store, subjects: number): Promise<number> {
  const all = await Promise.all(Array.from({ length: subjects }, async (_, index) => {
    const by = who(`subject ${index}`)
    const { slot } = await pending.open(by, 'login', opening)
    const taken = await pending.takeAttempt(by, slot.id, 'subject', taking)
    if (taken.taken === 'taken') await pending.giveBack(taken.receipt, 'accepted')
    return taken.taken === 'taken' && await pending.read(by, slot.id, looking()) === undefined
  }))
  return all.filter(Boolean).length
}

t.test('a server with a password and a user of few rights (ACL)', async t => {
  const { port } = await startRedis(t)
  const rights = /^ACL SETUSER postern (.*)$/m.exec(readFileSync(new URL('../docs/operations.md', import.meta.url), 'utf8'))?.[1] ?? ''
  t.ok(rights.includes('>'), 'docs/operations.md names the rights')
  await admin(t, port).call('ACL', 'SETUSER', 'postern', ...rights.replace(/>\S+/, '>p@ss/word').split(' '))
  const { pending } = await connected(t, `redis://postern:${encodeURIComponent('p@ss/word')}@127.0.0.1:${port}/0`)
  t.equal(await works(pending, 20), 20)
  t.ok(Math.abs(await pending.now() - Date.now()) < 60_000)
})

t.test('TLS with an authority of its own, and none without it', async t => {
  const folder = dataFolder(t)
  const file = (name: string) => join(folder, name)
  const ssl = (...args: string[]) => { if (spawnSync('openssl', args, { cwd: folder }).status !== 0) throw new Error(args.join(' ')) }
  ssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'key.pem', '-out', 'cert.pem', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1')
  const port = await freePort()
  await startRedis(t, '--tls-port', String(port), '--tls-cert-file', file('cert.pem'), '--tls-key-file', file('key.pem'),
    '--tls-ca-cert-file', file('cert.pem'), '--tls-auth-clients', 'yes')
  const own = { ca: file('cert.pem'), certificate: file('cert.pem'), key: file('key.pem') }
  const { pending } = await connected(t, `rediss://127.0.0.1:${port}`, own)
  t.equal(await works(pending, 5), 5)
  await t.rejects(connectRedis(settingsOf(`rediss://127.0.0.1:${port}`)), /cannot be used: .*(certificate|self-signed)/)
})

t.test('C-06 Sentinel: the new master is found, and an attempt that was in doubt counts at most once', async t => {
  const shape = await startSentinel(t)
  const { pending } = await connected(t, shape.url)
  t.equal(await works(pending, 10), 10)
  const before = await shape.masterPort()
  process.kill(shape.master.pid, 'SIGKILL')
  const started = performance.now()
  await until('the new master', async () => await works(pending, 10) === 10)
  t.comment(`recovered after ${Math.round(performance.now() - started)} ms`)
  t.not(await shape.masterPort(), before)
})

t.test('C-06 Sentinel: word of the fail-over that comes while the client asks for the master does not end it', async t => {
  const shape = await startSentinel(t)
  const relay = await startRelay(t, shape.sentinels[0]?.port ?? 0)
  const { pending } = await connected(t, `redis+sentinel://127.0.0.1:${relay.port}/0?master=main`)
  const before = await shape.masterPort()
  const switched = until('the new master', async () => await shape.masterPort() !== before).then(() => {})
  let asked = 0
  relay.hold = text => {
    if (!/get-master-addr-by-name/i.test(text)) return undefined
    asked += 1
    return switched
  }
  process.kill(shape.master.pid, 'SIGKILL')
  await until('the client to go on', async () => await works(pending, 10) === 10)
  t.ok(asked > 0, 'it was asking then')
})

t.test('C-07 C-10 Cluster: every subject keeps to one slot, a fail-over is followed, a demoted node is left', async t => {
  const shape = await startCluster(t)
  const { pending } = await connected(t, shape.url)
  t.equal(await works(pending, 200), 200, 'no CROSSSLOT')
  const roles = await Promise.all(shape.nodes.map(async node => ({ node, info: await admin(t, node.port).info('replication') })))
  const [replica] = roles.filter(({ info }) => info.includes('role:slave'))
  await admin(t, replica?.node.port ?? 0).call('CLUSTER', 'FAILOVER')
  await until('the switch', async () => (await admin(t, replica?.node.port ?? 0).info('replication')).includes('role:master'))
  await until('all slots', async () => await works(pending, 100) === 100)
  const master = roles.find(({ node, info }) => info.includes('role:master') && node !== replica?.node)
  process.kill(master?.node.pid ?? 0, 'SIGKILL')
  const started = performance.now()
  await until('all slots after a kill', async () => await works(pending, 100) === 100)
  t.comment(`recovered after ${Math.round(performance.now() - started)} ms`)
})

t.test('C-10 a master that became a replica is left for one that takes writes', async t => {
  const one = await startRedis(t)
  const two = await startRedis(t)
  const relay = await startRelay(t, one.port)
  const { pending } = await connected(t, `redis://127.0.0.1:${relay.port}`)
  const by = who('alice')
  const { slot } = await pending.open(by, 'login', opening)
  await admin(t, one.port).call('REPLICAOF', '127.0.0.1', String(two.port))
  await t.rejects(pending.takeAttempt(by, slot.id, 'subject', taking), { code: 'unavailable' })
  await admin(t, one.port).call('REPLICAOF', 'NO', 'ONE')
  await until('writes again', async () => await works(pending, 1) === 1)
})

t.test('C-09 after SCRIPT FLUSH scripts are loaded again, and nothing counts twice', async t => {
  const { port } = await startRedis(t)
  const { pending } = await connected(t, `redis://127.0.0.1:${port}`)
  const by = who('alice')
  const { slot } = await pending.open(by, 'login', opening)
  await admin(t, port).call('SCRIPT', 'FLUSH')
  const taken = await pending.takeAttempt(by, slot.id, 'subject', taking)
  t.match(taken, { taken: 'taken', slot: { attemptsLeft: defaultLimits.challengeAttempts - 1 } })
})

t.test('C-11 a reply that was lost is asked for again: it counts once, and is told like the first', async t => {
  const { port } = await startRedis(t)
  const relay = await startRelay(t, port)
  const { pending } = await connected(t, `redis://127.0.0.1:${relay.port}`)
  let answers = 0
  let told = 0
  for (let index = 0; index < 20; index += 1) {
    const by = who(`subject ${index}`)
    relay.drop = () => false
    await until('a connection', async () => { await pending.check(); return true })
    // The next answer is lost; what comes over the new connection gets through.
    relay.drop = () => { relay.drop = () => false; return true }
    const opened = await pending.open(by, 'login', opening)
    t.ok(opened.fresh, 'what this call made is new, also when told late')
    relay.drop = () => { relay.drop = () => false; return true }
    const taken = await pending.takeAttempt(by, opened.slot.id, 'subject', taking)
    if (taken.taken === 'taken') told += 1
    relay.drop = () => { relay.drop = () => false; return true }
    const sent = await pending.send(by, opened.slot.id, { codeHash: 'hash', browserKnown: false, limits: defaultLimits })
    t.equal(sent.sent, 'sent')
    const seen = await pending.read(by, opened.slot.id, looking())
    answers += defaultLimits.challengeAttempts - (seen?.slot.attemptsLeft ?? 0)
  }
  t.equal(told, 20)
  t.equal(answers, 20, 'attempts counted')
  t.ok(relay.dropped() >= 50, `${relay.dropped()} replies were lost`)
})

t.test('a give-back that is repeated gives back once', async t => {
  const { port } = await startRedis(t)
  const { pending } = await connected(t, `redis://127.0.0.1:${port}`)
  const by = who('alice')
  const { slot } = await pending.open(by, 'login', opening)
  const [first, second] = [await pending.takeAttempt(by, slot.id, 'subject', taking), await pending.takeAttempt(by, slot.id, 'subject', taking)]
  if (first.taken !== 'taken' || second.taken !== 'taken') throw new Error('not taken')
  await pending.giveBack(first.receipt, 'used')
  await pending.giveBack(first.receipt, 'used')
  const third = await pending.takeAttempt(by, slot.id, 'subject', taking)
  t.match(third, { taken: 'taken', slot: { attemptsLeft: defaultLimits.challengeAttempts - 2 }, receipt: { booked: 2 } })
})

t.test('calls of one address are counted for all replicas; with Redis away they get 503, never a pass', async t => {
  const { port } = await startRedis(t)
  const relay = await startRelay(t, port)
  const env = { POSTERN_REDIS: `redis://127.0.0.1:${relay.port}`, POSTERN_SERVER_KEY: `s1:${Buffer.from(key(1)).toString('base64')}` }
  const replicas = [1, 2].map(async () => await startService(t, { env, tenant: { limits: { calls_per_minute: 10 } } }))
  const [one, two] = await Promise.all(replicas)
  if (one === undefined || two === undefined) throw new Error('two were started')
  const about = { address: '2001:db8::1' }
  const opened = async (service: typeof one) => await service.open(by('ann'), 'login', { about })
  for (let i = 0; i < 5; i++) t.same([(await opened(one)).status, (await opened(two)).status], [200, 200])
  t.match(await opened(one), { status: 429, body: { code: 'rate_limited' } })
  t.match(await opened(two), { status: 429 })
  const redis = admin(t, port)
  const keys = await redis.keys('postern:rate:*')
  t.equal(keys.length, 1)
  t.notMatch(keys[0], '2001', 'addresses do not stand in Redis')
  const life = await redis.pttl(keys[0] ?? '')
  t.ok(life > 0 && life <= 60_000, `gone in ${life} ms`)

  relay.drop = () => true
  const lost = await opened(one)
  t.match([lost.status, lost.body.code], [503, 'unavailable'], 'a reply that never comes')
  t.ok(Number(lost.headers['retry-after']) > 0)
  relay.closed = true
  relay.cut()
  const away = await opened(two)
  t.match([away.status, away.body.code], [503, 'unavailable'])
  t.equal((await one.question(by('ann'))).status, 200, 'the gate\'s question needs no Redis')
  relay.closed = false
  relay.drop = () => false
  await until('Redis to be back', async () => (await opened(two)).status === 429)
})

t.test('C-27: replicas whose clocks are 45 s off judge codes and ages by the time of Redis, and say that they are off', async t => {
  const { port } = await startRedis(t)
  const database = `sqlite:${join(dataFolder(t), 'shared.db')}`
  const env = {
    POSTERN_REDIS: `redis://127.0.0.1:${port}`,
    POSTERN_SERVER_KEY: `s1:${Buffer.from(key(1)).toString('base64')}`,
    POSTERN_ENCRYPTION_KEYS: `k1:${Buffer.from(key(0)).toString('base64')}`
  }
  const replica = async (off: number) =>
    await startService(t, { env, database, overrides: { clock: { now: () => Date.now() + off } } })
  const slow = await replica(-45_000)
  const fast = await replica(45_000)
  const ann = by('ann')
  const begun = await slow.begin(ann)
  const secret: string = begun.body.key
  // Both are out of the window; a replica that trusted its own clock would take its one.
  t.equal((await slow.confirm(ann, begun.body.id, totpCode(secret, Date.now() - 75_000))).status, 403)
  t.equal((await fast.confirm(ann, begun.body.id, totpCode(secret, Date.now() + 75_000))).status, 403)
  const confirmed = await fast.confirm(ann, begun.body.id, totpCode(secret, Date.now()))
  t.equal(confirmed.status, 200, confirmed.text)

  const later = by('ann', 'later')
  const opened = await slow.open(later)
  t.ok(opened.body.challenge.expires_in > 595, opened.text)
  const passed = await fast.answer(later, opened.body.challenge.id, totpCode(secret, Date.now() + 30_000))
  t.equal(passed.status, 200, passed.text)
  for (const one of [slow, fast]) {
    const { body } = await one.question(ann)
    t.equal(body.status, 'verified')
    t.ok(body.step_up.age < 40, `a step-up of a moment ago is ${body.step_up.age} s old`)
    const month = 30 * 86_400
    t.ok(body.login.expires_in <= month && body.login.expires_in > month - 40, `${body.login.expires_in}`)
  }
  for (const [one, seconds] of [[slow, -45], [fast, 45]] as const) {
    const ready = await one.app.operations.inject('/readyz')
    t.equal(ready.statusCode, 200, 'what it decides is right all the same')
    t.match(JSON.parse(ready.payload), { checks: { clock: 'failed', pending: 'ok' } })
    const told = /^postern_clock_off_seconds (\S+)$/m.exec((await one.app.operations.inject('/metrics')).payload)?.[1]
    t.ok(Math.abs(Number(told) - seconds) < 2, `${told} of ${seconds}`)
  }
})

t.test('C-06 what a server said too late about itself after a break is asked again: readiness does not stay red', async t => {
  const { port } = await startRedis(t)
  const relay = await startRelay(t, port)
  const { redis } = await connected(t, `redis://127.0.0.1:${relay.port}`)
  // The client asks once by itself; the second question is the one about versions and eviction.
  let infos = 0
  let late = 0
  relay.hold = asked => {
    if (!/info/i.test(asked) || ++infos !== 2) return undefined
    late += 1
    return delay(700)
  }
  relay.cut()
  await until('an answer that is late', async () => late === 1)
  await until('the server to be known as good', async () => { await redis.policy(); return true })
  t.ok(infos > 2)
})

t.test('C-08 a server that may evict is refused, and says what to set', async t => {
  const { port } = await startRedis(t, '--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru')
  await t.rejects(connectRedis(settingsOf(`redis://127.0.0.1:${port}`)), /maxmemory-policy is allkeys-lru.*Set it to noeviction/)
})

t.test('C-08 when memory runs out, new challenges get 503 and counts stay', async t => {
  const { port } = await startRedis(t)
  const { pending } = await connected(t, `redis://127.0.0.1:${port}`)
  const by = who('alice')
  const { slot } = await pending.open(by, 'login', opening)
  await pending.takeAttempt(by, slot.id, 'subject', taking)
  const server = admin(t, port)
  await server.config('SET', 'maxmemory', '1')
  await t.rejects(pending.open(who('bob'), 'login', opening), { code: 'unavailable' })
  await server.config('SET', 'maxmemory', '0')
  t.match(await pending.read(by, slot.id, looking()), { slot: { attemptsLeft: defaultLimits.challengeAttempts - 1 } })
})

t.test('a challenge takes at most the bytes in Redis that the documentation states, and every key of it ends', async t => {
  const stated = [...readFileSync(new URL('../docs/operations.md', import.meta.url), 'utf8')
    .matchAll(/^\| (opened|tried|mailed|mailed and tried|answered) \|[^|]*\| (\d+) \| (\d+) \|$/gm)]
    .map(([, state = '', own, all]) => ({ state, own: Number(own), all: Number(all) }))
  t.same(stated.map(({ state }) => state), ['opened', 'tried', 'mailed', 'mailed and tried', 'answered'])
  const { port, url } = await startRedis(t)
  const { pending } = await connected(t, url)
  const server = admin(t, port)
  // As long as they are in use: keyed hashes for session and browser, an epoch in milliseconds.
  const names = { session: name('session'), browser: name('browser') }
  const open = async (subject: string) => {
    const by = { ...who(subject), ...names }
    const { slot } = await pending.open(by, 'login', { ...opening, epoch: 1_764_000_000_000, returnPath: `/console/users/1042?${'x'.repeat(44)}` })
    return { by, id: slot.id }
  }
  type Open = Awaited<ReturnType<typeof open>>
  const mail = async ({ by, id }: Open) => {
    const { sent } = await pending.send(by, id, { codeHash: name('code'), ...looking() })
    t.equal(sent, 'sent')
  }
  const tryCodes = async ({ by, id }: Open) => {
    let last
    for (let tried = 0; tried < defaultLimits.challengeAttempts; tried++) last = await pending.takeAttempt(by, id, 'subject', taking)
    t.equal(last?.taken, 'taken')
    return last
  }
  const steps: Record<string, (challenge: Open) => Promise<unknown>> = {
    opened: async () => {},
    tried: tryCodes,
    mailed: mail,
    'mailed and tried': async challenge => { await mail(challenge); await tryCodes(challenge) },
    answered: async challenge => {
      const taken = await tryCodes(challenge)
      if (taken?.taken === 'taken') await pending.giveBack(taken.receipt, 'accepted')
    }
  }
  for (const { state, own, all } of stated) {
    await server.flushall()
    await steps[state]?.(await open('alice'))
    const keys = await server.keysBuffer('*')
    const weighed = await Promise.all(keys.map(async key => ({
      counts: key.toString('latin1').endsWith('}b'), bytes: Number(await server.memory('USAGE', key, 'SAMPLES', 0)), endsIn: await server.pttl(key)
    })))
    const sum = (some: typeof weighed) => some.reduce((total, { bytes }) => total + bytes, 0)
    const measured = { own: sum(weighed.filter(({ counts }) => !counts)), all: sum(weighed) }
    t.comment(`${state}: ${measured.own} of its own, ${measured.all} with the counts`)
    t.ok(measured.own <= own && measured.all <= all, `${state}: ${JSON.stringify(measured)}`)
    // A code that was mailed and all attempts together are three bytes of a larger block of the allocator.
    t.ok(own <= (state === 'mailed and tried' ? 264 : 261), `${state}: the challenge's own key`)
    t.ok(weighed.length > 0 && weighed.every(({ endsIn }) => endsIn > 0), `${state}: each key ends by itself`)
  }
})

t.test('C-12 a wrong Redis ends the start within 15 s with one clear line and without the password', async t => {
  const { port } = await startRedis(t)
  await admin(t, port).config('SET', 'requirepass', 'right-password')
  const folder = dataFolder(t)
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['wrong password', `redis://:wrong-password@127.0.0.1:${port}`, /WRONGPASS|invalid/i],
    ['no password', `redis://127.0.0.1:${port}`, /NOAUTH|Authentication required/i],
    ['TLS where there is none', `rediss://:right-password@127.0.0.1:${port}`, /SSL|TLS|socket|no answer|closed/i],
    ['nobody there', `redis://127.0.0.1:${await freePort()}`, /ECONNREFUSED/],
    ['no such host', 'redis://no-such-host.invalid:6379', /ENOTFOUND|EAI_AGAIN/]
  ]
  await Promise.all(cases.map(async ([called, url, says]) => {
    const { settings } = settingsIn(dataFolder(t), { POSTERN_REDIS: url, POSTERN_DATABASE: `sqlite:${join(folder, `${called}.db`)}` })
    const started = performance.now()
    const ended = await postern(['serve'], settings)
    const lines = ended.err.trim().split('\n')
    t.not(ended.code, 0, called)
    t.equal(lines.length, 1, `${called}: ${ended.err}`)
    t.match(ended.err, /Redis \(POSTERN_REDIS\) cannot be used: /, called)
    t.match(ended.err, says, called)
    t.notMatch(ended.err, /(right|wrong)-password/, called)
    // 15 s by the service's own count; the rest is for a machine that starts many processes at once.
    t.ok(performance.now() - started < 120_000, `${called}: ${Math.round(performance.now() - started)} ms`)
  }))
})

t.test('a URL that is not understood is refused by name, never by value', async t => {
  for (const url of [
    'http://x', 'redis://', 'redis://h:99999', 'redis+sentinel://h:1', 'redis+cluster://h/3', 'redis://a,b',
    'redis://h?master=x', 'redis://:%zz@h', 'redis://h/x'
  ]) {
    const mistakes: string[] = []
    t.equal(readRedis({ ...given, url }, mistakes), undefined, url)
    t.match(mistakes, [/^POSTERN_REDIS must be/], url)
  }
  t.match(settingsOf('redis+cluster://u:p%40@[::1]:7000,h:7001'), {
    kind: 'cluster', username: 'u', password: 'p@', nodes: [{ host: '::1', port: 7000 }, { host: 'h', port: 7001 }]
  })
})
