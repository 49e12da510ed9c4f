// Which keys this database was used with: found out at start, so that a wrong key ring is a refused start and not a
// person whose enrolment cannot be read; and sealing everything anew under the primary key.

import { createHmac, randomUUID } from 'node:crypto'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import { sealContext } from '../domain/model.ts'
import type { Sealer } from '../domain/ports.ts'
import type { NamedKey } from './crypto.ts'
import type { Database } from './database.ts'
import { fence } from './restore-fence.ts'
import type { Schema } from './schema.ts'

export interface Keys {
  readonly encryptionKeys: readonly NamedKey[]
  readonly serverKey: NamedKey
}

/** The keys or the database are not the ones that belong together; the message says which, by id. */
export class WrongKeys extends Error {
  constructor (message: string) {
    super(message)
    this.name = 'WrongKeys'
  }
}

/** Tells a key from another and nothing about it. */
const markOf = ({ key }: NamedKey): string =>
  createHmac('sha256', key).update('postern key mark').digest('base64url').slice(0, 22)

/** Every place where something sealed is kept. */
const SEALED = [
  { table: 'authenticators', column: 'secret', where: sql`factor <> 'backup_code' and` },
  { table: 'subjects', column: 'contact', where: sql`` },
  { table: 'subjects', column: 'set_address', where: sql`` },
  { table: 'notices', column: 'recipient', where: sql`` }
] as const

function outside (column: string, ids: readonly string[]): RawBuilder<unknown> {
  const under = ids.map(id => sql`and ${sql.ref(column)} not like ${`v1.${id}.%`}`)
  return sql`${sql.ref(column)} is not null ${sql.join(under, sql` `)}`
}

/** How many values are sealed under keys other than `ids`, and under which. */
async function sealedOutside (db: Kysely<Schema>, ids: readonly string[]) {
  let count = 0
  const under = new Set<string>()
  for (const { table, column, where } of SEALED) {
    const condition = sql`${where} ${outside(column, ids)}`
    const { rows: [total] } = await sql<{ count: number }>`
      select count(*) as count from ${sql.table(table)} where ${condition}`.execute(db)
    count += Number(total?.count ?? 0)
    if (Number(total?.count ?? 0) === 0) continue
    const { rows } = await sql<{ id: string }>`
      select distinct substr(${sql.ref(column)}, 1, 20) as id from ${sql.table(table)} where ${condition} limit 1000`.execute(db)
    for (const { id } of rows) under.add(id.split('.')[1] ?? '')
  }
  return { count, under: [...under].sort() }
}

/**
 * Compares the configured keys with what the database remembers, and remembers new ones. Throws WrongKeys where
 * something is sealed under a key that is missing or is another key of the same id, and for another server key.
 */
export async function checkKeys (database: Database, keys: Keys, sealer: Sealer, now: number): Promise<void> {
  const { db } = database
  const ids = keys.encryptionKeys.map(key => key.id)
  const known = await db.selectFrom('key_marks').selectAll().execute()

  const server = known.find(row => row.kind === 'server')
  if (server !== undefined && server.mark !== markOf(keys.serverKey)) {
    throw new WrongKeys(
      `POSTERN_SERVER_KEY is not the key that this database was used with (its id there: ${server.id}). Put that key back. If it is lost for good, run "postern keys replace-server-key": everybody must verify again, and all backup and enrolment codes are void`
    )
  }
  const seals = known.filter(row => row.kind === 'encryption')
  for (const key of keys.encryptionKeys) {
    const before = seals.find(row => row.id === key.id)
    if (before !== undefined && before.mark !== markOf(key)) {
      throw new WrongKeys(
        `key ${key.id} of POSTERN_ENCRYPTION_KEYS is not the ${key.id} that this database was used with. Put that key back, or give the new one another id`
      )
    }
  }
  const missing = seals.length === 0 || seals.some(row => !ids.includes(row.id))
  if (missing) {
    const { count, under } = await database.patiently(async patient => await sealedOutside(patient, ids))
    if (count > 0) {
      throw new WrongKeys(
        `${count} secrets are sealed under key ${under.join(', ')}, which POSTERN_ENCRYPTION_KEYS does not hold. Put it back behind the first key; "postern keys rotate" makes it unneeded`
      )
    }
  }
  // A database from before it remembered keys, or of which only a part was restored: one value is tried.
  if (seals.length === 0) await tryOne(db, sealer)

  const rows = [
    ...keys.encryptionKeys.map(key => ({ kind: 'encryption', id: key.id, mark: markOf(key), first_seen_at: now })),
    { kind: 'server', id: keys.serverKey.id, mark: markOf(keys.serverKey), first_seen_at: now }
  ].filter(row => row.kind === 'server' ? server === undefined : !seals.some(one => one.id === row.id))
  if (rows.length === 0) return
  await db
    .insertInto('key_marks')
    .values(rows)
    .onConflict(conflict => conflict.columns(['kind', 'id']).doNothing())
    .execute()
  // Two that start for the first time at once, with different keys: the second is told.
  await checkKeys(database, keys, sealer, now)
}

