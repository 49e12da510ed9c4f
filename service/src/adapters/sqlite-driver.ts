// Where SQLite comes from: built into Node from 22.13, @photostructure/sqlite below. Both have this interface.

import { createRequire } from 'node:module'

export type Value = string | number | bigint | null | Uint8Array

export interface Statement {
  readonly all: (...parameters: Value[]) => unknown[]
  readonly run: (...parameters: Value[]) => {
    readonly changes: number | bigint
    readonly lastInsertRowid: number | bigint
  }
  readonly columns: () => readonly unknown[]
}

export interface Database {
  readonly prepare: (sql: string) => Statement
  readonly exec: (sql: string) => void
  readonly close: () => void
}

const require = createRequire(import.meta.url)
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

/** What any thread of this process may `require`. */
export const SQLITE_DRIVER =
  major > 22 || (major === 22 && minor >= 13) ? 'node:sqlite' : require.resolve('@photostructure/sqlite')

export function openSqlite (path: string): Database {
  // The boundary to a driver chosen at run time.
  const driver = quietly(() => require(SQLITE_DRIVER)) as { readonly DatabaseSync: new (path: string) => Database }
  return new driver.DatabaseSync(path)
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
