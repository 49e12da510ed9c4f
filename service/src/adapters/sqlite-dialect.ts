// kysely over SQLite: one connection that writes, in turns, and one that reads. A file that another process holds is
// waited for outside the driver, so that the event loop goes on, and not for ever.

import {
  SqliteIntrospector,
  SqliteQueryCompiler,
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type DialectAdapter,
  type Driver,
  type QueryResult
} from 'kysely'
import { createTurns } from './turns.ts'

/** One open connection. */
export interface SqliteHandle {
  readonly run: (sql: string, parameters: readonly unknown[]) => QueryResult<unknown>
  readonly close: () => void
}

/** Longest wait for the file, whoever holds it: another request, or another process. */
const WAIT_MS = 1_500
const AGAIN_MS = 10

/** SQLITE_BUSY and SQLITE_LOCKED, in any of their extended forms. */
function isBusy (error: unknown): boolean {
  if (typeof error !== 'object' || error === null || !('errcode' in error)) return false
  return typeof error.errcode === 'number' && [5, 6].includes(error.errcode & 0xff)
}

async function whenFree<T> (work: () => T, until: number): Promise<T> {
  for (;;) {
    try {
      return work()
    } catch (error) {
      if (!isBusy(error) || performance.now() >= until) throw error
      await new Promise(resolve => { setTimeout(resolve, AGAIN_MS) })
    }
  }
}

interface Connection extends DatabaseConnection {
  /** Ends the turn of the transaction that is open on it. */
  endTurn: (() => void) | undefined
}

const ADAPTER: DialectAdapter = {
  supportsCreateIfNotExists: true,
  // All of a migration or nothing; the write lock that it takes at once lets one process do it.
  supportsTransactionalDdl: true,
  supportsReturning: true,
  acquireMigrationLock: async () => {},
  releaseMigrationLock: async () => {}
}

/** `reader` may be `writer` itself, for a database in memory; reads then take turns too. */
export function createSqliteDialect (writer: SqliteHandle, reader: SqliteHandle): Dialect {
  return {
    createAdapter: () => ADAPTER,
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: db => new SqliteIntrospector(db),
    createDriver: () => createDriver(writer, reader)
  }
}

function createDriver (writer: SqliteHandle, reader: SqliteHandle): Driver {
  const turns = createTurns()
  const own = new WeakMap<DatabaseConnection, Connection>()
  const of = (connection: DatabaseConnection): Connection => {
    const found = own.get(connection)
    if (found === undefined) throw new TypeError('a connection of another driver')
    return found
  }
  // kysely's result has the row type of the query; that the columns are so is the schema's word, as in its own driver.
  const typed = <R>(result: QueryResult<unknown>): QueryResult<R> => result as QueryResult<R>

  const execute = async (connection: Connection, { sql, parameters }: CompiledQuery): Promise<QueryResult<unknown>> => {
    if (connection.endTurn !== undefined) return writer.run(sql, parameters)
    const until = performance.now() + WAIT_MS
    if (reader !== writer && /^\s*select\b/i.test(sql)) {
      return await whenFree(() => reader.run(sql, parameters), until)
    }
    const endTurn = await turns.take('write', WAIT_MS)
    try {
      return await whenFree(() => writer.run(sql, parameters), until)
    } finally {
      endTurn()
    }
  }

  const finish = (connection: Connection) => {
    connection.endTurn?.()
    connection.endTurn = undefined
  }
  const undo = (connection: Connection) => {
    try {
      writer.run('rollback', [])
    } catch {
      // A full disk has rolled back by itself.
    } finally {
      finish(connection)
    }
  }

  return {
    init: async () => {},
    acquireConnection: async () => {
      const connection: Connection = {
        endTurn: undefined,
        executeQuery: async <R>(query: CompiledQuery) => typed<R>(await execute(connection, query)),
        streamQuery: () => {
          throw new TypeError('rows are not streamed')
        }
      }
      own.set(connection, connection)
      return connection
    },
    beginTransaction: async given => {
      const connection = of(given)
      const until = performance.now() + WAIT_MS
      const endTurn = await turns.take('write', WAIT_MS)
      try {
        // The write lock at once: a transaction that began reading could not be upgraded beside another process.
        await whenFree(() => writer.run('begin immediate', []), until)
        connection.endTurn = endTurn
      } catch (error) {
        endTurn()
        throw error
      }
    },
    commitTransaction: async given => {
      writer.run('commit', [])
      finish(of(given))
    },
    rollbackTransaction: async given => {
      if (of(given).endTurn !== undefined) undo(of(given))
    },
    releaseConnection: async given => {
      if (of(given).endTurn !== undefined) undo(of(given))
    },
    destroy: async () => {
      writer.close()
      if (reader !== writer) reader.close()
    }
  }
}
