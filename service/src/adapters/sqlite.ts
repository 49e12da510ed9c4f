// SQLite through the node:sqlite interface (built in from Node 22.13, @photostructure/sqlite below), as kysely's
// dialect takes it.

import { chmodSync, existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { SqliteDialect, type Dialect } from 'kysely'

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

/** Opens (and makes) the file, readable by its owner only; `:memory:` for tests. */
export function sqliteDialect (path: string): Dialect {
  const fresh = path !== ':memory:' && !existsSync(path)
  if (fresh) mkdirSync(dirname(path), { recursive: true })
  const database = load(path)
  database.exec(
    'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000'
  )
  if (fresh) chmodSync(path, 0o600)
  // Statements are few and come again: preparing one costs more than running it.
  const prepared = new Map<string, Statement>()
  const statement = (sql: string): Statement => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    const made = database.prepare(sql)
    if (prepared.size < 500) prepared.set(sql, made)
    return made
  }
  return new SqliteDialect({
    database: {
      close: () => {
        database.close()
      },
      prepare: text => {
        // A transaction takes the write lock at once: one that began reading could not be upgraded beside another
        // process.
        const made = statement(text === 'begin' ? 'begin immediate' : text)
        return {
          reader: made.columns().length > 0,
          all: parameters => made.all(...parameters.map(bindable)),
          run: parameters => made.run(...parameters.map(bindable)),
          iterate: parameters => made.all(...parameters.map(bindable))[Symbol.iterator]()
        }
      }
    }
  })
}
