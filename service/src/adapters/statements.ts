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
  type RawBuilder,
  type Transaction
} from 'kysely'
import type { Schema } from './schema.ts'

export type On = Kysely<Schema> | Transaction<Schema>
/** A builder of an insert, update or delete that returns no rows; or of a select. */
type Writing = Compilable & OperationNodeSource
interface HeldQuery extends Writing {
  readonly forUpdate: () => Writing
}

/** Runs it on a transaction, or on the database. */
export type Statement<P, R> = (on: On, parameters: P) => Promise<QueryResult<R>>

/** A write, or rows to be held, and what it is to be run with, for `together`. */
export interface Part {
  readonly id: number
  readonly build: (on: On, part: number) => Writing
  readonly values: Readonly<Record<string, unknown>>
  /** It returns rows by itself. */
  readonly reads: boolean
}

/** A place for a value: of which part, and its name there. */
interface Place {
  readonly part: number
  readonly name: string
}

/** What stands for a value. */
const places = new WeakMap<object, Place>()

/** An object whose every property stands for the value of that name. */
const placesOf = (part: number): object =>
  new Proxy({}, {
    get: (_target, name) => {
      const stand = {}
      places.set(stand, { part, name: String(name) })
      return stand
    }
  })

const isPostgres = (on: On): boolean => on.getExecutor().adapter instanceof PostgresAdapter

/** Texts that were made, of each database. */
const texts = new WeakMap<DialectAdapter, Map<unknown, CompiledQuery>>()

/** `key` names the text that `build` makes; `valueOf` has what its places stand for. */
async function run<R> (
  on: On,
  key: unknown,
  build: () => Compilable<R>,
  valueOf: (place: Place) => unknown
): Promise<QueryResult<R>> {
  const { adapter } = on.getExecutor()
  let known = texts.get(adapter)
  if (known === undefined) texts.set(adapter, (known = new Map()))
  let text = known.get(key)
  if (text === undefined) known.set(key, (text = build().compile()))
  const parameters = text.parameters.map(one => {
    const place = typeof one === 'object' && one !== null ? places.get(one) : undefined
    return place === undefined ? one : valueOf(place)
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
    return await run(on, build, () => build(on, placesOf(0) as P), ({ name }) => values[name])
  }
}

let made = 0

function part<P extends object> (build: (on: On, places: P) => Writing, reads: boolean) {
  const id = made++
  const placed = (on: On, part: number) => build(on, placesOf(part) as P)
  return (parameters: P): Part =>
    ({ id, build: placed, values: parameters as Readonly<Record<string, unknown>>, reads })
}

/** The same for what writes, to be run by itself or `together` with others. */
export function write<P extends object> (build: (on: On, places: P) => Writing) {
  return { run: statement<P>(build), with: part(build, false) }
}

/** Rows that must be there, held where others could write them meanwhile; to be run `together` with writes. */
export function holding<P extends object> (build: (on: On, places: P) => HeldQuery) {
  return { with: part<P>((on, places) => isPostgres(on) ? build(on, places).forUpdate() : build(on, places), true) }
}

/** How many rows each part wrote or holds, one after another. */
async function inTurn (on: On, all: readonly Part[]): Promise<readonly number[]> {
  const counts: number[] = []
  for (const { id, build, values } of all) {
    const { rows, numAffectedRows } = await run(on, id, () => build(on, 0), ({ name }) => values[name])
    counts.push(Number(numAffectedRows ?? rows.length))
  }
  return counts
}

/** The parts as one statement; `select` makes what it answers of their names. Such are numbers only. */
async function asOne (
  on: On,
  key: string,
  all: readonly Part[],
  select: (names: readonly RawBuilder<unknown>[]) => RawBuilder<unknown>
): Promise<Readonly<Record<string, number>> | undefined> {
  const build = (): Compilable<Readonly<Record<string, number>>> => {
    const names = all.map((_, index) => sql.ref(`w${index}`))
    const withs = all.map(({ build, reads }, index) =>
      sql`${names[index]} as (${build(on, index)}${sql.raw(reads ? '' : ' returning 1')})`)
    const text = sql<Readonly<Record<string, number>>>`with ${sql.join(withs)} select ${select(names)}`
    return { compile: () => text.compile(on) }
  }
  const name = `${key} ${all.map(({ id }) => id).join(' ')}`
  const { rows: [row] } = await run(on, name, build, ({ part, name }) => all[part]?.values[name])
  return row
}

const countOf = (name: RawBuilder<unknown>) => sql`(select count(*) from ${name})`

/**
 * Runs writes of which none sees what another wrote, and no two write one row; answers how many rows each wrote.
 * PostgreSQL takes them as one statement: the way there and back is most of what each would cost.
 */
export async function together (on: On, all: readonly Part[]): Promise<readonly number[]> {
  if (all.length === 0) return []
  if (!isPostgres(on)) return await inTurn(on, all)
  const row = await asOne(on, 'together', all, names =>
    sql.join(names.map(name => sql`${countOf(name)} as ${name}`)))
  return all.map((_, index) => Number(row?.[`w${index}`]))
}

/** What PostgreSQL is made to fail with, which is how a single statement is undone; it stands in the server's log. */
const UNDONE = 'undone: a row is not what it was'

/**
 * The same as a transaction of its own, in which each part that `must` writes or holds exactly one row; false: one did
 * not, and nothing is written. What is held comes first. To PostgreSQL it is one way there and back, where a
 * transaction is at least four.
 */
export async function allOrNothing (
  db: Kysely<Schema>,
  all: readonly { readonly part: Part; readonly must: boolean }[]
): Promise<boolean> {
  const parts = all.map(one => one.part)
  const whole = (counts: readonly number[]) => all.every(({ must }, index) => !must || counts[index] === 1)
  if (!isPostgres(db)) {
    const undone = new Error(UNDONE)
    return await db.transaction().execute(async tx => {
      await shortcut(tx)
      if (!whole(await inTurn(tx, parts))) throw undone
      return true
    }).catch((error: unknown) => {
      if (error === undone) return false
      throw error
    })
  }
  const key = `all or nothing ${all.map(({ must }) => must ? 'must' : 'may').join(' ')}`
  try {
    await asOne(db, key, parts, names => {
      const counts = names.filter((_, index) => all[index]?.must).map(name => sql`${countOf(name)} = 1`)
      return sql`(case when ${sql.join(counts, sql` and `)} then '1' else ${sql.lit(UNDONE)} end)::integer as done`
    })
    return true
  } catch (error) {
    if (error instanceof Error && error.message.includes(UNDONE)) return false
    throw error
  }
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
