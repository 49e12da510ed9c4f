// A single-page console that keeps its token in script: Postern's pages take it over once, by a cookie of theirs.
// TENANT_KEY=pk_… PASSWORD=… node --import tsx examples/token-console/server.ts

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import postern from 'fastify-postern'

export interface User {
  readonly id: string
  readonly password: string
  displayName: string
}

export interface TokenConsoleOptions {
  /** Where the 2FA service listens, and this console's key to it. */
  readonly service: string
  readonly tenantKey: string
  /** This console as browsers see it. */
  readonly publicOrigin: string
  /** By user id. */
  readonly users: ReadonlyMap<string, User>
}

interface Login {
  readonly user: User
  /** Names the login towards Postern; the token itself stays here. */
  readonly session: string
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Token console</title>
<main id="app"></main><script src="/2fa/postern.js"></script><script src="/app.js" type="module"></script></html>`
const POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

export async function buildServer (
  { service, tenantKey, publicOrigin, users }: TokenConsoleOptions,
  server: FastifyServerOptions = {}
): Promise<FastifyInstance> {
  const app = fastify(server)
  const logins = new Map<string, Login>()
  const tokenOf = (request: FastifyRequest): string => /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
  const loginOf = (request: FastifyRequest): Login | undefined => logins.get(tokenOf(request))

  await app.register(postern, {
    service,
    tenantKey,
    publicOrigin,
    // Where app.js keeps the token, so that the pages can ask for it once.
    tokenInScript: { key: 'token' },
    identify: request => {
      const login = loginOf(request)
      return login === undefined ? null : { subject: login.user.id, session: login.session, kind: 'bearer' }
    }
  })

  const open = { config: { postern: { public: true } } }
  const sensitive = { config: { postern: { stepUp: { action: 'change your display name' } } } }
  const script = readFileSync(new URL('app.js', import.meta.url))

  app.get('/', open, (_request, reply) => reply.type('text/html').header('content-security-policy', POLICY).send(PAGE))
  app.get('/app.js', open, (_request, reply) => reply.type('text/javascript').send(script))

  app.post<{ Body: { name: string, password: string } }>('/api/login', { ...open, schema: { body: LOGIN } }, (request, reply) => {
    const user = users.get(request.body.name)
    // A real console keeps slow hashes; this one has its password from whoever starts it.
    if (user === undefined || !timingSafeEqual(digest(user.password), digest(request.body.password))) {
      return reply.code(401).send({ error: 'Wrong name or password' })
    }
    const token = randomBytes(24).toString('base64url')
    logins.set(token, { user, session: randomBytes(16).toString('base64url') })
    return reply.send({ token })
  })

  app.post('/api/logout', open, async (request, reply) => {
    await reply.posternLogout()
    logins.delete(tokenOf(request))
    return reply.code(204).send()
  })

  app.get('/api/me', (request, reply) => {
    const login = loginOf(request)
    if (login === undefined) return reply.code(401).send({ error: 'Log in first' })
    return reply.send({ id: login.user.id, displayName: login.user.displayName, totp: request.postern.totp })
  })

  app.put<{ Body: { displayName: string } }>('/api/me', { ...sensitive, schema: { body: PROFILE } }, (request, reply) => {
    const login = loginOf(request)
    if (login === undefined) return reply.code(401).send({ error: 'Log in first' })
    login.user.displayName = request.body.displayName
    return reply.send({ displayName: login.user.displayName })
  })

  return app
}

const text = { type: 'string', minLength: 1, maxLength: 64 }
const LOGIN = { type: 'object', required: ['name', 'password'], properties: { name: text, password: text } }
const PROFILE = { type: 'object', required: ['displayName'], properties: { displayName: text } }

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { TENANT_KEY: tenantKey = '', PASSWORD: password } = process.env
  if (password === undefined || password === '') throw new Error('Choose a password for ada: PASSWORD=…')
  const users = new Map([['ada', { id: 'ada', password, displayName: 'Ada' }]])
  const publicOrigin = 'http://localhost:3000'
  const app = await buildServer({ service: 'http://127.0.0.1:7070', tenantKey, publicOrigin, users })
  await app.listen({ host: '127.0.0.1', port: 3000 })
  process.stdout.write(`${publicOrigin} is open for ada; 2FA is at ${publicOrigin}/2fa/settings\n`)
}
