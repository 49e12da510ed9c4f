// A console that mounts the plugin and records every handler that ran: the oracle of gate tests is this log.

import { createHash } from 'node:crypto'
import { connect, type AddressInfo } from 'node:net'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import Fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import postern, { type Identity, type PosternOptions } from '../../plugin/src/index.ts'
import type { Teardown } from './service.ts'

export interface Hit {
  readonly route: string
  readonly method: string
  readonly url: string
  readonly body: unknown
  readonly headers: Record<string, unknown>
}

export interface ConsoleOptions {
  readonly service: { readonly url: string; readonly tenantKey: string }
  readonly server?: FastifyServerOptions
  readonly postern?: Partial<PosternOptions>
  /** Before the plugin. */
  readonly before?: (app: FastifyInstance) => Promise<void> | void
  /** After the plugin and the console's own routes. */
  readonly after?: (
    app: FastifyInstance,
    hit: (route: string) => (request: FastifyRequest) => unknown
  ) => Promise<void> | void
  readonly listen?: boolean
}

/** Sessions are `sid=<user>.<anything>`; `sid=-.x` is a session in which nobody is logged in. */
export function identifyBySid (request: FastifyRequest): Identity | null {
  const session = request.cookies?.['sid']
  if (session === undefined) return null
  const user = session.split('.')[0] ?? ''
  return user === '-' ? { subject: null, session, kind: 'cookie' } : { subject: user, session, kind: 'cookie' }
}

export async function startConsole (t: Teardown, options: ConsoleOptions) {
  const hits: Hit[] = []
  const hit =
    (route: string) =>
      (request: FastifyRequest): unknown => {
        hits.push({
          route,
          method: request.method,
          url: request.raw.url ?? '',
          body: request.body,
          headers: { ...request.headers }
        })
        return { route, postern: request.postern }
      }
  const app = Fastify({ forceCloseConnections: true, ...options.server })
  await app.register(cookie)
  await app.register(formbody)
  await options.before?.(app)
  // The origin is only known once we listen; any loopback one does for cookies and origin checks in tests.
  const publicOrigin = options.postern?.publicOrigin ?? 'http://127.0.0.1:1'
  await app.register(postern, {
    service: options.service.url,
    tenantKey: options.service.tenantKey,
    publicOrigin,
    identify: identifyBySid,
    credentials: { cookies: ['sid'] },
    ...options.postern
  })
  app.get('/', { config: { postern: { public: true } } }, hit('home'))
  app.get('/protected', hit('protected'))
  app.post('/protected', hit('protected'))
  app.get('/items/:id', hit('item'))
  app.get('/settings', { config: { postern: { stepUp: true } } }, hit('sensitive'))
  app.post('/settings', { config: { postern: { stepUp: { maxAge: 300 } } } }, hit('sensitive'))
  app.get('/export', { config: { postern: { stepUp: { maxAge: 0 } } } }, hit('sensitive'))
  app.post('/export', { config: { postern: { stepUp: { maxAge: 0 } } } }, hit('sensitive'))
  app.post('/logout', async (request, reply) => {
    await reply.posternLogout()
    return hit('logout')(request)
  })
  app.get('/inside', async (request, reply) => {
    await reply.posternStepUp({ action: 'look inside' })
    return hit('inside')(request)
  })
  await options.after?.(app, hit)
  if (options.listen !== false) await app.listen({ port: 0, host: '127.0.0.1' })
  else await app.ready()
  t.teardown(async () => {
    await app.close()
  })
  const port = options.listen === false ? 0 : (app.server.address() as AddressInfo).port
  return { app, hits, port, publicOrigin, url: `http://127.0.0.1:${port}`, routes: () => hits.map(one => one.route) }
}

export type Console = Awaited<ReturnType<typeof startConsole>>

/** The name of a tenant's binding cookie. */
export function bindingName (tenant = 't1', insecure = false): string {
  return `${insecure ? '' : '__Host-'}postern-${createHash('sha256').update(tenant).digest('hex').slice(0, 8)}`
}

export interface Answered {
  readonly status: number
  readonly headers: Record<string, string>
  readonly cookies: readonly string[]
  readonly body: string
}

/** Sends bytes as they are and reads one answer: no client library tidies the target or the headers. */
export async function raw (port: number, request: string | Buffer, waitMs = 4000): Promise<Answered> {
  return await new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let text = Buffer.alloc(0)
    const timer = setTimeout(() => {
      socket.destroy()
      resolve(parse(text.toString('latin1')))
    }, waitMs)
    const finish = (): void => {
      clearTimeout(timer)
      resolve(parse(text.toString('latin1')))
    }
    socket.on('connect', () => {
      socket.write(request)
    })
    socket.on('data', data => {
      text = Buffer.concat([text, data])
      const seen = text.toString('latin1')
      const end = seen.indexOf('\r\n\r\n')
      if (/^HTTP\/1\.1 101/.test(seen) && end !== -1) {
        finish()
        socket.destroy()
      }
    })
    socket.on('end', finish)
    socket.on('close', finish)
    socket.on('error', error => {
      if (text.length === 0 && !/ECONNRESET|EPIPE/.test(error.message)) {
        clearTimeout(timer)
        reject(error)
      } else finish()
    })
  })
}

/** A request in raw lines, closed after its answer. */
export function lines (method: string, target: string, headers: readonly string[] = [], body = ''): string {
  const length = body === '' ? [] : [`Content-Length: ${Buffer.byteLength(body)}`]
  return [
    `${method} ${target} HTTP/1.1`,
    'Host: 127.0.0.1',
    'Connection: close',
    ...headers,
    ...length,
    '',
    body
  ].join('\r\n')
}

function parse (text: string): Answered {
  const end = text.indexOf('\r\n\r\n')
  const [first = '', ...rest] = (end === -1 ? text : text.slice(0, end)).split('\r\n')
  const headers: Record<string, string> = {}
  const cookies: string[] = []
  for (const line of rest) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    if (name === 'set-cookie') cookies.push(line.slice(colon + 1).trim())
    headers[name] = line.slice(colon + 1).trim()
  }
  return { status: Number(first.split(' ')[1] ?? 0), headers, cookies, body: end === -1 ? '' : text.slice(end + 4) }
}

/** A binding value of the form that the plugin makes. */
export const binding = (text: string): string => createHash('sha256').update(text).digest('base64url').slice(0, 22)

/** Makes the fake service know this session as verified in this browser. */
export function makeVerified (
  fake: {
    readonly passed: Map<string, { subject: string; browser: string; loginAt: number; stepUpAt: number | null }>
  },
  sid: string,
  browser: string,
  stepUpSecondsAgo?: number,
  kind = 'cookie'
): void {
  const session = createHash('sha256').update(`postern-session\0${kind}\0${sid}`).digest('base64url')
  fake.passed.set(session, {
    subject: sid.split('.')[0] ?? '',
    browser: browser === '' ? 'none' : createHash('sha256').update(`postern-browser\0${browser}`).digest('base64url'),
    loginAt: Date.now(),
    stepUpAt: stepUpSecondsAgo === undefined ? null : Date.now() - stepUpSecondsAgo * 1000
  })
}

/** A Cookie line for a session and, where given, a browser. */
export const cookies = (sid: string, browser?: string): string =>
  `Cookie: sid=${sid}${browser === undefined ? '' : `; ${bindingName()}=${browser}`}`

/** The binding that an answer set. */
export const boundIn = (answer: Answered): string | undefined =>
  answer.cookies.find(one => one.startsWith(`${bindingName()}=`))?.split(';')[0]?.split('=')[1]
