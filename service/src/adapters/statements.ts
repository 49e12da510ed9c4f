// Statements whose text is made once. The query builder takes about as long to make one as the database to run it, so
// those that every verification runs are made at their first use, with places for what differs.

import type { Compilable, CompiledQuery, DatabaseConnection, DialectAdapter, Kysely, QueryResult, Transaction } from 'kysely'
import type { Schema } from './schema.ts'

type On = Kysely<Schema> | Transaction<Schema>

/** Runs it on a transaction, or on the database. */
export type Statement<P, R> = (on: On, parameters: P) => Promise<QueryResult<R>>

class Place {
  readonly name: string

  constructor (name: string) {
    this.name = name
  }
}

/**
 * `build` is called once a database, with places that stand where the values of `parameters` will: it hands them to
 * the builder, and cannot look into them.
 */
export function statement<P extends object, R = unknown> (
  build: (on: On, places: P) => Compilable<R>
): Statement<P, R> {
  const texts = new WeakMap<DialectAdapter, CompiledQuery>()
  // To the builder any value is a value.
  const places = new Proxy({}, { get: (_target, name) => new Place(String(name)) }) as P
  return async (on, parameters) => {
    const { adapter } = on.getExecutor()
    let text = texts.get(adapter)
    if (text === undefined) {
      text = build(on, places).compile()
      texts.set(adapter, text)
    }
    const values = text.parameters.map(one => (one instanceof Place ? parameters[one.name as keyof P] : one))
    return await (connections.get(on) ?? on).executeQuery<R>({ ...text, parameters: values })
  }
}

/** The connections of open transactions: their statements come one after another, and need nobody to keep them apart. */
const connections = new WeakMap<On, DatabaseConnection>()

/** Statements of this transaction go to its connection without the builder between them. */
export async function shortcut (tx: Transaction<Schema>): Promise<void> {
  connections.set(tx, await tx.getExecutor().provideConnection(async connection => connection))
}
