// A small console with password login that mounts the plugin: what an existing Fastify server looks like with Postern.

import { readFileSync } from 'node:fs'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import session from '@fastify/session'
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import postern from 'fastify-postern'
import { accountPage, alertNames, devicesPage, errorPage, loginPage } from './pages.ts'
import { openUsers, type User } from './users.ts'

declare module 'fastify' {
  interface Session {
    userId?: string
    passwordVersion?: number
  }
}

export interface ConsoleConfig {
  readonly publicOrigin: string
  readonly sessionSecret: string
  /** The users' file. */
  readonly users: string
  /** Where the 2FA service listens, and this console's key to it. */
  readonly service: string
  readonly tenantKey: string
}

const LOGIN = { type: 'object', required: ['name', 'password'], properties: { name: { type: 'string' }, password: { type: 'string' } } }
const PROFILE = {
  type: 'object',
  required: ['displayName'],
  properties: { displayName: { type: 'string', minLength: 1, maxLength: 100 }, about: { type: 'string', maxLength: 2000, default: '' } }
}
const ALERTS = {
  type: 'object',
  properties: { alerts: { type: 'array', items: { enum: alertNames }, maxItems: alertNames.length, default: [] } }
}
const PASSWORD = {
  type: 'object',
  required: ['current', 'next'],
  properties: { current: { type: 'string' }, next: { type: 'string', minLength: 8, maxLength: 200 } }
}

const SAVED: Readonly<Record<string, string>> = {
  profile: 'Your profile is saved.',
  alerts: 'Your alerts are saved.',
  password: 'Your password is changed. Your other sessions are logged out.'
}

const sheet = readFileSync(new URL('console.css', import.meta.url), 'utf8')

export async function buildConsole (config: ConsoleConfig): Promise<FastifyInstance> {
  const users = openUsers(config.users)
  const { publicOrigin, service, tenantKey } = config
  const app = fastify({ logger: { level: 'info' } })

  await app.register(cookie)
  await app.register(formbody)
  await app.register(session, {
    secret: config.sessionSecret,
    cookieName: 'console-session',
    saveUninitialized: false,
    cookie: { path: '/', httpOnly: true, sameSite: 'lax', secure: publicOrigin.startsWith('https:') }
  })

  const userOf = (request: FastifyRequest): User | undefined => {
    const user = users.get(request.session.userId)
    // A changed password ends the sessions that were opened with the old one.
    return user?.passwordVersion === request.session.passwordVersion ? user : undefined
  }

  await app.register(postern, {
    service,
    tenantKey,
    publicOrigin,
    credentials: { cookies: ['console-session'] },
    identify: request => {
      const user = userOf(request)
      if (user === undefined) return null
      return { subject: user.id, session: request.session.sessionId, kind: 'cookie', email: user.email, displayName: user.name }
    }
  })

  // The console's own protection against posts from other sites; the plugin protects its own pages.
  app.addHook('onRequest', async (request, reply) => {
    if (request.method !== 'POST') return
    const { origin, 'sec-fetch-site': site } = request.headers
    if (origin !== publicOrigin && site !== 'same-origin') return reply.code(403).send({ error: 'Posts from other sites are not accepted' })
  })

  app.setErrorHandler<Error & { statusCode?: number }>((error, request, reply) => {
    const status = error.statusCode ?? 500
    if (status >= 500) request.log.error(error)
    const text = status < 500 ? error.message : 'The console could not do that. Nothing was changed.'
    return reply.code(status).type('text/html').send(errorPage(userOf(request), 'That did not work', text))
  })
  app.setNotFoundHandler((request, reply) => reply.code(404).type('text/html').send(errorPage(userOf(request), 'Not found', 'There is no such page.')))

  const open = { config: { postern: { public: true } } }
  const sensitive = (action: string) => ({ config: { postern: { stepUp: { action } } } })

  app.get('/console.css', open, (request, reply) => reply.type('text/css').header('cache-control', 'max-age=600').send(sheet))

  app.get('/login', open, (request, reply) => userOf(request) === undefined ? reply.type('text/html').send(loginPage(false)) : reply.redirect('/', 303))

  app.post<{ Body: { name: string, password: string } }>('/login', { ...open, schema: { body: LOGIN } }, async (request, reply) => {
    const { name, password } = request.body
    const user = await users.login(name, password)
    if (user === undefined) return reply.code(401).type('text/html').send(loginPage(true, name))
    // A session that existed before the password was typed may be known to somebody else.
    await request.session.regenerate()
    request.session.userId = user.id
    request.session.passwordVersion = user.passwordVersion
    return reply.redirect('/', 303)
  })

  // Public, so that somebody who cannot pass the verification can still leave.
  app.post('/logout', open, async (request, reply) => {
    await reply.posternLogout()
    await request.session.destroy()
    return reply.redirect('/login', 303)
  })

  app.get('/', (request, reply) => {
    const user = userOf(request)
    return user === undefined ? reply.redirect('/login', 303) : reply.type('text/html').send(devicesPage(user))
  })

  app.get('/api/me', async (request, reply) => {
    const user = userOf(request)
    if (user === undefined) return reply.code(401).send({ error: 'Log in first' })
    return { id: user.id, name: user.name, settings: user.settings, postern: request.postern }
  })

  await app.register(async account => {
    // Whoever is not logged in is sent to the log-in page before anything else.
    account.addHook('preHandler', async (request, reply) => userOf(request) === undefined ? reply.redirect('/login', 303) : undefined)
    const me = (request: FastifyRequest): User => userOf(request) ?? unreachable()

    account.get<{ Querystring: { saved?: string } }>('/', (request, reply) => {
      const { saved } = request.query
      const sentence = saved !== undefined && Object.hasOwn(SAVED, saved) ? SAVED[saved] : undefined
      return reply.type('text/html').send(accountPage(me(request), request.postern.totp, sentence))
    })

    account.post<{ Body: { displayName: string, about: string } }>('/profile', { ...sensitive('save your profile'), schema: { body: PROFILE } }, async (request, reply) => {
      const { displayName, about } = request.body
      await users.saveSettings(me(request), { displayName, about })
      return reply.redirect('/account?saved=profile', 303)
    })

    account.post<{ Body: { alerts: string[] } }>('/alerts', { ...sensitive('save your alerts'), schema: { body: ALERTS } }, async (request, reply) => {
      await users.saveSettings(me(request), { alerts: request.body.alerts })
      return reply.redirect('/account?saved=alerts', 303)
    })

    account.post<{ Body: { current: string, next: string } }>('/password', { ...sensitive('change your password'), schema: { body: PASSWORD } }, async (request, reply) => {
      const user = me(request)
      if (await users.login(user.name, request.body.current) === undefined) {
        return reply.code(403).type('text/html').send(errorPage(user, 'That did not work', 'The current password is not right. Nothing was changed.'))
      }
      await users.changePassword(user, request.body.next)
      // Everybody else who verified with the old password has to do so again; this session goes on.
      await app.postern.credentialsChanged(user.id, { keep: request })
      request.session.passwordVersion = user.passwordVersion
      return reply.redirect('/account?saved=password', 303)
    })
  }, { prefix: '/account' })

  return app
}

function unreachable (): never {
  throw new TypeError('an account route ran without a user')
}
