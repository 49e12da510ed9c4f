// Faults of the database: PostgreSQL under three replicas stops, dies, is locked, fails over to a standby; the disk of
// an SQLite file fills up under one.

import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startCrowd, type Fault } from '../helpers/faults.ts'
import { pgCommand, pgFolder, startPostgres, type Postgres } from '../helpers/postgres.ts'
import { dataFolder, postern } from '../helpers/processes.ts'
import { startRedis } from '../helpers/redis.ts'
import { startRelay } from '../helpers/relay.ts'
import { until } from '../helpers/redis-shapes.ts'
import { enrolled, startReplicas, STEP_MS } from '../helpers/replicas.ts'
import { by, totpCode, type Teardown } from '../helpers/service.ts'

/** A standby that follows, and the way to make it the server that the relay leads to. */
async function startStandby (t: Teardown, primary: Postgres, name: string) {
  const data = join(pgFolder(t), 'standby')
  await pgCommand('pg_basebackup', [
    '-D', data, '-d', `host=${primary.socket} port=${primary.port} user=postgres application_name=${name}`, '-R', '-c', 'fast'
  ])
  const standby = await startPostgres(t, { data })
  await until('the standby to follow', async () =>
    (await primary.query(`select 1 from pg_stat_replication where application_name = '${name}' and state = 'streaming'`)).length === 1)
  return {
    ...standby,
    promote: async () => { await pgCommand('pg_ctl', ['-D', data, '-w', 'promote']) }
  }
}

t.test('PostgreSQL: whatever it does, no code is accepted twice, nothing opens and nobody guesses on', async t => {
  const primary = await startPostgres(t)
  const redis = await startRedis(t)
  const { url, name } = await primary.fresh()
  const relay = await startRelay(t, primary.port)
  const service = await startReplicas(t, {
    POSTERN_DATABASE: url.replace(`:${primary.port}/`, `:${relay.port}/`), POSTERN_REDIS: redis.url
  })
  const crowd = await startCrowd(t, service)
  t.teardown(crowd.report)
  let stopped: number[] = []
  const holder = await primary.session(name)
  const standby = await startStandby(t, primary, 'standby')
  const faults: readonly Fault[] = [
    {
      name: 'C-16 PostgreSQL: stopped (SIGSTOP)',
      strike: async () => {
        const backends = await primary.query("select pid from pg_stat_activity where application_name = 'postern'")
        const [postmaster = ''] = readFileSync(join(primary.data, 'postmaster.pid'), 'utf8').split('\n')
        stopped = [Number(postmaster), ...(backends as { pid: number }[]).map(({ pid }) => pid)]
        for (const pid of stopped) process.kill(pid, 'SIGSTOP')
      },
      lift: () => { for (const pid of stopped) process.kill(pid, 'SIGCONT') }
    },
    {
      name: 'C-18 PostgreSQL: connections ended',
      strike: async () => {
        await primary.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'postern'")
      }
    },
    {
      name: 'C-18 PostgreSQL: a table locked',
      strike: async () => { await holder.query('begin; lock table authenticators in access exclusive mode') },
      lift: async () => { await holder.query('rollback'); await holder.end() }
    },
    {
      name: 'C-16 PostgreSQL: crashed',
      strike: async () => { await primary.stop('immediate') },
      lift: async () => { await primary.start() }
    }
  ]
  for (const fault of faults) await t.test(fault.name, async t => { await crowd.endure(t, fault) })

  await t.test('C-19 a synchronous standby takes over', async t => {
    await primary.query("alter system set synchronous_commit = 'remote_apply'")
    await primary.query("alter system set synchronous_standby_names = 'standby'")
    await primary.query('select pg_reload_conf()')
    await until('the standby to be waited for', async () =>
      (await primary.query("select 1 from pg_stat_replication where sync_state = 'sync' and state = 'streaming'")).length === 1)
    await crowd.endure(t, {
      name: 'C-19 PostgreSQL: fail-over to a synchronous standby',
      strike: async () => { await primary.stop('immediate') },
      lift: async () => {
        await standby.promote()
        relay.target = standby.port
        relay.cut()
      }
    })
  })
})

t.test('C-19: a standby that missed the last commits takes over behind a fence, and the code that it never saw is refused', async t => {
  const primary = await startPostgres(t)
  const redis = await startRedis(t)
  const { url } = await primary.fresh()
  const relay = await startRelay(t, primary.port)
  const database = url.replace(`:${primary.port}/`, `:${relay.port}/`)
  const service = await startReplicas(t, { POSTERN_DATABASE: database, POSTERN_REDIS: redis.url })
  const ann = await enrolled(service, 'ann')
  const standby = await startStandby(t, primary, 'late')
  // It hears nothing more.
  await standby.query("alter system set primary_conninfo = ''")
  await standby.query('select pg_reload_conf()')
  await until('the standby to be behind', async () =>
    (await primary.query('select 1 from pg_stat_replication')).length === 0)

  const owner = by('ann', 'owner', 'owner')
  const code = totpCode(ann.key, (ann.step + 1) * STEP_MS)
  const opened = await service.open(owner)
  t.equal((await service.answer(owner, opened.body.challenge.id, code)).status, 200)
  await primary.stop('immediate')
  await standby.promote()
  t.equal((await postern(['restore-fence'], { ...service.settings, POSTERN_DATABASE: standby.address(new URL(url).pathname.slice(1)) })).code, 0)
  relay.target = standby.port
  relay.cut()
  await until('every replica to be ready', service.ready)
  const thief = by('ann', 'thief', 'thief')
  const again = await service.open(thief)
  t.equal(again.status, 200)
  const replayed = await service.answer(thief, again.body.challenge.id, code)
  t.match(replayed, { status: 403, body: { code: 'code_used' } })
  t.match((await service.question(owner)).body, { status: 'verification_required' }, 'who passed in the lost time passes anew')
})

t.test('C-37: the disk of an SQLite file is full: nothing is accepted that cannot be written, and room is enough to go on', async t => {
  const folder = join(dataFolder(t), 'small')
  mkdirSync(folder)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder], { encoding: 'utf8' })
  if (mounted.status !== 0) throw new Error(`a small tmpfs is needed, which only root can mount: ${mounted.stderr}`)
  t.teardown(() => { spawnSync('umount', ['-l', folder]) })
  const service = await startReplicas(t, {}, { count: 1, folder })
  const crowd = await startCrowd(t, service, 9)
  t.teardown(crowd.report)
  const filler = join(folder, 'filler')
  await crowd.endure(t, {
    name: 'C-37 SQLite: disk full',
    strike: () => {
      for (const size of [1 << 20, 1 << 12]) {
        try {
          for (;;) writeFileSync(filler, Buffer.alloc(size), { flag: 'a' })
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        }
      }
    },
    lift: () => { rmSync(filler) }
  })
})
