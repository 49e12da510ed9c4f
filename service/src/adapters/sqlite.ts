// SQLite through the node:sqlite interface: files, settings, prepared statements.

import { chmodSync, existsSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Dialect } from 'kysely'
import { createSqliteDialect, type SqliteHandle } from './sqlite-dialect.ts'
import { createDisk, type Disk } from './sqlite-disk.ts'
import { openSqlite, type Database, type Statement, type Value } from './sqlite-driver.ts'

/**
 * `undefined`, dates and booleans are converted or refused: the driver would store some of them as NULL without a
 * word.
 */
function bindable (value: unknown): Value {
  switch (typeof value) {
    case 'string':
    case 'bigint':
      return value
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError('a number that is not finite cannot be stored')
      return value
    case 'boolean':
      return value ? 1 : 0
    case 'object':
      if (value === null || value instanceof Uint8Array) return value
      break
    default:
  }
  throw new TypeError(`a ${value instanceof Date ? 'date' : typeof value} cannot be stored`)
}

/** Step by step: where nothing can be made, as in /proc, the platform's own way of making them all never ends. */
function makeFolder (path: string): void {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  try {
    mkdirSync(path)
  } catch (error) {
    // Somebody else made it meanwhile.
    if (!existsSync(path)) throw error
  }
}

/** Opens (and makes) the file, readable by its owner only; `:memory:` for tests, and a disk that they control. */
export function sqliteDialect (path: string, diskOf: (path: string) => Disk = createDisk): Dialect {
  const inMemory = path === ':memory:'
  const fresh = !inMemory && !existsSync(path)
  if (fresh) makeFolder(dirname(path))
  const open = (): SqliteHandle => {
    const database = openSqlite(path)
    // Switching to WAL may meet another process that does the same; from then on nobody waits inside the driver,
    // which would stop the whole process: the dialect waits outside of it. For the disk too: it waits itself before
    // it calls anything durable, and moves the log into the file in another thread.
    database.exec('PRAGMA busy_timeout = 2000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    database.exec('PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 0')
    return handle(database)
  }
  const writer = open()
  // What a transaction would be undone with: of 42 writes to files in a verification, 25 were such.
  writer.run('pragma temp_store = memory', [])
  if (fresh) chmodSync(path, 0o600)
  if (inMemory) return createSqliteDialect({ writer, reader: writer, disk: undefined })
  // In WAL a reader never waits for a writer, nor a writer for a reader.
  return createSqliteDialect({ writer, reader: open(), disk: diskOf(path) })
}

function handle (database: Database): SqliteHandle {
  // Statements are few and come again: preparing one costs more than running it.
  const prepared = new Map<string, { readonly statement: Statement; readonly reads: boolean }>()
  const of = (sql: string) => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    const statement = database.prepare(sql)
    const made = { statement, reads: statement.columns().length > 0 }
    if (prepared.size < 500) prepared.set(sql, made)
    return made
  }
  return {
    run: (sql, parameters) => {
      const { statement, reads } = of(sql)
      const values = parameters.map(bindable)
      if (reads) return { rows: statement.all(...values) }
      const { changes, lastInsertRowid } = statement.run(...values)
      return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) }
    },
    close: () => {
      database.close()
    }
  }
}
