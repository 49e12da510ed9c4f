// The baseline of `verify`: a bare Fastify server with the same two requests that does only what cannot be left out.
// One EVALSHA and one indexed read each; for the answer one HMAC, and one transaction with the conditional update and
// its audit row.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import fastify, { LogController } from 'fastify'
import { Redis } from 'ioredis'
import pg from 'pg'
import { keyOf } from '../subjects.ts'

const { DATABASE = '', REDIS = '', SUBJECTS = '0' } = process.env

interface Row { readonly id: string, readonly secret: Uint8Array, readonly counter: number }

interface Store {
  readonly read: (subject: string) => Promise<Row | undefined> | Row | undefined
  /** False where the step was used before. */
  readonly accept: (id: string, subject: string, step: number) => Promise<boolean> | boolean
}

const TABLES = (bytes: string, number: string): readonly string[] => [
  `create table authenticators (id text primary key, subject text not null, secret ${bytes} not null, counter ${number} not null)`,
  'create index by_subject on authenticators (subject)',
  `create table events (at ${number} not null, subject text not null, kind text not null)`
]
const READ = 'select id, secret, counter from authenticators where subject = $1'
const ADVANCE = 'update authenticators set counter = $1 where id = $2 and counter < $1'
const AUDIT = "insert into events (at, subject, kind) values ($1, $2, 'verification')"

/** The values of a subject's row, in the order of its columns. */
const rowOf = (i: number): readonly [string, string, Buffer, number] => [`key-of-${i}`, `u${i}`, keyOf(i), 0]

async function sqlite (file: string): Promise<Store> {
  // The driver of the service on this version of Node has the interface of node:sqlite.
  const { DatabaseSync } = await import('@photostructure/sqlite')
  const database = new DatabaseSync(file)
  database.exec('pragma journal_mode = wal; pragma synchronous = full')
  for (const table of TABLES('blob', 'integer')) database.exec(table)
  const insert = database.prepare('insert into authenticators values (?, ?, ?, ?)')
  database.exec('begin')
  for (let i = 0; i < Number(SUBJECTS); i++) insert.run(...rowOf(i))
  database.exec('commit')
  const [begin, commit, rollback] = ['begin immediate', 'commit', 'rollback'].map(one => database.prepare(one))
  const [read, advance, audit] = [READ, ADVANCE, AUDIT].map(one => database.prepare(one.replace(/\$(\d)/g, '?$1')))
  return {
    read: subject => read?.get(subject) as Row | undefined,
    accept: (id, subject, step) => {
      begin?.run()
      if (advance?.run(step, id).changes !== 1) {
        rollback?.run()
        return false
      }
      audit?.run(Date.now(), subject)
      commit?.run()
      return true
    }
  }
}

async function postgres (url: string): Promise<Store> {
  const pool = new pg.Pool({ connectionString: url, max: 10 })
  for (const table of TABLES('bytea', 'bigint')) await pool.query(table)
  for (let from = 0; from < Number(SUBJECTS); from += 1_000) {
    const rows = Array.from({ length: Math.min(1_000, Number(SUBJECTS) - from) }, (_, n) => rowOf(from + n))
    const places = rows.map((_, n) => `($${n * 4 + 1}, $${n * 4 + 2}, $${n * 4 + 3}, $${n * 4 + 4})`)
    await pool.query(`insert into authenticators values ${places.join(', ')}`, rows.flat())
  }
  await pool.query('analyze')
  return {
    read: async subject => (await pool.query<Row>({ name: 'read', text: READ, values: [subject] })).rows[0],
    accept: async (id, subject, step) => {
      const client = await pool.connect()
      try {
        await client.query('begin')
        const { rowCount } = await client.query({ name: 'advance', text: ADVANCE, values: [step, id] })
        if (rowCount === 1) await client.query({ name: 'audit', text: AUDIT, values: [Date.now(), subject] })
        await client.query(rowCount === 1 ? 'commit' : 'rollback')
        return rowCount === 1
      } finally {
        client.release()
      }
    }
  }
}

const store = await (DATABASE.startsWith('postgres') ? postgres(DATABASE) : sqlite(DATABASE))
const redis = new Redis(REDIS)
redis.defineCommand('openChallenge', {
  numberOfKeys: 1,
  lua: "redis.call('SET', KEYS[1], ARGV[1], 'PX', 600000) return redis.call('TIME')[1]"
})
redis.defineCommand('takeAttempt', {
  numberOfKeys: 1,
  lua: "local kept = redis.call('GET', KEYS[1]) if kept then redis.call('DEL', KEYS[1]) end return { kept or '', redis.call('TIME')[1] }"
})
const command = <T>(name: string, ...args: readonly string[]): Promise<T> =>
  (Reflect.get(redis, name) as (...args: readonly string[]) => Promise<T>).call(redis, ...args)

/** Right for this step or one beside it: as a rule one HMAC. */
function stepOf (key: Uint8Array, code: string, seconds: number): number | undefined {
  const step = Math.floor(seconds / 30)
  for (const one of [step, step + 1, step - 1]) {
    const counter = Buffer.alloc(8)
    counter.writeUInt32BE(one, 4)
    const mac = createHmac('sha1', key).update(counter).digest()
    const right = String((mac.readUInt32BE((mac[19] ?? 0) & 15) & 0x7fffffff) % 1_000_000).padStart(6, '0')
    if (timingSafeEqual(Buffer.from(right), Buffer.from(code))) return one
  }
  return undefined
}

const text = { type: 'string' }
const by = { type: 'object', required: ['subject', 'session', 'browser'], properties: { subject: text, session: text, browser: text } }
const app = fastify({ logger: true, logController: new LogController({ disableRequestLogging: true }) })

app.post<{ Body: { by: { subject: string } } }>('/v1/challenges', {
  schema: {
    body: { type: 'object', required: ['by', 'purpose'], properties: { by, purpose: text } },
    response: { 200: { type: 'object', properties: { status: text, challenge: { type: 'object', properties: { id: text, expires_in: { type: 'integer' } } } } } }
  }
}, async (request, reply) => {
  const { subject } = request.body.by
  if (await store.read(subject) === undefined) return await reply.code(404).send()
  const id = randomBytes(16).toString('base64url')
  await command('openChallenge', `c${id}`, subject)
  return { status: 'open', challenge: { id, expires_in: 600 } }
})

app.post<{ Body: { by: { subject: string }, code: string }, Params: { id: string } }>('/v1/challenges/:id/verification', {
  schema: {
    body: { type: 'object', required: ['by', 'code'], properties: { by, code: { type: 'string', pattern: '^[0-9]{6}$' } } },
    response: { 200: { type: 'object', properties: { assurance: { type: 'object', properties: { purpose: text, factor: text } } } } }
  }
}, async (request, reply) => {
  const { by: { subject }, code } = request.body
  const row = await store.read(subject)
  const [owner, now] = await command<[string, string]>('takeAttempt', `c${request.params.id}`)
  if (row === undefined || owner !== subject) return await reply.code(404).send()
  const step = stepOf(row.secret, code, Number(now))
  if (step === undefined || !(await store.accept(row.id, subject, step))) return await reply.code(422).send()
  return { assurance: { purpose: 'login', factor: 'totp' } }
})

process.stdout.write(`listening ${await app.listen({ port: 0, host: '127.0.0.1' })}\n`)
