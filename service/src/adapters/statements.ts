// Statements whose text is made once. The query builder takes about as long to make one as the database to run it, so
// those that every verification runs are made at their first use, with places for what differs.

import {
  PostgresAdapter,
  sql,
  type Compilable,
  type CompiledQuery,
  type DatabaseConnection,
  type DialectAdapter,
  type Kysely,
  type OperationNodeSource,
  type QueryResult,
  type Transaction
} from 'kysely'
import type { Schema } from './schema.ts'

type On = Kysely<Schema> | Transaction<Schema>
/** A builder of an insert, update or delete that returns no rows. */
type Writing = Compilable & OperationNodeSource

/** Runs it on a transaction, or on the database. */
export type Statement<P, R> = (on: On, parameters: P) => Promise<QueryResult<R>>

/** A write and what it is to be run with, for `together`. */
export interface Write {
  readonly id: number
  readonly build: (on: On, prefix: string) => Writing
  readonly values: Readonly<Record<string, unknown>>
}

/** What stands for a value, and which. */
const names = new WeakMap<object, string>()

/** An object whose every property stands for the value of that name. */
const placesOf = (prefix: string): object =>
  new Proxy({}, {
    get: (_target, name) => {
      const place = {}
      names.set(place, prefix + String(name))
      return place
    }
  })

/** Texts that were made, of each database. */
const texts = new WeakMap<DialectAdapter, Map<unknown, CompiledQuery>>()

/** `key` names the text that `build` makes; `valueOf` has what its places stand for. */
async function run<R> (
  on: On,
  key: unknown,
  build: () => Compilable<R>,
  valueOf: (name: string) => unknown
): Promise<QueryResult<R>> {
  const { adapter } = on.getExecutor()
  let known = texts.get(adapter)
  if (known === undefined) texts.set(adapter, (known = new Map()))
  let text = known.get(key)
  if (text === undefined) known.set(key, (text = build().compile()))
  const parameters = text.parameters.map(one => {
    const name = typeof one === 'object' && one !== null ? names.get(one) : undefined
    return name === undefined ? one : valueOf(name)
  })
  return await (connectionOf(on) ?? on).executeQuery<R>({ ...text, parameters })
}

/**
 * `build` is called once a database, with places that stand where the values of `parameters` will: it hands them to
 * the builder, and cannot look into them.
 */
export function statement<P extends object, R = unknown> (
  build: (on: On, places: P) => Compilable<R>
): Statement<P, R> {
  return async (on, parameters) => {
    // To the builder any value is a value.
    const values = parameters as Readonly<Record<string, unknown>>
    return await run(on, build, () => build(on, placesOf('') as P), name => values[name])
  }
}

let writes = 0

/** The same for what writes, to be run by itself or `together` with others. */
export function write<P extends object> (build: (on: On, places: P) => Writing) {
  const id = writes++
  const places = (on: On, prefix: string) => build(on, placesOf(prefix) as P)
  return {
    run: statement<P>(build),
    with: (parameters: P): Write => ({ id, build: places, values: parameters as Readonly<Record<string, unknown>> })
  }
}

/**
 * Runs writes of which none sees what another wrote, and no two write one row; answers how many rows each wrote.
 * PostgreSQL takes them as one statement: the way there and back is most of what each would cost.
 */
export async function together (on: On, all: readonly Write[]): Promise<readonly number[]> {
  if (all.length === 0) return []
  const valueOf = (name: string): unknown => {
    const [index, own = ''] = name.split(':')
    return all[Number(index)]?.values[own]
  }
  if (!(on.getExecutor().adapter instanceof PostgresAdapter)) {
    const counts: number[] = []
    for (const { id, build, values } of all) {
      const { numAffectedRows } = await run(on, id, () => build(on, ''), name => values[name])
      counts.push(Number(numAffectedRows))
    }
    return counts
  }
  const key = `together ${all.map(({ id }) => id).join(' ')}`
  const build = (): Compilable<Readonly<Record<string, number>>> => {
    const parts = all.map(({ build }, index) => {
      const name = sql.ref(`w${index}`)
      return {
        write: sql`${name} as (${build(on, `${index}:`)} returning 1)`,
        count: sql`(select count(*) from ${name}) as ${name}`
      }
    })
    const text = sql<Readonly<Record<string, number>>>`
      with ${sql.join(parts.map(one => one.write))} select ${sql.join(parts.map(one => one.count))}`
    return { compile: () => text.compile(on) }
  }
  const { rows: [row] } = await run(on, key, build, valueOf)
  return all.map((_, index) => Number(row?.[`w${index}`]))
}

/** Of an open transaction: its statements come one after another, and need nobody to keep them apart. */
const CONNECTION = Symbol('connection')

interface Direct {
  [CONNECTION]?: DatabaseConnection
}

const connectionOf = (on: On & Direct): DatabaseConnection | undefined => on[CONNECTION]

/** Statements of this transaction go to its connection without the builder between them. */
export async function shortcut (tx: Transaction<Schema> & Direct): Promise<void> {
  tx[CONNECTION] = await tx.getExecutor().provideConnection(async connection => connection)
}