async function tryOne (db: Kysely<Schema>, sealer: Sealer): Promise<void> {
  const one = await db
    .selectFrom('authenticators')
    .selectAll()
    .where('factor', '!=', 'backup_code')
    .limit(1)
    .executeTakeFirst()
  if (one === undefined) return
  try {
    sealer.unseal(one.secret, sealContext('authenticator', one.tenant, one.subject, one.factor, one.id))
  } catch {
    throw new WrongKeys('POSTERN_ENCRYPTION_KEYS holds other keys than those that sealed this database')
  }
}

/** A new server key, on purpose: what was keyed by the old one is worth nothing, and goes. */
export async function replaceServerKey (database: Database, key: NamedKey, now: number): Promise<void> {
  await database.patiently(async db => await db.transaction().execute(async tx => {
    await fence(tx, now, 'server_key_replaced', { backupCodes: false })
    await tx.deleteFrom('browsers').execute()
    // Backup codes carry a mark under this key by which their slow hash is found.
    await tx.deleteFrom('authenticators').where('factor', '=', 'backup_code').execute()
    await tx.deleteFrom('key_marks').where('kind', '=', 'server').execute()
    await tx
      .insertInto('key_marks')
      .values({ kind: 'server', id: key.id, mark: markOf(key), first_seen_at: now })
      .execute()
  }))
}

/** Which database this is; made once. */
export async function databaseId (database: Database, now: number): Promise<string> {
  await database.db
    .insertInto('identity')
    .values({ name: 'database', id: randomUUID(), made_at: now })
    .onConflict(conflict => conflict.column('name').doNothing())
    .execute()
  return (await database.db.selectFrom('identity').select('id').where('name', '=', 'database').executeTakeFirstOrThrow()).id
}

export interface Rotated {
  /** Values sealed anew. */
  readonly resealed: number
  /** Values that could not be opened, by where they stand; they are as they were. */
  readonly unreadable: readonly string[]
  /** Keys of the ring under which nothing is sealed any more. */
  readonly unneeded: readonly string[]
}

const BATCH = 100

/**
 * Seals everything under the primary key, beside the running service and in small transactions. Each value is replaced
 * only if it is still what was read, and what is done need not be done again: it may be killed and started anew.
 */
export async function rotateKeys (
  database: Database,
  keys: Keys,
  sealer: Sealer,
  progress: (resealed: number) => void
): Promise<Rotated> {
  const { db } = database
  const primary = keys.encryptionKeys[0]?.id ?? ''
  const old = (column: string) => outside(column, [primary])
  const unreadable: string[] = []
  let resealed = 0

  const reseal = (sealed: string, context: string, where: string): string | undefined => {
    try {
      return sealer.seal(sealer.unseal(sealed, context), context)
    } catch {
      unreadable.push(where)
      return undefined
    }
  }
  /** `column` of the rows that `key` names, in the order of `key`. */
  const walk = async (
    { table, column, where }: (typeof SEALED)[number],
    key: readonly string[],
    context: (row: Readonly<Record<string, string>>) => string
  ) => {
    const names = sql.join(key.map(name => sql.ref(name)))
    let after = sql``
    for (;;) {
      const { rows } = await sql<Record<string, string>>`
        select * from ${sql.table(table)} where ${where} ${old(column)} ${after} order by ${names} limit ${BATCH}`.execute(db)
      const last = rows.at(-1)
      if (last === undefined) return
      const changed = rows.flatMap(row => {
        const before = row[column] ?? ''
        const sealed = reseal(before, context(row), `${table} ${key.map(name => row[name]).join(' ')}`)
        return sealed === undefined ? [] : [{ row, before, sealed }]
      })
      await db.transaction().execute(async tx => {
        for (const { row, before, sealed } of changed) {
          const same = sql.join(key.map(name => sql`${sql.ref(name)} = ${row[name]}`), sql` and `)
          const { numAffectedRows = 0n } = await sql`
            update ${sql.table(table)} set ${sql.ref(column)} = ${sealed}
            where ${same} and ${sql.ref(column)} = ${before}`.execute(tx)
          resealed += Number(numAffectedRows)
        }
      })
      progress(resealed)
      after = sql`and (${names}) > (${sql.join(key.map(name => last[name]))})`
    }
  }

  const contact = ({ tenant = '', subject = '' }: Readonly<Record<string, string>>) =>
    sealContext('contact', tenant, subject)
  for (const place of SEALED) {
    if (place.table === 'authenticators') {
      await walk(place, ['tenant', 'subject', 'id'], ({ tenant = '', subject = '', factor = '', id = '' }) =>
        sealContext('authenticator', tenant, subject, factor, id))
    } else await walk(place, place.table === 'subjects' ? ['tenant', 'subject'] : ['id'], contact)
  }
  const { under } = await database.patiently(async patient => await sealedOutside(patient, [primary]))
  return {
    resealed,
    unreadable,
    unneeded: keys.encryptionKeys.slice(1).map(key => key.id).filter(id => !under.includes(id))
  }
}
