// Faults of Redis under three replicas with PostgreSQL: it stops, dies, forgets, is slow, loses answers, fails over.

import t from 'tap'
import { startCrowd } from '../helpers/faults.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import { startRelay } from '../helpers/relay.ts'
import { admin } from '../helpers/redis-shapes.ts'
import { startReplicas } from '../helpers/replicas.ts'

const postgres = await startPostgres(t)

t.test('one server: whatever it does, no code is accepted twice, nothing opens and nobody guesses on', async t => {
  const redis = await startRedis(t)
  const relay = await startRelay(t, redis.port)
  const service = await startReplicas(t, { POSTERN_DATABASE: (await postgres.fresh()).url, POSTERN_REDIS: `redis://127.0.0.1:${relay.port}` })
  const server = admin(t, redis.port)
  const crowd = await startCrowd(service)
  t.teardown(crowd.report)

  await t.test('C-01 stopped, not dead', async t => {
    await crowd.endure(t, {
      name: 'C-01 Redis: stopped (SIGSTOP)',
      strike: () => { process.kill(redis.pid, 'SIGSTOP') },
      lift: () => { process.kill(redis.pid, 'SIGCONT') }
    })
  })
  await t.test('C-09 its scripts are gone', async t => {
    await crowd.endure(t, { name: 'C-09 Redis: SCRIPT FLUSH', strike: async () => { await server.call('SCRIPT', 'FLUSH') } })
  })
  await t.test('C-11 a fifth of its answers is lost', async t => {
    let count = 0
    await crowd.endure(t, {
      name: 'C-11 Redis: every fifth answer lost',
      strike: () => { relay.drop = () => ++count % 5 === 0 },
      lift: () => { relay.drop = () => false }
    })
    t.ok(relay.dropped() > 0, `${relay.dropped()} answers were lost`)
  })
  await t.test('C-05 everything it held is gone', async t => {
    await crowd.endure(t, { name: 'C-05 Redis: FLUSHALL', strike: async () => { await server.flushall() }, lost: 1 })
  })
})
