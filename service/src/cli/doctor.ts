// postern doctor: looks at everything the service needs, one line each, and says what to do where something is amiss.
// It starts nothing, migrates nothing and takes no lease, so it may run beside the service.

import { sql } from 'kysely'
import { systemClock } from '../adapters/clock.ts'
import { createSealer } from '../adapters/crypto.ts'
import type { Database } from '../adapters/database.ts'
import { checkKeys } from '../adapters/key-ring.ts'
import { openTransport, type Delivery } from '../adapters/mail-transport.ts'
import { checkIdentity, openFrom } from '../adapters/open-records.ts'
import { connectRedis } from '../adapters/redis-client.ts'
import { ConfigError, readConfig, type Config } from '../config.ts'
import { parse, type Command, type Io } from './command.ts'

/** A phone's code is good for half a minute either side; a clock this far off begins to cost right codes. */
const CLOCK_OFF_MS = 5_000

const UNREACHABLE = /ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|no answer/

/** What was found: a sentence; thrown ones are failures. */
type Look = () => Promise<string>

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

export const doctor: Command = {
  usage: 'doctor',
  text: 'Check configuration, database, key ring, Redis, mail and clock, and say what to do about each',
  run: async (args, io) => {
    const { words, mistake } = parse(args, [])
    if (mistake !== undefined || words.length > 0) {
      io.complain(mistake ?? `usage: postern ${doctor.usage}`)
      return 2
    }
    const config = configuration(io)
    if (config === undefined) return 1

    let failures = 0
    const look = async (what: string, find: Look): Promise<void> => {
      try {
        io.print(`passed  ${what}: ${await find()}`)
      } catch (error) {
        failures += 1
        io.print(`failed  ${what}: ${messageOf(error)}`)
      }
    }
    const clocks: { readonly whose: string, readonly off: number }[] = []
    const compare = async (whose: string, ask: () => Promise<number>): Promise<void> => {
      const before = systemClock.now()
      const theirs = await ask()
      // What the answer took to come is nobody's error.
      const off = theirs < before ? before - theirs : Math.max(0, theirs - systemClock.now())
      clocks.push({ whose, off })
    }

    await look('database', async () => await lookAtDatabase(config, compare, look))
    await look('redis', async () => await lookAtRedis(config, compare))
    await look('smtp', async () => await lookAtMail(config))
    await look('clock', async () => clockVerdict(clocks))
    io.print(failures === 0 ? 'all passed' : `${failures} failed`)
    return failures === 0 ? 0 : 1
  }
}

function configuration (io: Io): Config | undefined {
  try {
    const config = readConfig(io.env)
    const names = config.tenants.map(tenant => tenant.id).join(', ')
    io.print(`passed  configuration: ${config.tenants.length === 1 ? 'tenant' : 'tenants'} ${names}`)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const mistake of error.mistakes) io.print(`failed  configuration: ${mistake}`)
    io.print(`${error.mistakes.length} failed; the rest is looked at when these are mended`)
    return undefined
  }
}

async function lookAtDatabase (
  config: Config,
  compare: (whose: string, ask: () => Promise<number>) => Promise<void>,
  look: (what: string, find: Look) => Promise<void>
): Promise<string> {
  const database = await openFrom(config)
  try {
    const waiting = await database.pending()
      .catch((error: unknown) => { throw new Error(databaseAdvice(error), { cause: error }) })
    await checkIdentity(database, config.databaseId)
    if (waiting.length > 0) {
      throw new Error(`the schema is not up to date (${waiting.join(', ')}): run "postern migrate"`)
    }
    await look('key ring', async () => await lookAtKeys(config, database))
    const found = `its schema is up to date${config.databaseId === undefined ? '' : ', and its id is that of POSTERN_DATABASE_ID'}`
    if (database.dialect === 'sqlite') return `SQLite, ${found}; one process only`
    await compare('PostgreSQL', async () => {
      const { rows: [row] } = await sql<{ now: string }>`
        select (extract(epoch from clock_timestamp()) * 1000)::bigint::text as now`.execute(database.db)
      return Number(row?.now)
    })
    return `PostgreSQL, ${found}`
  } finally {
    await database.close()
  }
}

