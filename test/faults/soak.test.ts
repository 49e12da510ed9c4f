// A mixed load with one fault after the other, of every kind, in an order that a seed gives. POSTERN_TEST_SOAK_SECONDS
// says how long (45), POSTERN_TEST_SOAK_SEED which order.

import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { startCrowd, type Fault } from '../helpers/faults.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import { admin } from '../helpers/redis-shapes.ts'
import { startRelay } from '../helpers/relay.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { seeded } from '../helpers/seeded.ts'

const seconds = Number(process.env.POSTERN_TEST_SOAK_SECONDS ?? 45)
const seed = Number(process.env.POSTERN_TEST_SOAK_SEED ?? 41)
/** Longest life of a key: what counts the failures of a subject. */
const LONGEST_MS = 48 * 3_600_000

t.setTimeout((seconds + 600) * 1000)

/** Open files and bytes in memory of a process. */
const usedBy = (pid: number) => ({
  files: readdirSync(`/proc/${pid}/fd`).length,
  bytes: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
})

t.test('C-41: through a soak of faults everything holds, every key ends, and no process grows', async t => {
  const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
  const { url } = await postgres.fresh()
  const [toRedis, toPostgres] = [await startRelay(t, redis.port), await startRelay(t, postgres.port)]
  const service = await startReplicas(t, {
    POSTERN_DATABASE: url.replace(`:${postgres.port}/`, `:${toPostgres.port}/`), POSTERN_REDIS: `redis://127.0.0.1:${toRedis.port}`
  })
  const server = admin(t, redis.port)
  const crowd = await startCrowd(t, service)
  t.teardown(() => { crowd.report('C-41 soak: one fault after the other') })
  const random = seeded(seed)
  const killed = new Set<number>()
  let answers = 0
  const faults: readonly Fault[] = [
    {
      name: 'Redis stopped',
      strike: () => { process.kill(redis.pid, 'SIGSTOP') },
      lift: () => { process.kill(redis.pid, 'SIGCONT') }
    },
    {
      name: 'Redis refuses',
      strike: () => { toRedis.closed = true; toRedis.cut() },
      lift: () => { toRedis.closed = false }
    },
    { name: 'Redis mute', strike: () => { toRedis.mute = true }, lift: () => { toRedis.cut(); toRedis.mute = false } },
    {
      name: 'Redis: every fifth answer lost',
      strike: () => { toRedis.drop = () => ++answers % 5 === 0 },
      lift: () => { toRedis.drop = () => false }
    },
    { name: 'SCRIPT FLUSH', strike: async () => { await server.call('SCRIPT', 'FLUSH') } },
    { name: 'FLUSHALL', strike: async () => { await server.flushall() }, lost: 1 },
    {
      name: 'PostgreSQL refuses',
      strike: () => { toPostgres.closed = true; toPostgres.cut() },
      lift: () => { toPostgres.closed = false }
    },
    { name: 'PostgreSQL mute', strike: () => { toPostgres.mute = true }, lift: () => { toPostgres.cut(); toPostgres.mute = false } },
    {
      name: 'a replica killed',
      strike: () => {
        killed.add(service.replicas[1]?.pid ?? 0)
        service.replicas[1]?.stop('SIGKILL')
      },
      lift: async () => { await service.restart(1) },
      breaks: true
    }
  ]
  const endure = async (fault: Fault): Promise<void> => {
    await t.test(fault.name, async t => { await crowd.endure(t, fault) })
  }
  // What a process takes once, as for its pools, it has after the first.
  await endure({ name: 'no fault', strike: () => {} })
  const before = service.replicas.map(({ pid }) => ({ pid, ...usedBy(pid) }))
  const until = performance.now() + seconds * 1000
  t.comment(`seed ${seed}`)
  let struck = 0
  for (; performance.now() < until; struck++) {
    const fault = faults[Math.floor(random() * faults.length)]
    if (fault !== undefined) await endure(fault)
  }
  t.ok(struck > 0, `${struck} faults`)

  for (const { pid, files, bytes } of before.filter(one => !killed.has(one.pid))) {
    const now = usedBy(pid)
    t.ok(now.files <= files + 10, `${now.files} open files, ${files} before`)
    t.ok(now.bytes <= bytes + 64 * 1024 * 1024, `${now.bytes >> 20} MiB, ${bytes >> 20} before`)
  }
  const keys = await server.keys('*')
  const lives = await Promise.all(keys.map(async key => await server.pttl(key)))
  // -2: it ended meanwhile.
  t.same(lives.filter(life => life === -1 || life > LONGEST_MS), [], `${keys.length} keys, and each ends`)
})
