// Redis in its other shapes on free ports: one master and replica under three sentinels, six nodes of a cluster.

import { spawnSync } from 'node:child_process'
import { Redis } from 'ioredis'
import { dataFolder } from './processes.ts'
import { freePort, startRedis } from './redis.ts'
import type { Teardown } from './service.ts'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Polls until `look` answers something, or fails with what was waited for. */
export async function until<T> (what: string, look: () => Promise<T | undefined | false>, ms = 60_000): Promise<T> {
  const deadline = performance.now() + ms
  for (;;) {
    const seen = await look().catch(() => undefined)
    if (seen !== undefined && seen !== false) return seen
    if (performance.now() > deadline) throw new Error(`waited in vain for: ${what}`)
    await new Promise(resolve => { setTimeout(resolve, 50) })
  }
}

/** A client for the test's own looks and faults. */
export function admin (t: Teardown, port: number, options: Record<string, unknown> = {}): Redis {
  const redis = new Redis({ host: '127.0.0.1', port, retryStrategy: () => 50, maxRetriesPerRequest: null, ...options })
  redis.on('error', () => {})
  t.teardown(() => { redis.disconnect() })
  return redis
}

export async function startSentinel (t: Teardown) {
  const quick = ['--repl-diskless-sync-delay', '0', '--repl-ping-replica-period', '1']
  const master = await startRedis(t, ...quick)
  const replica = await startRedis(t, ...quick, '--replicaof', '127.0.0.1', String(master.port))
  await until('the replica', async () => (await admin(t, replica.port).info('replication')).includes('master_link_status:up'))
  const folder = dataFolder(t)
  const sentinels = await Promise.all([1, 2, 3].map(async number => {
    const file = join(folder, `sentinel-${number}.conf`)
    writeFileSync(file, [
      `sentinel monitor main 127.0.0.1 ${master.port} 2`,
      'sentinel down-after-milliseconds main 1000',
      'sentinel failover-timeout main 3000'
    ].join('\n'))
    return await startRedis(t, file, '--sentinel')
  }))
  const first = sentinels[0]?.port ?? 0
  const asked = admin(t, first)
  await until('three sentinels and the replica', async () => {
    const state = await asked.call('SENTINEL', 'MASTER', 'main') as Record<string, string> | string[]
    const text = JSON.stringify(state)
    return /"num-slaves"[:,]"1"/.test(text) && /"num-other-sentinels"[:,]"2"/.test(text)
  })
  return {
    master,
    replica,
    sentinels,
    url: `redis+sentinel://${sentinels.map(one => `127.0.0.1:${one.port}`).join(',')}/0?master=main`,
    /** Port of the server that is master now. */
    masterPort: async () => Number((await asked.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'main') as string[])[1])
  }
}

export async function startCluster (t: Teardown) {
  const nodes = await Promise.all([1, 2, 3, 4, 5, 6].map(async () => {
    // The bus has a port of its own, so that it is free too.
    const bus = await freePort()
    return await startRedis(t, '--cluster-enabled', 'yes', '--cluster-config-file', `nodes-${bus}.conf`, '--cluster-port', String(bus),
      '--cluster-node-timeout', '1000', '--repl-diskless-sync-delay', '0')
  }))
  const made = spawnSync('redis-cli', ['--cluster', 'create', ...nodes.map(node => `127.0.0.1:${node.port}`),
    '--cluster-replicas', '1', '--cluster-yes'], { encoding: 'utf8' })
  if (made.status !== 0) throw new Error(made.stdout + made.stderr)
  await until('the cluster', async () => {
    const states = await Promise.all(nodes.map(async node => {
      const redis = new Redis({ host: '127.0.0.1', port: node.port })
      try {
        const [info, replication] = [String(await redis.call('CLUSTER', 'INFO')), await redis.info('replication')]
        return info.includes('cluster_state:ok') && (replication.includes('role:master') || replication.includes('master_link_status:up'))
      } finally { redis.disconnect() }
    }))
    return states.every(Boolean)
  })
  return { nodes, url: `redis+cluster://${nodes.slice(0, 3).map(node => `127.0.0.1:${node.port}`).join(',')}` }
}

/**
 * Moves the slots of one master that hold keys to another: `begin` leaves them halfway, with part of the keys on either
 * side, so that commands are answered with ASK and TRYAGAIN; `end` finishes, after which they are answered with MOVED.
 */
export function moveSlots (t: Teardown, from: number, to: number) {
  const [source, target] = [admin(t, from), admin(t, to)]
  const slots: number[] = []
  // Keys hold bytes.
  const keysIn = async (slot: number, most: number) =>
    await source.callBuffer('CLUSTER', 'GETKEYSINSLOT', slot, most) as Buffer[]
  const migrate = async (keys: readonly Buffer[]): Promise<void> => {
    if (keys.length > 0) await source.call('MIGRATE', '127.0.0.1', to, '', 0, 5_000, 'KEYS', ...keys)
  }
  const idOf = async (redis: Redis): Promise<string> => String(await redis.call('CLUSTER', 'MYID'))
  return {
    begin: async (): Promise<number> => {
      const [sourceId, targetId] = [await idOf(source), await idOf(target)]
      const used = new Set(await Promise.all((await source.keysBuffer('*')).map(async key => Number(await source.call('CLUSTER', 'KEYSLOT', key)))))
      for (const slot of used) {
        await target.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', sourceId)
        await source.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', targetId)
        await migrate((await keysIn(slot, 100)).slice(1))
        slots.push(slot)
      }
      return slots.length
    },
    end: async (): Promise<void> => {
      const targetId = await idOf(target)
      for (const slot of slots) {
        for (let keys = await keysIn(slot, 100); keys.length > 0; keys = await keysIn(slot, 100)) await migrate(keys)
        for (const redis of [target, source]) await redis.call('CLUSTER', 'SETSLOT', slot, 'NODE', targetId)
      }
    }
  }
}
