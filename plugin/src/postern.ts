// Puts the gate together and carries its decisions out in Fastify's hooks. Denials throw, after the answer is out.

import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { createAssurances, type Assurances } from './assurances.ts'
import { createBinding, sessionName, type Binding } from './binding.ts'
import { createAnswering, type Answering } from './carry.ts'
import { createClient, type Client } from './client.ts'
import { createCredentials } from './credentials.ts'
import { takeCode } from './forms.ts'
import { createGate, openPassage, refuse, type Decision, type Denial, type Passage } from './gate.ts'
import type { About, Clock, PosternState, Who } from './model.ts'
import { checkedMaxAge, type Settings } from './options.ts'
import { createPageCookie, type PageCookie } from './page-cookie.ts'
import { createOwnPages, type OwnPages } from './own-pages.ts'
import { ownRoutes, type Releasing } from './pages.ts'
import { listRoutes, outOfReach, reportedRoute, type Report, type ReportedRoute } from './report.ts'
import { mediaType, readFormBody, sameOrigin } from './requests.ts'
import { createRules } from './rules.ts'
import { createSessionEnds } from './session-ends.ts'
import { createSockets, type Sockets } from './sockets.ts'
import { createStepUp, takeCodeFromBody } from './step-up.ts'
import { createStepUpPasses } from './step-up-passes.ts'

export interface PosternParts {
  readonly app: FastifyInstance
  readonly settings: Settings
  readonly now: Clock
  /** Epoch milliseconds, for the end of mode `off` only. */
  readonly today: Clock
}

type Done = (error?: Error) => void
type DonePayload = (error?: Error | null, payload?: Readable) => void

// eslint wants no classes: the error that ends a denied request after its answer is out.
function denied (): Error {
  return Object.assign(new Error('postern denied this request; its answer has been sent'), {
    code: 'POSTERN_DENIED',
    statusCode: 403
  })
}

