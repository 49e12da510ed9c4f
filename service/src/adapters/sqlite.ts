// SQLite through the node:sqlite interface (built in from Node 22.13, @photostructure/sqlite below): files, settings,
// prepared statements.

import { chmodSync, existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import type { Dialect } from 'kysely'
import { createSqliteDialect, type SqliteHandle } from './sqlite-dialect.ts'

type Value = string | number | bigint | null | Uint8Array

interface Statement {
  readonly all: (...parameters: Value[]) => unknown[]
  readonly run: (...parameters: Value[]) => {
    readonly changes: number | bigint
    readonly lastInsertRowid: number | bigint
  }
  readonly columns: () => readonly unknown[]
}

interface Database {
  readonly prepare: (sql: string) => Statement
  readonly exec: (sql: string) => void
  readonly close: () => void
}

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

function load (path: string): Database {
  const require = createRequire(import.meta.url)
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const builtIn = major > 22 || (major === 22 && minor >= 13)
  // The boundary to a driver chosen at run time: both have this interface.
  const { DatabaseSync } = quietly(() => require(builtIn ? 'node:sqlite' : '@photostructure/sqlite')) as {
    readonly DatabaseSync: new (path: string) => Database
  }
  return new DatabaseSync(path)
}

/** Node 22 warns that node:sqlite is experimental; other warnings go through. */
function quietly<T> (work: () => T): T {
  const { emitWarning } = process
  process.emitWarning = (warning: string | Error, ...rest: never[]) => {
    if (!String(warning).includes('SQLite is an experimental feature')) {
      Reflect.apply(emitWarning, process, [warning, ...rest])
    }
  }
  try {
    return work()
  } finally {
    process.emitWarning = emitWarning
  }
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

/** Opens (and makes) the file, readable by its owner only; `:memory:` for tests. */
export function sqliteDialect (path: string): Dialect {
  const inMemory = path === ':memory:'
  const fresh = !inMemory && !existsSync(path)
  if (fresh) makeFolder(dirname(path))
  const open = (): SqliteHandle => {
    const database = load(path)
    // Switching to WAL may meet another process that does the same; from then on nobody waits inside the driver,
    // which would stop the whole process: the dialect waits outside of it.
    database.exec('PRAGMA busy_timeout = 2000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    database.exec('PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 0')
    return handle(database)
  }
  const writer = open()
  if (fresh) chmodSync(path, 0o600)
  // In WAL a reader never waits for a writer, nor a writer for a reader.
  return createSqliteDialect(writer, inMemory ? writer : open())
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
