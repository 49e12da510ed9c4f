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
import { createCommits, type CommitsParts, type Group } from './sqlite-commits.ts'
import { createTurns } from './turns.ts'

/** One open connection. */
export interface SqliteHandle {
  readonly run: (sql: string, parameters: readonly unknown[]) => QueryResult<unknown>
  readonly close: () => void
}

export type SqliteFile = Omit<CommitsParts, 'turns'>

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
  /** The transaction that is open on it: what ends its turn, and whom it is made durable with. */
  transaction: { readonly endTurn: () => void, readonly group: Group } | undefined
}

const ADAPTER: DialectAdapter = {
  supportsCreateIfNotExists: true,
  // All of a migration or nothing; the write lock that it takes at once lets one process do it.
  supportsTransactionalDdl: true,
  supportsReturning: true,
  acquireMigrationLock: async () => {},
  releaseMigrationLock: async () => {}
}

/** `reader` is `writer` itself for a database in memory; reads then take turns too. */
export function createSqliteDialect (file: SqliteFile): Dialect {
  return {
    createAdapter: () => ADAPTER,
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: db => new SqliteIntrospector(db),
    createDriver: () => createDriver(file)
  }
}

function createDriver ({ writer, reader, disk }: SqliteFile): Driver {
  const turns = createTurns()
  const commits = createCommits({ writer, reader, disk, turns })
  const own = new WeakMap<DatabaseConnection, Connection>()
  const idle: Connection[] = []
  const of = (connection: DatabaseConnection): Connection => {
    const found = own.get(connection)
    if (found === undefined) throw new TypeError('a connection of another driver')
    return found
  }
  // kysely's result has the row type of the query; that the columns are so is the schema's word, as in its own driver.
  const typed = <R>(result: QueryResult<unknown>): QueryResult<R> => result as QueryResult<R>

  const execute = async (connection: Connection, { sql, parameters }: CompiledQuery): Promise<QueryResult<unknown>> => {
    if (connection.transaction !== undefined) return writer.run(sql, parameters)
    const until = performance.now() + WAIT_MS
    if (reader !== writer && /^\s*select\b/i.test(sql)) {
      return await whenFree(() => reader.run(sql, parameters), until)
    }
    if (/^\s*(?:insert|update|delete)\b/i.test(sql)) return await alone(connection, () => writer.run(sql, parameters))
    const endTurn = await turns.take('write', WAIT_MS)
    try {
      await commits.settle()
      return await whenFree(() => writer.run(sql, parameters), until)
    } finally {
      endTurn()
    }
  }

  const begin = async (connection: Connection): Promise<void> => {
    const until = performance.now() + WAIT_MS
    const endTurn = await turns.take('write', WAIT_MS)
    try {
      // The write lock at once: a transaction that began reading could not be upgraded beside another process.
      const group = await commits.enter(async () => await whenFree(() => writer.run('begin immediate', []), until))
      connection.transaction = { endTurn, group }
    } catch (error) {
      endTurn()
      throw error
    }
  }
  const commit = async (connection: Connection): Promise<void> => {
    if (connection.transaction === undefined) throw new TypeError('a commit without a transaction')
    const { endTurn, group } = connection.transaction
    connection.transaction = undefined
    commits.keep(group)
    endTurn()
    await group.done
  }
  const undo = (connection: Connection): void => {
    if (connection.transaction === undefined) return
    const { endTurn, group } = connection.transaction
    connection.transaction = undefined
    commits.undo(group)
    endTurn()
  }
  /** A write that stands alone is a transaction of one statement. */
  const alone = async <T>(connection: Connection, run: () => T): Promise<T> => {
    await begin(connection)
    try {
      const result = run()
      await commit(connection)
      return result
    } catch (error) {
      undo(connection)
      throw error
    }
  }

  return {
    init: async () => {},
    acquireConnection: async () => {
      const free = idle.pop()
      if (free !== undefined) return free
      const connection: Connection = {
        transaction: undefined,
        executeQuery: async <R>(query: CompiledQuery) => typed<R>(await execute(connection, query)),
        streamQuery: () => {
          throw new TypeError('rows are not streamed')
        }
      }
      own.set(connection, connection)
      return connection
    },
    beginTransaction: async given => { await begin(of(given)) },
    commitTransaction: async given => { await commit(of(given)) },
    rollbackTransaction: async given => { undo(of(given)) },
    releaseConnection: async given => {
      const connection = of(given)
      undo(connection)
      idle.push(connection)
    },
    destroy: async () => {
      await commits.close()
      await disk?.close()
      writer.close()
      if (reader !== writer) reader.close()
    }
  }
}
