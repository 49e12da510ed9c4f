// PostgreSQL as kysely's dialect takes it: a bounded pool, time-outs on everything, TLS that is verified, and never a
// server that only follows another.

import { checkServerIdentity, type ConnectionOptions } from 'node:tls'
import { PostgresDialect, type Dialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import type { PoolClient, PoolConfig } from 'pg'

export interface PostgresOptions {
  /** Most connections of this process. */
  readonly poolSize: number
  /** Certificate authorities of the server (PEM); absent: the system's. */
  readonly ca?: string | undefined
  /** For migrations and scans of whole tables: statements and locks take the time they take. */
  readonly patient?: boolean
}

/** Together a request that meets a dead or locked database is answered within about two seconds. */
const CONNECT_MS = 1_500
const STATEMENT_MS = 1_500
const LOCK_MS = 1_000
/** Where not even the time-out of the server comes back. */
const SILENCE_MS = 1_900
/** A process that stopped in the middle of a transaction holds its locks no longer than this. */
const IDLE_IN_TRANSACTION_MS = 2_000

function tlsOf (url: URL, ca: string | undefined): ConnectionOptions | false {
  const mode = url.searchParams.get('sslmode') ?? 'disable'
  if (mode === 'disable') return false
  return {
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
    // The driver leaves an address that is not a name unchecked.
    checkServerIdentity: (_name, certificate) =>
      mode === 'verify-ca' ? undefined : checkServerIdentity(url.hostname.replace(/^\[|\]$/g, ''), certificate)
  }
}

/** The driver is loaded only where it is used. */
export async function postgresDialect (address: string, options: PostgresOptions): Promise<Dialect> {
  const { default: pg } = await import('pg')
  const url = new URL(address)
  const ssl = tlsOf(url, options.ca)
  url.searchParams.delete('sslmode')
  const limits: PoolConfig =
    options.patient === true
      ? { connectionTimeoutMillis: 10_000 }
      : {
          connectionTimeoutMillis: CONNECT_MS,
          statement_timeout: STATEMENT_MS,
          lock_timeout: LOCK_MS,
          query_timeout: SILENCE_MS,
          idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS
        }
  const pool = new pg.Pool({
    application_name: 'postern',
    ...limits,
    connectionString: url.href,
    ssl,
    max: options.poolSize,
    keepAlive: true,
    types: {
      // Per pool: a global parser would change other users of the driver.
      getTypeParser: (oid: number, format?: 'text' | 'binary') =>
        oid === 20 ? toSafeInteger : pg.types.getTypeParser(oid, format ?? 'text')
    },
    verify: (client, done) => {
      // A standby answers with what was true a while ago: "not enrolled" is not its to say.
      client.query('select pg_is_in_recovery() as follows').then(
        ({ rows: [row] }) => { done(row?.follows === false ? undefined : new Error('the server is a standby')) },
        done
      )
    }
  })
  // A connection that breaks is replaced. Without listeners it would end the process: while idle by the pool, and
  // between two statements of a transaction by itself; the next statement on it fails.
  pool.on('error', () => {})
  pool.on('connect', client => { client.on('error', () => {}) })
  return new PostgresDialect({
    pool: mending(options.patient === true ? () => undefined : createNames(), {
      connect: async () => await pool.connect(),
      end: async () => { await pool.end() }
    })
  })
}

function toSafeInteger (text: string): number {
  const number = Number(text)
  if (!Number.isSafeInteger(number)) throw new RangeError('a stored number is beyond what can be held exactly')
  return number
}

/** Statements are few and come again; what a program makes without end is not kept. */
const NAMED = 500

/**
 * A name for a statement, by which the server parses and plans it once a connection. None for `select *`: with a column
 * more, which a newer version may add beside this one, the server refuses what it has planned.
 */
function createNames (): (sql: string) => string | undefined {
  const names = new Map<string, string>()
  return sql => {
    const known = names.get(sql)
    if (known !== undefined || names.size >= NAMED || /\bselect \*/i.test(sql)) return known
    const name = `postern_${names.size}`
    names.set(sql, name)
    return name
  }
}

/** The server answered, and goes on with this connection. */
function isAnswer (error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'severity' in error && error.severity === 'ERROR'
}

/**
 * A connection on which a query went unanswered is thrown away: its next query would wait behind the lost one, and a
 * pool of ten such would outlive any outage of the network.
 */
function mending (
  nameOf: (sql: string) => string | undefined,
  pool: { readonly connect: () => Promise<PoolClient>; readonly end: () => Promise<void> }
): PostgresPool {
  const mended = (client: PoolClient): PostgresPoolClient => {
    let broken: unknown
    const query = async (sql: string, parameters: readonly unknown[]) => {
      if (broken !== undefined) throw broken
      try {
        const name = parameters.length === 0 ? undefined : nameOf(sql)
        return await client.query({ text: sql, values: [...parameters], ...(name === undefined ? {} : { name }) })
      } catch (error) {
        if (!isAnswer(error)) broken = error
        throw error
      }
    }
    return {
      // The interface has a second form, with a cursor, that kysely uses for streams only; we have none.
      query: query as unknown as PostgresPoolClient['query'],
      release: () => {
        client.release(broken !== undefined)
      }
    }
  }
  // One for as long as its connection lives: kysely keeps what it makes for each that it is given.
  const known = new WeakMap<PoolClient, PostgresPoolClient>()
  return {
    end: pool.end,
    connect: async () => {
      const client = await pool.connect()
      const made = known.get(client) ?? mended(client)
      known.set(client, made)
      return made
    }
  }
}
