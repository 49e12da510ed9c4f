// The two ways in front of a console, with the real service behind: a server that mounts the plugin, and the gateway in
// front of a server that knows nothing of 2FA. Attacks go through both.

import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import { Kysely, sql } from 'kysely'
import { browserName, sessionName } from '../../plugin/src/binding.ts'
import { sqliteDialect } from '../../service/src/adapters/sqlite.ts'
import { binding, cookies, identifyBySid, lines, raw, startConsole, type Answered } from './console.ts'
import { served, startGateway, startUpstream } from './gateway.ts'
import { startService, type Service, type StartOptions, type Teardown, type WireBy } from './service.ts'

/** The console as browsers know it. */
export const ORIGIN = 'http://127.0.0.1:1'
export const DOCUMENT = ['Accept: text/html', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin']
export const FORM = [...DOCUMENT, 'Content-Type: application/x-www-form-urlencoded']
export const OWN_FORM = [...FORM, `Origin: ${ORIGIN}`]
/** The browser that requests come from unless another is named. */
export const BROWSER = binding('mine')

export interface Door {
  readonly name: string
  readonly service: Service
  readonly app: FastifyInstance
  readonly port: number
  /** What reached the console's own routes, as `METHOD /path`. */
  readonly reached: () => readonly string[]
  readonly ask: (method: string, target: string, headers?: readonly string[], body?: string) => Promise<Answered>
  /** The service's database. */
  readonly file: string
  /** Everything in it, as text. */
  readonly kept: () => Promise<string>
}

export interface DoorOptions extends StartOptions {
  readonly server?: FastifyServerOptions
  /** Proxies whose word about the client is taken. */
  readonly trusted?: string
}

/** Sessions are `<user>.<anything>`. Of those called `mute…` the console knows no address. */
const addressOf = (user: string): string | null => user.startsWith('mute') ? null : `${user}@console.example`

export const who = (sid: string, browser = BROWSER): WireBy =>
  ({ subject: sid.split('.')[0] ?? '', session: sessionName('cookie', sid), browser: browserName(browser) })

/** The header line of a session in this browser. */
export const as = (sid: string, browser = BROWSER): string => cookies(sid, browser)

async function backend (t: Teardown & { readonly testdir: () => string }, options: DoorOptions) {
  const file = `${t.testdir()}/postern.db`
  const service = await startService(t, { ...options, database: `sqlite:${file}` })
  const url = await served(service)
  service.app.start()
  const database = new Kysely<Record<string, unknown>>({ dialect: sqliteDialect(file) })
  t.teardown(async () => { await database.destroy() })
  const kept = async (): Promise<string> => {
    const tables = await database.introspection.getTables()
    const all: unknown[] = []
    // The lease is renewed by time alone.
    for (const { name } of tables.filter(table => table.name !== 'lease')) {
      const { rows } = await sql`select * from ${sql.table(name)}`.execute(database)
      all.push([name, rows])
    }
    return JSON.stringify(all)
  }
  return { service, url, file, kept }
}

const asking = (port: number): Door['ask'] => async (method, target, headers = [], body = '') =>
  await raw(port, lines(method, target, headers, body), 30_000)

type DoorTest = Teardown & { readonly testdir: () => string }

export async function mounted (t: DoorTest, options: DoorOptions = {}): Promise<Door> {
  const { service, url, file, kept } = await backend(t, options)
  const { app, hits, port } = await startConsole(t, {
    service: { url, tenantKey: service.keys.gate.key },
    server: options.trusted === undefined ? {} : { trustProxy: options.trusted },
    postern: {
      timeoutMs: 10_000,
      identify: request => {
        const identity = identifyBySid(request)
        if (identity === null || identity.subject === null) return identity
        return { ...identity, email: addressOf(identity.subject) }
      }
    }
  })
  return { name: 'mounted', service, app, port, file, kept, ask: asking(port), reached: () => hits.map(one => `${one.method} ${one.url}`) }
}

export async function gateway (t: DoorTest, options: DoorOptions = {}): Promise<Door> {
  const { service, url, file, kept } = await backend(t, options)
  const upstream = await startUpstream(t, (request, response) => {
    const user = /(?:^|; )sid=(\w+)\./.exec(request.headers.cookie ?? '')?.[1]
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(request.url === '/api/me' && user !== undefined ? { id: user, email: addressOf(user) } : {}))
  })
  const { app, port } = await startGateway(t, {
    upstream: upstream.url,
    service: url,
    key: service.keys.gate.key,
    preset: 'generic',
    env: {
      POSTERN_GATEWAY_GENERIC_COOKIE: 'sid',
      POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me',
      POSTERN_GATEWAY_GENERIC_EMAIL: 'email',
      POSTERN_GATEWAY_STEP_UP_PATTERNS: '/settings,/export 0',
      ...(options.trusted === undefined ? {} : { POSTERN_GATEWAY_TRUSTED_PROXIES: options.trusted })
    }
  })
  const reached = (): readonly string[] => upstream.paths().filter(path => path !== 'GET /api/me')
  return { name: 'gateway', service, app, port, file, kept, ask: asking(port), reached }
}

export const DOORS = [['mounted', mounted], ['gateway', gateway]] as const

/** The hidden fields of a page's first form that has any, or of the one that posts to `action`. */
export function fieldsOf (page: Answered, action = ''): URLSearchParams {
  const fields = new URLSearchParams()
  const from = action === '' ? 0 : page.body.indexOf(`action="${action}`)
  for (const [input] of page.body.slice(Math.max(0, from)).matchAll(/<input[^>]*type="hidden"[^>]*>|<\/form>/g)) {
    if (input === '</form>') {
      if (fields.size > 0) break
      continue
    }
    fields.set(/name="([^"]*)"/.exec(input)?.[1] ?? '', /value="([^"]*)"/.exec(input)?.[1] ?? '')
  }
  return fields
}
