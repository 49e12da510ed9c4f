// The console of `gate`: it looks up the session of every request, and answers a small document. With a service it has
// the plugin in front of it, as built; without, nothing else is different.

import fastify, { LogController, type FastifyInstance } from 'fastify'
import postern from 'fastify-postern'

declare module 'fastify' {
  interface FastifyRequest {
    user: { readonly id: string, readonly session: string } | null
  }
}

export interface Behind {
  readonly service: string
  readonly tenantKey: string
}

export async function createConsole (behind: Behind | undefined): Promise<FastifyInstance> {
  const app = fastify({ logger: true, logController: new LogController({ disableRequestLogging: true }) })
  app.decorateRequest('user', null)
  app.addHook('onRequest', (request, _reply, done) => {
    const [, session = ''] = /(?:^|; )sid=([^;]*)/.exec(request.headers.cookie ?? '') ?? []
    // A session names its user here: a store would cost both sides the same.
    if (session !== '') request.user = { id: session.slice(0, session.indexOf('.')), session }
    done()
  })
  if (behind !== undefined) {
    await app.register(postern, {
      ...behind,
      publicOrigin: 'http://127.0.0.1:1',
      credentials: { cookies: ['sid'] },
      timeoutMs: 10_000,
      identify: ({ user }) => user === null ? null : { subject: user.id, session: user.session, kind: 'cookie' }
    })
  }
  app.get('/devices', {
    schema: { response: { 200: { type: 'object', properties: { user: { type: 'string' }, devices: { type: 'array', items: { type: 'string' } } } } } }
  }, async ({ user }) => ({ user: user?.id ?? '', devices: ['one', 'two', 'three'] }))
  app.get('/cpu', { config: { postern: { public: true } } }, async () => {
    const { user, system } = process.cpuUsage()
    return user + system
  })
  app.get('/live', { config: { postern: { public: true } } }, async () => behind === undefined || app.postern.live())
  return app
}
