// The gateway: the plugin's own gate in front of one wildcard route, and behind that the console.

import Fastify, { LogController, type FastifyInstance, type FastifyReply, type FastifyRequest, type RequestPayload } from 'fastify'
import postern from '../index.ts'
import { insideOf } from '../inside.ts'
import type { Denied } from '../options.ts'
import { canonicalTarget } from '../path.ts'
import { createUpstream } from '../proxy/exchange.ts'
import { createTunnel } from '../proxy/tunnel.ts'
import { createDrain } from './drain.ts'
import { createHolding } from './held.ts'
import { createKnown, isUpstreamError, type Clocks } from './known.ts'
import { createLogStream } from './log.ts'
import { createPassing } from './passing.ts'
import type { Reply } from './preset.ts'
import { answerQuestions, createQuestions } from './questions.ts'
import type { Config } from './settings.ts'

/** Methods beside Fastify's own that consoles and file stores speak. */
const METHODS = ['PROPFIND', 'PROPPATCH', 'MKCOL', 'COPY', 'MOVE', 'LOCK', 'UNLOCK', 'REPORT', 'SEARCH', 'MKCALENDAR']

/**
 * Bytes of an answer that wait for a client before the console is made to wait. What is read at a time is half of it:
 * with less, each piece stops the exchange and starts it again, a third more CPU for 10 MB.
 */
const IN_FLIGHT = 131_072

/** Throws ConfigError with what the preset finds wrong; the plugin throws its own sentence. */
export async function createGateway (config: Config, clocks: Clocks): Promise<FastifyInstance> {
  const upstream = createUpstream({ ...config, origin: config.upstream, timeoutMs: config.upstreamTimeoutMs })
  const app = Fastify({
    logger: { level: config.logLevel, stream: createLogStream(process.stdout, clocks.today) },
    // Targets may hold tokens.
    logController: new LogController({ disableRequestLogging: true }),
    trustProxy: config.trustedProxies.length === 0 ? false : [...config.trustedProxies],
    exposeHeadRoutes: false,
    rewriteUrl: raw => questions.rewritten(raw),
    routerOptions: { maxParamLength: 8192 },
    http: { maxHeaderSize: 65_536, highWaterMark: IN_FLIGHT }
  })
  const questions = createQuestions(config.prefix, () => known.asked)
  const known = createKnown(config, upstream.read, clocks, sentence => { app.log.warn(`postern-gateway: ${sentence}`) })
  for (const method of METHODS) app.addHttpMethod(method, { hasBody: true })
  await app.register(postern, {
    service: config.service,
    tenantKey: config.tenantKey,
    publicOrigin: config.publicOrigin,
    prefix: config.prefix,
    identify: known.identify,
    credentials: known.credentials,
    tokenInScript: known.tokenInScript,
    sealKeys: config.sealKeys,
    insecureCookies: config.insecureCookies,
    mode: config.mode,
    stepUpPatterns: [...known.stepUpPatterns ?? [], ...config.stepUpPatterns],
    publicPatterns: [...known.publicPatterns ?? [], ...config.publicPatterns],
    graceSeconds: config.graceSeconds,
    timeoutMs: config.timeoutMs,
    cacheSize: config.cacheSize,
    denied: known.denied === undefined ? undefined : denied
  })
  const inside = insideOf(app)

  function denied (request: FastifyRequest, { status, code, members }: Denied): Reply | undefined {
    const said = known.denied?.(request, { status, code, members })
    const identity = inside.passageOf(request.raw)?.who?.identity
    if (said?.resume === undefined || identity === undefined) return said
    const { challenge } = members
    const next = typeof challenge === 'string' ? `verify/${challenge}` : code === 'enrolment_required' ? 'enrol' : 'verify'
    const cookie = inside.pageCookie.cookie(identity, { next, putBack: said.resume === 'token' })
    return { ...said, headers: { ...said.headers, 'set-cookie': cookie } }
  }

  const { prefix, publicOrigin } = config
  const holding = createHolding({ inside, seal: inside.seal, prefix, publicOrigin })
  inside.releasedBy(holding.unsealed)
  const { signIn } = known
  if (signIn !== undefined) inside.signedInBy(async ({ ip }, name, password) => await signIn(name, password, ip))

  const passing = createPassing({
    prefix,
    publicOrigin,
    known,
    inside,
    upstream,
    holding,
    credentialsChanged: app.postern.credentialsChanged,
    behind: (request, response) => { drain.behind(request, response) }
  })

  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, done) => { done(null, payload) })
  // A type that Fastify cannot read is the console's to judge; the headers that go on are the raw ones. Only here: the
  // pages below the prefix read theirs.
  const untyped = {
    preParsing: (request: FastifyRequest, _reply: FastifyReply, payload: RequestPayload, done: DonePayload): void => {
      Reflect.deleteProperty(request.raw.headers, 'content-type')
      done(null, payload)
    }
  }
  app.setErrorHandler((error, request, reply) => {
    if (reply.sent) return reply
    if (isUpstreamError(error)) return passing.failed(request, reply, error)
    request.log.error({ err: error }, 'postern-gateway: a request failed')
    inside.answering.problem(request, reply, statusOf(error), 'unexpected')
    return reply
  })
  if (known.asked !== undefined) {
    answerQuestions(app, { questions, known, inside, publicOrigin, passed: passing.ended })
  } else {
    app.all('/*', untyped, passing.pass)
    const { upstream: behind, upstreamTimeoutMs: timeoutMs } = config
    const tunnel = createTunnel({ origin: behind, publicOrigin, timeoutMs })
    app.server.on('upgrade', (raw, socket, head) => {
      const target = canonicalTarget(raw.url ?? '')
      // Through a tunnel the answer of a login call would not be looked at.
      if ('refused' in target || passing.isLogin(target.path)) {
        socket.destroy()
        return
      }
      const { path, headers } = passing.outgoing(raw, inside.addressOf(raw), target.path, target.query, false)
      tunnel.open(raw, socket, head, path, headers)
    })
    app.addHook('preClose', async () => { tunnel.close() })
  }
  const drain = createDrain(app)
  app.addHook('onClose', async () => { await upstream.close() })
  return app
}

type DonePayload = (error?: Error | null, payload?: RequestPayload) => void

// The narrowing function of this boundary: what Fastify hands on without a type.
function statusOf (error: unknown): number {
  const status: unknown = typeof error === 'object' && error !== null ? Reflect.get(error, 'statusCode') : undefined
  return typeof status === 'number' && status >= 400 && status < 500 ? status : 500
}
