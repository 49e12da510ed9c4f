// Puts the parts of the plugin together: what hooks, routes, handlers and the gateway use of them.

import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { createAssurances } from './assurances.ts'
import { createBinding, sessionName } from './binding.ts'
import { createAnswering } from './carry.ts'
import { createClient } from './client.ts'
import { createCredentials } from './credentials.ts'
import { createGate } from './gate.ts'
import { createHooks } from './hooks.ts'
import type { Inside } from './inside.ts'
import type { About, Clock, Who } from './model.ts'
import { checkedMaxAge, type Settings } from './options.ts'
import { createPageCookie } from './page-cookie.ts'
import { createOwnPages } from './own-pages.ts'
import type { Signing } from './page-answers.ts'
import type { Releasing } from './page-proxy.ts'
import { ownRoutes } from './pages.ts'
import { listRoutes, outOfReach, reportedRoute, type Report, type ReportedRoute } from './report.ts'
import { createRules } from './rules.ts'
import { createSeal } from './seal.ts'
import { createSessionEnds } from './session-ends.ts'
import { createSockets } from './sockets.ts'
import { createStepUp } from './step-up.ts'
import { createStepUpPasses } from './step-up-passes.ts'

export interface PosternParts {
  readonly app: FastifyInstance
  readonly settings: Settings
  readonly now: Clock
  /** Epoch milliseconds, for the end of mode `off` only. */
  readonly today: Clock
}

