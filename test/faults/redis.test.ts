// Faults of Redis under three replicas with PostgreSQL: it stops, dies, forgets, is slow, loses answers, fails over.

import { randomInt } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { startCrowd, type Fault } from '../helpers/faults.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import { startRelay } from '../helpers/relay.ts'
import { admin, moveSlots, startCluster, startSentinel } from '../helpers/redis-shapes.ts'
import { startReplicas } from '../helpers/replicas.ts'

const postgres = await startPostgres(t)

t.test('one server: whatever it does, no code is accepted twice, nothing opens and nobody guesses on', async t => {
  const redis = await startRedis(t)
  const relay = await startRelay(t, redis.port)
  const service = await startReplicas(t, {
    POSTERN_DATABASE: (await postgres.fresh()).url, POSTERN_REDIS: `redis://127.0.0.1:${relay.port}`
  })
  const server = admin(t, redis.port)
  const crowd = await startCrowd(t, service)
  t.teardown(crowd.report)
  let count = 0
  const faults: readonly Fault[] = [
    {
      name: 'C-01 Redis: stopped (SIGSTOP)',
      strike: () => { process.kill(redis.pid, 'SIGSTOP') },
      lift: () => { process.kill(redis.pid, 'SIGCONT') }
    },
    {
      name: 'C-03 Redis: refuses connections',
      strike: () => { relay.closed = true; relay.cut() },
      lift: () => { relay.closed = false }
    },
    {
      name: 'C-03 Redis: packets dropped',
      strike: () => { relay.mute = true },
      // What was left unanswered stays so.
      lift: () => { relay.cut(); relay.mute = false }
    },
    {
      name: 'C-04 Redis: answers 200 to 600 ms late',
      strike: () => { relay.hold = async () => { await delay(randomInt(200, 600)) } },
      lift: () => { relay.hold = () => undefined; relay.cut() }
    },
    { name: 'C-09 Redis: SCRIPT FLUSH', strike: async () => { await server.call('SCRIPT', 'FLUSH') } },
    {
      name: 'C-11 Redis: every fifth answer lost',
      strike: () => { relay.drop = () => ++count % 5 === 0 },
      lift: () => { relay.drop = () => false }
    },
    // One more guess for each loss: the count that is in SQL begins a wait with the next failure.
    { name: 'C-05 Redis: FLUSHALL', strike: async () => { await server.flushall() }, lost: 1 },
    {
      name: 'C-22 service: a replica killed (SIGKILL)',
      strike: () => { service.replicas[1]?.stop('SIGKILL') },
      lift: async () => { await service.restart(1) },
      breaks: true
    },
    {
      name: 'C-02 Redis: killed, then empty',
      strike: () => { process.kill(redis.pid, 'SIGKILL') },
      lift: async () => { relay.target = (await startRedis(t)).port },
      lost: 1
    }
  ]
  const medians = new Map<string, number | undefined>()
  for (const fault of faults) {
    await t.test(fault.name, async t => { medians.set(fault.name, (await crowd.endure(t, fault)).medianMs) })
  }
  // Two waits of POSTERN_REDIS_TIMEOUT_MS and what a busy machine adds: callers do not see whether Redis refuses or is
  // mute.
  for (const name of ['C-03 Redis: refuses connections', 'C-03 Redis: packets dropped']) {
    t.ok((medians.get(name) ?? Number.NaN) < 2_000, `${name}: half of the answers came within ${medians.get(name)} ms`)
  }
  t.ok(relay.dropped() > 0, `${relay.dropped()} answers were lost`)
})

t.test('C-06 Sentinel: the master is killed, and what it did not pass on is one challenge at the most', async t => {
  const shape = await startSentinel(t)
  const service = await startReplicas(t, { POSTERN_DATABASE: (await postgres.fresh()).url, POSTERN_REDIS: shape.url })
  const crowd = await startCrowd(t, service, 9)
  t.teardown(crowd.report)
  await crowd.endure(t, {
    name: 'C-06 Redis Sentinel: master killed',
    strike: () => { process.kill(shape.master.pid, 'SIGKILL') },
    lost: 5
  })
})

t.test('C-07 Cluster: slots that move, a fail-over and a killed master', async t => {
  const shape = await startCluster(t)
  const service = await startReplicas(t, { POSTERN_DATABASE: (await postgres.fresh()).url, POSTERN_REDIS: shape.url })
  const crowd = await startCrowd(t, service, 9)
  t.teardown(crowd.report)
  const roles = await Promise.all(shape.nodes.map(async node =>
    ({ node, info: await admin(t, node.port).info('replication') })))
  const replica = roles.find(({ info }) => info.includes('role:slave'))
  const masterPort = Number(/master_port:(\d+)/.exec(replica?.info ?? '')?.[1])
  await t.test('slots that move', async t => {
    const masters = roles.filter(({ info }) => info.includes('role:master')).map(({ node }) => node.port)
    const move = moveSlots(t, masters[0] ?? 0, masters[1] ?? 0)
    let moved = 0
    await crowd.endure(t, {
      name: 'C-07 Redis Cluster: the slots in use move',
      strike: async () => { moved = await move.begin() },
      lift: move.end
    })
    t.ok(moved > 0, `${moved} slots moved`)
  })
  await t.test('a fail-over', async t => {
    await crowd.endure(t, {
      name: 'C-07 Redis Cluster: CLUSTER FAILOVER',
      strike: async () => { await admin(t, replica?.node.port ?? 0).call('CLUSTER', 'FAILOVER') },
      lost: 5
    })
  })
  await t.test('a killed master', async t => {
    const other = roles.find(({ node, info }) => info.includes('role:master') && node.port !== masterPort)
    await crowd.endure(t, {
      name: 'C-07 Redis Cluster: a master killed',
      strike: () => { process.kill(other?.node.pid ?? 0, 'SIGKILL') },
      lost: 5
    })
  })
})