export function createPostern ({ app, settings, now, today }: PosternParts) {
  const client = createClient({ ...settings, now })
  const binding = createBinding(settings.tenant, settings.insecureCookies)
  const pageCookie = createPageCookie({ ...settings, insecure: settings.insecureCookies, today })
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
    methods: new Set(app.supportedMethods),
    now
  })
  const sockets: Sockets = createSockets({ app, assurances, now })
  const releasing: Releasing = { unsealed: () => undefined }
  const passages = new WeakMap<IncomingMessage, Passage>()
  const states = new WeakMap<FastifyRequest, PosternState>()
  const reading = new WeakSet<FastifyRequest>()
  const added: ReportedRoute[] = []
  const observed: Record<string, number> = {}

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

  function passageOf (request: FastifyRequest): Passage {
    const passage = passages.get(request.raw)
    if (passage === undefined) throw new Error('postern: the gate did not see this request')
    return passage
  }

  /** Sends the answer and waits until it is out; what comes after it never runs, whatever hooks do to the answer. */
  async function carryOut (passage: Passage, denial: Denial, reply: FastifyReply): Promise<Error> {
    await answering.carry(passage, denial, reply)
    await new Promise<void>(resolve => {
      reply.then(resolve, () => {
        resolve()
      })
    })
    // A client that hung up counts as answered for Fastify: without this the handler would run.
    if (!reply.sent) reply.hijack()
    return denied()
  }

  function settle (
    passage: Passage,
    decision: Decision,
    reply: FastifyReply,
    passed: () => void,
    refused: (error: Error) => void
  ): void {
    if (decision.decision === 'pass') {
      states.set(passage.request, decision.state)
      return passed()
    }
    if (decision.decision === 'read_body') return refused(new Error('postern: nothing more to read'))
    if (settings.mode.mode === 'observe') {
      const { denial } = decision
      const code = denial.denial === 'refused' || denial.denial === 'unavailable' ? denial.code : denial.denial
      observed[code] = (observed[code] ?? 0) + 1
      passage.request.log.warn({ postern: code }, 'postern would have refused this request')
      states.set(passage.request, OBSERVED)
      return passed()
    }
    carryOut(passage, decision.denial, reply).then(refused, refused)
  }

  /** Session, credentials and login: after every onRequest hook, before any body is read. */
  function posternGate (request: FastifyRequest, reply: FastifyReply, payload: Readable, done: DonePayload): void {
    const upgrade = sockets.upgradeOf(request)
    const passage = openPassage(request, request.raw.url ?? '', upgrade !== undefined)
    passages.set(request.raw, passage)
    // An upgrade ends here: whoever listens for it takes the socket, and no handler runs.
    const go = (): void => {
      if (upgrade === undefined) return done(null, payload)
      reply.hijack()
      sockets.pass(upgrade, passage.rule.rule === 'gated' ? passage.who : undefined)
    }
    if (isOff()) {
      states.set(request, OFF)
      return go()
    }
    const decision = upgrade === undefined ? gate.decide(passage) : decideUpgrade(passage)
    const decided = (one: Decision): void => {
      if (one.decision === 'read_body') readBody(passage, payload, reply, done)
      else settle(passage, one, reply, go, done)
    }
    if (decision instanceof Promise) decision.then(decided).catch(done)
    else decided(decision)
  }

  function decideUpgrade (passage: Passage): Decision | Promise<Decision> {
    const { method, headers: { origin } } = passage.request
    if (method !== 'GET') return refuse(400, 'bad_request', 'an upgrade that is not a GET')
    if (origin !== undefined && !sameOrigin(passage.request, settings.publicOrigin)) { return refuse(403, 'origin_refused', 'a socket from another origin') }
    return gate.decide(passage)
  }

  /** A form is read here, as bytes, so that it can be carried and loses its code before anybody parses it. */
  function readBody (passage: Passage, payload: Readable, reply: FastifyReply, done: DonePayload): void {
    const { request } = passage
    if (mediaType(request) !== 'application/x-www-form-urlencoded') {
      reading.add(request)
      return done(null, payload)
    }
    readFormBody(request, payload)
      .then(async body => {
        if (body === undefined) {
          return settle(
            passage,
            refuse(413, 'form_too_large', 'a form that is too large to be carried through a verification'),
            reply,
            () => {
              done(null, payload)
            },
            done
          )
        }
        const { code, rest } = takeCode(body)
        if (code === null) {
          return settle(
            passage,
            refuse(400, 'bad_request', 'more than one code'),
            reply,
            () => {
              done(null, payload)
            },
            done
          )
        }
        passage.form = rest
        const decision = await stepUp.afterBody(passage, code)
        request.raw.headers['content-length'] = String(rest.length)
        delete request.raw.headers['transfer-encoding']
        const stripped = Object.assign(Readable.from(rest.length === 0 ? [] : [rest], { objectMode: false }), {
          receivedEncodedLength: rest.length
        })
        settle(
          passage,
          decision,
          reply,
          () => {
            done(null, stripped)
          },
          done
        )
      })
      .catch(done)
  }

  /** The inline code of a parsed body, taken out before schema and handler see it. */
  function posternCode (request: FastifyRequest, reply: FastifyReply, done: Done): void {
    const passage = passages.get(request.raw)
    if (passage === undefined) return done(new Error('postern: the gate did not see this request'))
    const waits = reading.has(request)
    if (isOff() || (!waits && (request.body === undefined || passage.rule.rule !== 'gated'))) return done()
    const code = takeCodeFromBody(request)
    if (code === null) return settle(passage, refuse(400, 'bad_request', 'more than one code'), reply, done, done)
    passage.code ??= code
    if (!waits) return done()
    reading.delete(request)
    stepUp
      .afterBody(passage, passage.code)
      .then(decision => {
        settle(passage, decision, reply, done, done)
      })
      .catch(done)
  }

  /** A console that loads its session later than onRequest would have everybody pass as nobody. */
  function posternLateIdentity (request: FastifyRequest, reply: FastifyReply, done: Done): void {
    const passage = passages.get(request.raw)
    if (passage === undefined) return done(new Error('postern: the gate did not see this request'))
    if (isOff() || passage.identity !== null || passage.rule.rule !== 'gated') return done()
    Promise.resolve(settings.identify(request))
      .then(late => {
        if (late === null) return done()
        request.log.error(
          'postern: "identify" found nobody before the body was read and somebody after it; load the session in an onRequest hook'
        )
        settle(passage, refuse(500, 'identity_late', 'the session was loaded after the gate'), reply, done, done)
      })
      .catch(done)
  }

  async function forget (kind: string, session: string): Promise<void> {
    assurances.forgetSession(kind, session)
  }

  const inside: Inside = {
    client,
    assurances,
    binding,
    pageCookie,
    tokenInScript: settings.tokenInScript,
    answering,
    about,
    pages,
    passageOf: raw => passages.get(raw),
    addressOf: raw => passages.get(raw)?.request.ip ?? raw.socket.remoteAddress ?? '',
    releasedBy: unsealed => { releasing.unsealed = unsealed },
    enforcing: () => !isOff() && settings.mode.mode !== 'observe'
  }

  return {
    inside,
    hooks: { posternGate, posternCode, posternLateIdentity },
    stateOf: (request: FastifyRequest): PosternState => states.get(request) ?? UNSEEN,
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
      await forget(kind, from)
      await forget(kind, to)
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
      const others = [route.preHandler ?? []].flat().filter(hook => hook !== posternLateIdentity)
      route.preHandler = [...others, posternLateIdentity]
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
        observed: { ...observed }
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

/** What the gateway shares with the gate that it runs: one client, one binding, one reading of each request. */
export interface Inside {
  readonly client: Client
  readonly assurances: Assurances
  readonly binding: Binding
  readonly pageCookie: PageCookie
  readonly tokenInScript: Settings['tokenInScript']
  readonly answering: Answering
  readonly about: (request: FastifyRequest, who: Who) => About
  readonly pages: OwnPages
  readonly passageOf: (raw: IncomingMessage) => Passage | undefined
  readonly addressOf: (raw: IncomingMessage) => string
  /** How the pages read what a gateway held, once its challenge is answered on one of them. */
  readonly releasedBy: (unsealed: Releasing['unsealed']) => void
  readonly enforcing: () => boolean
}

/** Under this symbol a server keeps it, so that no console reaches it by name. */
export const INSIDE = Symbol('postern.inside')

// The one narrowing of this boundary: decorators under symbols have no merged type.
export function insideOf (app: FastifyInstance): Inside {
  const inside: unknown = Reflect.get(app, INSIDE)
  if (inside === undefined) throw new Error('postern: the plugin is not registered on this server')
  return inside as Inside
}

const UNSEEN: PosternState = { status: 'anonymous', totp: null, stepUp: null, expiresIn: null }
const OBSERVED: PosternState = { status: 'observed', totp: null, stepUp: null, expiresIn: null }
const OFF: PosternState = { status: 'off', totp: null, stepUp: null, expiresIn: null }