export function createPostern ({ app, settings, now, today }: PosternParts) {
  const client = createClient({ ...settings, now })
  const binding = createBinding(settings.tenant, settings.insecureCookies)
  const seal = createSeal(settings.sealKeys, settings.tenantKey)
  const pageCookie = createPageCookie({ ...settings, seal, insecure: settings.insecureCookies, today })
  const assurances = createAssurances({ client, now, size: settings.cacheSize, graceMs: settings.graceMs })
  const named = settings.cookies.length + settings.headers.length + settings.query.length > 0
  const ends = createSessionEnds({ client, assurances, namesCredentials: named })
  const passes = createStepUpPasses(now)
  const pages = createOwnPages(settings.prefix)
  const answering = createAnswering({ settings, client, assurances, binding, pages, about })
  const stepUp = createStepUp({ client, assurances, passes, about, now, observing: settings.mode.mode === 'observe' })
  const rules = createRules(settings)
  const gate = createGate({
    identify: settings.identify,
    credentials: createCredentials(settings, binding.name),
    rules,
    assurances,
    ends,
    stepUp: stepUp.beforeBody,
    methods: new Set(app.supportedMethods)
  })
  const sockets = createSockets({ app, assurances, now })
  const releasing: Releasing = { unsealed: () => undefined }
  const signing: Signing = {}
  const added: ReportedRoute[] = []

  const isOff = (): boolean => settings.mode.mode === 'off' && today() < settings.mode.until

  function about (request: FastifyRequest, { identity }: Who): About {
    const { email, displayName, locale } = identity
    const agent = request.headers['user-agent']
    return {
      ...(email === undefined ? {} : { email: email === null || email.length > 254 ? null : email }),
      ...(displayName === undefined ? {} : { display_name: displayName.slice(0, 255) }),
      ...(locale === undefined ? {} : { locale: locale.slice(0, 35) }),
      address: request.ip.slice(0, 64),
      ...(agent === undefined ? {} : { user_agent: agent.slice(0, 512) })
    }
  }

  const hooks = createHooks({ settings, gate, stepUp, answering, sockets, now, isOff })
  const { passageOf, settle } = hooks

  const inside: Inside = {
    client,
    assurances,
    binding,
    pageCookie,
    tokenInScript: settings.tokenInScript,
    seal,
    answering,
    about,
    pages,
    passageOf: hooks.passageOfRaw,
    addressOf: raw => hooks.passageOfRaw(raw)?.request.ip ?? raw.socket.remoteAddress ?? '',
    releasedBy: unsealed => { releasing.unsealed = unsealed },
    signedInBy: signIn => { signing.in = signIn },
    enforcing: () => !isOff() && settings.mode.mode !== 'observe'
  }

  return {
    inside,
    hooks,
    stateOf: hooks.stateOf,
    live: assurances.live,

    askStepUp: async (
      reply: FastifyReply,
      ask: { readonly maxAge?: number; readonly action?: string }
    ): Promise<void> => {
      const passage = passageOf(reply.request)
      if (isOff()) return
      const decision = await stepUp.ask(passage, {
        maxAge: checkedMaxAge(ask.maxAge, 'posternStepUp()'),
        action: ask.action
      })
      await new Promise<void>((resolve, reject) => {
        settle(passage, decision, reply, resolve, reject)
      })
    },

    rotate: async (
      request: FastifyRequest,
      from: string,
      to: string,
      given: { readonly kind?: string } = {}
    ): Promise<void> => {
      const kind = given.kind ?? passageOf(request).identity?.kind ?? 'cookie'
      const moved = await client.move(sessionName(kind, from), sessionName(kind, to))
      assurances.forgetSession(kind, from)
      assurances.forgetSession(kind, to)
      if (moved.outcome !== 'answer') { request.log.warn('postern: the verification did not move to the new session id; it will be asked for again') }
    },

    logout: async (request: FastifyRequest): Promise<void> => {
      const { identity } = passageOf(request)
      if (identity !== null && !(await ends.end(identity.kind, identity.session))) { request.log.warn('postern: the service did not answer at log-out; the session cannot pass here before it did') }
    },

    credentialsChanged: async (
      subject: string,
      { keep }: { readonly keep?: FastifyRequest | undefined } = {}
    ): Promise<void> => {
      assurances.forgetSubject(subject)
      const who = keep === undefined ? undefined : passageOf(keep).who
      const told = await client.credentialsChanged(
        subject,
        who?.identity.subject === subject ? assurances.by(who) : undefined
      )
      assurances.forgetSubject(subject)
      if (told.outcome !== 'answer') { throw new Error('postern: the service was not told that the credentials changed; try again') }
    },

    routeAdded: (route: RouteOptions): void => {
      const { method, url } = route
      const config = route.config ?? {}
      // After the route's own hooks: a session that is loaded that late must not pass as nobody.
      const others = [route.preHandler ?? []].flat().filter(hook => hook !== hooks.posternLateIdentity)
      route.preHandler = [...others, hooks.posternLateIdentity]
      for (const one of [method].flat()) added.push(reportedRoute(one, url, rules.declared(one, url, config)))
    },

    routes: async (scope: FastifyInstance): Promise<void> => {
      await ownRoutes({
        settings,
        client,
        assurances,
        binding,
        pageCookie,
        answering,
        pages,
        passes,
        releasing,
        signing,
        passageOf,
        about,
        notes
      })(scope)
    },

    report: (): Report => {
      const known = new Set(added.map(({ method, url }) => `${method} ${url}`))
      const unseen = listRoutes(app)
        .flatMap(({ methods, url }) =>
          methods
            .filter(method => !known.has(`${method} ${url}`))
            .map((method): ReportedRoute => ({ method, url, rule: 'unknown' }))
        )
      return {
        mode: isOff() ? 'off' : settings.mode.mode === 'off' ? 'enforce' : settings.mode.mode,
        routes: [...added, ...unseen],
        warnings: warnings(),
        observed: hooks.observed()
      }
    },

    ready: async (): Promise<void> => {
      const sentence = outOfReach(listRoutes(app))
      if (sentence !== undefined) throw new Error(sentence)
      if (
        !settings.allowMiddleware &&
        (app.hasPlugin('@fastify/middie') || app.hasPlugin('@fastify/express') || app.hasDecorator('use'))
      ) {
        throw new Error(
          'postern cannot start: @fastify/middie or @fastify/express runs middleware before any gate can; move it behind Fastify routes, or set "allowMiddleware: true" if none of it answers requests.'
        )
      }
      for (const warning of warnings()) app.log.warn(warning)
      assurances.start()
      sockets.start()
    },

    close: async (): Promise<void> => {
      sockets.stop()
      await assurances.stop()
    },

    sockets
  }

  function notes (): readonly string[] {
    return [
      ...(settings.insecureCookies ? ['insecure_cookies'] : []),
      ...(settings.mode.mode === 'observe' ? ['observe'] : [])
    ]
  }

  function warnings (): readonly string[] {
    return [
      ...(settings.insecureCookies
        ? ['postern: "insecureCookies" is on: anybody on the network can read the browser binding; use HTTPS']
        : []),
      ...(settings.mode.mode === 'observe' ? ['postern: mode is "observe": nothing is refused'] : []),
      ...(isOff() && settings.mode.mode === 'off'
        ? [
            `postern: mode is "off" until ${new Date(settings.mode.until).toISOString()}: nobody is asked for a second factor`
          ]
        : []),
      ...(named
        ? []
        : ['postern: "credentials" names no cookie or header: duplicates of the console\'s own cannot be seen'])
    ]
  }
}
