// The smallest console with Postern: one register, and a word on the routes that need one.
// TENANT_KEY=pk_… PASSWORD=… node --import tsx examples/minimal/server.ts

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import session from '@fastify/session'
import fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import postern from 'fastify-postern'

declare module 'fastify' {
  interface Session {
    userId?: string
  }
}

export interface User {
  readonly id: string
  readonly password: string
  email: string
}

export interface MinimalOptions {
  /** Where the 2FA service listens, and this console's key to it. */
  readonly service: string
  readonly tenantKey: string
  /** This console as browsers see it. */
  readonly publicOrigin: string
  /** By user id. */
  readonly users: ReadonlyMap<string, User>
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

export async function buildServer (
  { service, tenantKey, publicOrigin, users }: MinimalOptions,
  server: FastifyServerOptions = {}
): Promise<FastifyInstance> {
  const app = fastify(server)
  await app.register(cookie)
  await app.register(formbody)
  await app.register(session, {
    secret: randomBytes(32).toString('hex'),
    cookieName: 'sessionId',
    saveUninitialized: false,
    cookie: { path: '/', httpOnly: true, sameSite: 'lax', secure: publicOrigin.startsWith('https:') }
  })

  // --8<-- [start:readme]
  await app.register(postern, {
    service,
    tenantKey,
    publicOrigin,
    credentials: { cookies: ['sessionId'] },
    identify: ({ session: { userId, sessionId } }) => userId === undefined
      ? null
      : { subject: userId, session: sessionId, kind: 'cookie', email: users.get(userId)?.email }
  })

  // Passes without 2FA: whoever logs in or out has not verified yet.
  const open = { config: { postern: { public: true } } }
  // Asks for a fresh code, however long ago the login was verified.
  const sensitive = { config: { postern: { stepUp: { action: 'change your e-mail address' } } } }
  // --8<-- [end:readme]

  const userOf = (userId: string | undefined): User | undefined => users.get(userId ?? '')

  app.get('/login', open, (_request, reply) => reply.type('text/html').send(`<!doctype html><title>Log in</title>
    <form method="post"><input name="name"><input name="password" type="password"><button>Log in</button></form>`))

  app.post<{ Body: { name: string, password: string } }>('/login', { ...open, schema: { body: LOGIN } }, async (request, reply) => {
    const user = users.get(request.body.name)
    // A real console keeps slow hashes; this one has its password from whoever starts it.
    if (user === undefined || !timingSafeEqual(digest(user.password), digest(request.body.password))) {
      return reply.code(401).send({ error: 'Wrong name or password' })
    }
    // A session that existed before the password was typed may be known to somebody else.
    await request.session.regenerate()
    request.session.userId = user.id
    return reply.redirect('/', 303)
  })

  app.post('/logout', open, async (request, reply) => {
    await reply.posternLogout()
    await request.session.destroy()
    return reply.redirect('/login', 303)
  })

  app.get('/', (request, reply) => {
    const user = userOf(request.session.userId)
    return user === undefined ? reply.redirect('/login', 303) : { user: user.id, email: user.email, '2fa': request.postern }
  })

  app.post<{ Body: { email: string } }>('/email', { ...sensitive, schema: { body: EMAIL } }, (request, reply) => {
    const user = userOf(request.session.userId)
    if (user === undefined) return reply.code(401).send({ error: 'Log in first' })
    user.email = request.body.email
    return reply.redirect('/', 303)
  })

  return app
}

const text = { type: 'string', minLength: 1, maxLength: 254 }
const LOGIN = { type: 'object', required: ['name', 'password'], properties: { name: text, password: text } }
const EMAIL = { type: 'object', required: ['email'], properties: { email: text } }

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { TENANT_KEY: tenantKey = '', PASSWORD: password } = process.env
  if (password === undefined || password === '') throw new Error('Choose a password for ada: PASSWORD=…')
  const users = new Map([['ada', { id: 'ada', password, email: 'ada@console.example' }]])
  const publicOrigin = 'http://localhost:3000'
  const app = await buildServer({ service: 'http://127.0.0.1:7070', tenantKey, publicOrigin, users })
  await app.listen({ host: '127.0.0.1', port: 3000 })
  process.stdout.write(`${publicOrigin} is open for ada; 2FA is at ${publicOrigin}/2fa/settings\n`)
}
