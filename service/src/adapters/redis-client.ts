// The one Redis client of a process: short time-outs, no offline queue, no blind resend. Loaded only where it is used.

import type { Cluster, Redis } from 'ioredis'
import type { Config } from '../config.ts'
import { after, unlessEnded } from './clock.ts'
import { patient } from './patience.ts'

export type RedisClient = Redis | Cluster
export type RedisSettings = NonNullable<Config['redis']>

export interface ConnectedRedis {
  readonly client: RedisClient
  /** Rejects while a server may drop what stops guessing; looked at anew after each reconnect. */
  readonly policy: () => Promise<void>
  readonly close: () => void
}

const CONNECT_MS = 2_000
const REVIVE_MS = 100

/** Wrong until somebody mends it: waiting changes nothing. */
const LASTING =
  /WRONGPASS|NOAUTH|NOPERM|invalid password|invalid username|certificate|self-signed|ssl|TLS|ENOTFOUND|maxmemory-policy|is older than|ERR |Sentinels are unreachable.*WRONGPASS/i

/**
 * Connects, or rejects within 15 s with one sentence that names what is wrong. An eviction policy that could drop waits
 * is refused, and so is a server without the commands that scripts use.
 */
export async function connectRedis (settings: RedisSettings): Promise<ConnectedRedis> {
  return await patient(
    async () => await connectOnce(settings),
    error => error instanceof Error && LASTING.test(error.message)
  )
}

async function connectOnce (settings: RedisSettings): Promise<ConnectedRedis> {
  const { client, lastError } = await createClient(settings)
  try {
    await within(client.connect(), CONNECT_MS + 1_000)
    await checkServers(client)
    let checked: Promise<void> = Promise.resolve()
    const check = async (): Promise<void> => {
      checked = checkServers(client)
      await checked
    }
    // A promoted replica may be configured otherwise than the master that was asked at start.
    client.on('ready', () => { check().catch(() => {}) })
    // The client ends for good where word of a fail-over reaches it while it looks for the master; nobody meant that.
    let wanted = true
    client.on('end', () => {
      unlessEnded(REVIVE_MS, () => {
        if (wanted) client.connect().catch(() => {})
      })
    })
    return {
      client,
      // What was wrong right after a fail-over, or came too late, may be well by now.
      policy: async () => { await checked.catch(check) },
      close: () => {
        wanted = false
        client.disconnect()
      }
    }
  } catch (error) {
    client.disconnect()
    // What came from the server or its certificate says more than "connection is closed".
    const said = sentence(lastError() ?? error)
    const why = settings.tls !== undefined && /ETIMEDOUT|no answer/.test(said) ? `${said}; does the port speak TLS?` : said
    throw new Error(`Redis (POSTERN_REDIS) cannot be used: ${why}`, { cause: error })
  }
}

async function createClient (settings: RedisSettings) {
  const { default: { Redis, Cluster } } = await import('ioredis')
  const { kind, nodes, username, password, db, master, sentinelPassword, tls, timeoutMs } = settings
  const secure = tls === undefined ? {} : { tls: { ...defined(tls), minVersion: 'TLSv1.2' as const } }
  const shared = {
    ...defined({ username, password }),
    ...secure,
    connectTimeout: CONNECT_MS,
    commandTimeout: timeoutMs,
    // A peer that is gone without a word is noticed: data outstanding this long ends the connection.
    socketTimeout: timeoutMs * 3,
    keepAlive: 5_000,
    maxRetriesPerRequest: 0,
    // One command less that a user of few rights must be allowed.
    disableClientInfo: true,
    autoResendUnfulfilledCommands: false,
    // 1: connect anew, and let the caller decide whether to repeat. After a fail-over the old master is a replica.
    reconnectOnError: (error: Error) => (error.message.startsWith('READONLY') ? 1 : false)
  }
  const retry = (attempt: number) => Math.min(20 + attempt * 30, 1_000)
  let last: Error | undefined
  let client: RedisClient
  if (kind === 'cluster') {
    const options = {
      lazyConnect: true,
      enableOfflineQueue: false,
      slotsRefreshTimeout: CONNECT_MS,
      slotsRefreshInterval: 5_000,
      clusterRetryStrategy: retry,
      // Scripts carry what makes a repeat harmless, so following a moved slot at once is safe.
      retryDelayOnFailover: 100,
      retryDelayOnClusterDown: 100,
      maxRedirections: 4,
      redisOptions: shared
    }
    client = new Cluster(nodes.map(node => ({ ...node })), options)
    client.on('node error', (error: Error) => { last = error })
  } else {
    const one = { ...shared, db, lazyConnect: true, enableOfflineQueue: false, retryStrategy: retry }
    client =
      kind === 'sentinel'
        ? new Redis({
          ...one,
          sentinels: nodes.map(node => ({ ...node })),
          name: master ?? '',
          sentinelRetryStrategy: retry,
          failoverDetector: true,
          ...(tls === undefined ? {} : { enableTLSForSentinelMode: true, sentinelTLS: secure.tls ?? {} }),
          ...defined({ sentinelPassword })
        })
        : new Redis({ ...one, ...nodes[0] })
  }
  // Without a listener a lost connection would end the process; callers hear of it by their own command.
  client.on('error', (error: Error) => { last = error })
  return { client, lastError: () => last }
}

/** Each server that holds keys: its version, and whether it may drop keys that have not expired. */
async function checkServers (client: RedisClient): Promise<void> {
  const servers: readonly Redis[] = 'nodes' in client ? client.nodes('master') : [client]
  if (servers.length === 0) throw new Error('no server answers')
  for (const info of await Promise.all(servers.map(async server => await server.info()))) {
    const policy = /maxmemory_policy:(\S+)/.exec(info)?.[1]
    if (policy !== undefined && policy !== 'noeviction') {
      throw new Error(
        `its maxmemory-policy is ${policy}: under memory pressure it would drop the waits that stop guessing. Set it to noeviction`
      )
    }
    const version = /redis_version:((\d+)\.\S+)/.exec(info)
    if (version !== null && Number(version[2]) < 6) throw new Error(`Redis ${version[1]} is older than 6.0`)
    if (/^role:slave/m.test(info)) throw new Error('this server is a replica: name the master, Sentinel or Cluster')
  }
}

async function within (work: Promise<unknown>, ms: number): Promise<void> {
  const late = after(ms).then(() => { throw new Error(`no answer within ${ms / 1000} s`) })
  await Promise.race([work, late])
}

/** One line without an address of memory or a stack; passwords never stand in these. */
function sentence (error: unknown): string {
  const messages = error instanceof AggregateError ? error.errors.map(String) : []
  const text = error instanceof Error ? error.message : String(error)
  const also = error instanceof Error && 'lastNodeError' in error && error.lastNodeError instanceof Error
    ? `: ${error.lastNodeError.message}`
    : ''
  return ([text, ...messages].find(one => one !== '') ?? 'no answer').replace(/\s+/g, ' ') + also
}

/** Without the members that are undefined: the client takes a present one for a value. */
function defined<T extends object> (given: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  // The boundary to a library whose options may be absent but not undefined.
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}
