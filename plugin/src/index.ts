// The Fastify plugin: options, hooks, what requests and replies learn. The whole public surface of fastify-postern.

import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import type { LoggedIn, LoggedOut, PosternState, RouteRule } from './model.ts'
import { parseOptions, refusedTrustProxy, type PosternOptions } from './options.ts'
import { INSIDE } from './inside.ts'
import { createPostern } from './postern.ts'
import type { Report } from './report.ts'

export type { LoggedIn, LoggedOut, PosternOptions, PosternState, Report, RouteRule }
export type { Denied, DeniedAnswer } from './options.ts'
export type { Identity, Identify } from './model.ts'
export { printedReport } from './report.ts'

export interface CredentialsChangedOptions {
  /** The request whose session made the change and may go on. */
  readonly keep?: FastifyRequest | undefined
}

declare module 'fastify' {
  interface FastifyRequest {
    /** What the gate found out about who asks. */
    readonly postern: PosternState
  }
  interface FastifyReply {
    /**
     * Asks for a fresh verification from within a handler. Rejects after the answer was sent, so nothing after it
     * runs.
     */
    posternStepUp: (ask?: { readonly maxAge?: number; readonly action?: string }) => Promise<void>
    /**
     * The console gave this login another session id: what it passed moves along. Call it before the answer is sent.
     * `kind` is that of both ids; without it, the one that `identify` returned for this request, else `cookie`.
     */
    posternRotate: (oldSession: string, newSession: string, options?: { readonly kind?: string }) => Promise<void>
    /** Log-out: what this session passed ends everywhere. */
    posternLogout: () => Promise<void>
  }
  interface FastifyInstance {
    readonly postern: {
      /**
       * The password was changed or reset: every verification of the subject ends, but that of `keep`. Rejects while
       * the service does not answer.
       */
      readonly credentialsChanged: (subject: string, options?: CredentialsChangedOptions) => Promise<void>
      /** The service's stream of changes is heard, so that an ended verification is known within a second. */
      readonly live: () => boolean
    }
    /** Every route with what it asks for. */
    posternReport: () => Report
  }
  interface FastifyContextConfig {
    postern?: RouteRule
  }
}

// The one narrowing of this boundary: Fastify keeps what it was made with under a symbol, and tells nobody.
function trustProxyOf (app: FastifyInstance): unknown {
  for (let scope: object | null = app; scope !== null; scope = Object.getPrototypeOf(scope)) {
    const symbol = Object.getOwnPropertySymbols(scope).find(one => one.description === 'fastify.options')
    if (symbol !== undefined) return (Reflect.get(scope, symbol) as { readonly trustProxy?: unknown }).trustProxy
  }
  return undefined
}

async function postern (app: FastifyInstance, options: PosternOptions): Promise<void> {
  const settings = parseOptions(options, Date.now())
  const wrong = refusedTrustProxy(trustProxyOf(app))
  if (wrong !== undefined) throw new Error(wrong)
  const gate = createPostern({
    app,
    settings,
    now: () => performance.now(),
    today: () => Date.now()
  })

  app.decorateRequest('postern', {
    getter (this: FastifyRequest) {
      return gate.stateOf(this)
    }
  })
  app.decorateReply('posternStepUp', async function (this: FastifyReply, ask) {
    await gate.askStepUp(this, ask ?? {})
  })
  app.decorateReply('posternRotate', async function (this: FastifyReply, oldSession, newSession, options) {
    await gate.rotate(this.request, oldSession, newSession, options)
  })
  app.decorateReply('posternLogout', async function (this: FastifyReply) {
    await gate.logout(this.request)
  })
  app.decorate('postern', { credentialsChanged: gate.credentialsChanged, live: gate.live })
  app.decorate('posternReport', gate.report)
  app.decorate(INSIDE, gate.inside)

  app.addHook('onRoute', (route: RouteOptions) => {
    gate.routeAdded(route)
  })
  app.addHook('preParsing', gate.hooks.posternGate)
  app.addHook('preValidation', gate.hooks.posternCode)
  // For routes that stood before the plugin, and for the 404 handler; the others get it after their own hooks.
  app.addHook('preHandler', gate.hooks.posternLateIdentity)
  app.addHook('onReady', async () => {
    await gate.ready()
  })
  app.addHook('onClose', async () => {
    await gate.close()
  })
  await app.register(gate.routes, { prefix: settings.prefix })
}

export default fp(postern, { fastify: '5.x', name: 'postern' })
