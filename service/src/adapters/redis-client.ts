// The one Redis client of a process: short time-outs, no offline queue, no blind resend. Loaded only where it is used.

import type { Redis } from 'ioredis'

/** Connects, or rejects with one sentence. An eviction policy that could drop waits is refused. */
export async function connectRedis (url: string): Promise<{ readonly client: Redis; readonly close: () => void }> {
  const { Redis } = await import('ioredis')
  const client = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 2_000,
    commandTimeout: 500,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    retryStrategy: attempt => Math.min(attempt * 50, 1_000)
  })
  // Without a listener a lost connection would end the process; callers hear of it by their own command.
  client.on('error', () => {})
  try {
    await client.connect()
    const policy = /maxmemory_policy:(\S+)/.exec(await client.info('memory'))?.[1]
    if (policy !== undefined && policy !== 'noeviction') {
      throw new Error(
        `its maxmemory-policy is ${policy}: under memory pressure it would drop the waits that stop guessing. Set it to noeviction`
      )
    }
  } catch (error) {
    client.disconnect()
    throw new Error(`Redis (POSTERN_REDIS) cannot be used: ${error instanceof Error ? error.message : String(error)}`)
  }
  return {
    client,
    close: () => {
      client.disconnect()
    }
  }
}