/** What to do, by the code of the driver or of PostgreSQL. */
function databaseAdvice (error: unknown): string {
  const said = messageOf(error)
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (/^28/.test(code)) return `${said}: check user and password in POSTERN_DATABASE, percent-encoded`
  if (code === '3D000') return `${said}: create it, or check the name in POSTERN_DATABASE`
  if (UNREACHABLE.test(code)) return `${said}: check that it runs, host and port in POSTERN_DATABASE, and what may leave this network`
  return `${said}: check POSTERN_DATABASE`
}

/** What to do about a Redis that does not let us in; what it does wrong says so itself. */
function redisAdvice (error: unknown): string {
  const said = messageOf(error)
  if (/WRONGPASS|NOAUTH|NOPERM/.test(said)) return `${said}: check user and password in POSTERN_REDIS, percent-encoded`
  return UNREACHABLE.test(said) ? `${said}: check that it runs, host and port in POSTERN_REDIS, and what may leave this network` : said
}

async function lookAtKeys (config: Config, database: Database): Promise<string> {
  await checkKeys(database, config, createSealer(config), systemClock.now())
  const [first, ...others] = config.encryptionKeys.map(key => key.id)
  const older = others.length === 0 ? '' : `, ${others.join(', ')} still open what they sealed`
  return `everything in the database can be opened; ${first ?? ''} seals${older}`
}

async function lookAtRedis (
  config: Config,
  compare: (whose: string, ask: () => Promise<number>) => Promise<void>
): Promise<string> {
  if (config.redis === undefined) return 'not configured; motion is kept in the process, which must be the only one'
  const { client, close } = await connectRedis(config.redis)
    .catch((error: unknown) => { throw new Error(redisAdvice(error), { cause: error }) })
  try {
    await compare('Redis', async () => {
      const [seconds, micros] = await client.time()
      return Number(seconds) * 1000 + Number(micros) / 1000
    })
    return 'answers, and its policy drops nothing'
  } finally {
    close()
  }
}

async function lookAtMail (config: Config): Promise<string> {
  if (config.smtp === undefined) return 'not configured; e-mail login verification is not offered and notices are not mailed'
  const transport = openTransport(config.smtp, config.mailFrom, 1)
  try {
    const found = await transport.check()
    if (found.delivery !== 'sent') throw new Error(mailAdvice(found))
    return config.smtp.login === undefined ? 'answers; no login is configured' : 'answers, and the login is accepted'
  } finally {
    transport.close()
  }
}

/** What to do, by the code of the failure; the server's own words may hold addresses and are not shown. */
function mailAdvice ({ why: { code, cause, reply } }: Exclude<Delivery, { delivery: 'sent' }>): string {
  const seen = [code, cause, reply].filter(part => part !== undefined).join(' ')
  switch (code) {
    case 'EAUTH': return `the login is refused (${seen}): check user and password in POSTERN_SMTP, percent-encoded`
    case 'ETLS': return `TLS did not come about (${seen}): check POSTERN_SMTP_TLS and POSTERN_SMTP_CA`
    case 'EDNS': return `the host is not found (${seen}): check POSTERN_SMTP`
    default: return `it cannot be reached or trusted (${seen}): check host and port in POSTERN_SMTP, POSTERN_SMTP_CA, and what may leave this network`
  }
}

/** Codes are counted by the clock; replicas and the database must agree on it. */
function clockVerdict (clocks: readonly { readonly whose: string, readonly off: number }[]): string {
  const wrong = clocks.filter(({ off }) => off > CLOCK_OFF_MS)
  if (wrong.length > 0) {
    throw new Error(`${wrong.map(({ whose, off }) => `${whose} is ${Math.round(off / 1000)} s off this machine's`).join(', ')}: ` +
      'right codes are refused when clocks differ; set both by NTP')
  }
  return clocks.length === 0
    ? 'there is no other clock to compare with; keep this machine on NTP'
    : `agrees with ${clocks.map(({ whose }) => whose).join(' and ')}`
}
