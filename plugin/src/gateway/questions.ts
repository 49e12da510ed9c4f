// A proxy in front asks about a request: here the question becomes that request, so that the gate judges it as any
// other, and the gate's answer becomes the proxy's.

import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { canonicalTarget, pattern, returnPath } from '../path.ts'
import type { Inside } from '../inside.ts'
import { sameOrigin } from '../requests.ts'
import { OWN_ROUTE } from '../rules.ts'
import { VERDICTS } from '../step-up.ts'
import { objectIn } from './calls.ts'
import type { ConsoleKnown, Telling } from './preset.ts'

type Asked = { readonly telling: Telling } & (
  | { readonly target: string, readonly path: string, readonly verdict: string | undefined }
  | { readonly refused: string, readonly status: 400 | 403 }
)

export interface Questions {
  /** For Fastify's `rewriteUrl`: the target that is asked about, in place of the question's own. */
  readonly rewritten: (raw: IncomingMessage) => string
  /** Is this request a question? Set before the gate sees it. */
  readonly of: (raw: IncomingMessage) => Asked | undefined
}

const VERDICT = 'postern-verdict'

/** What a question has none of, whatever the request has that it is about. */
const BODY = ['content-type', 'content-length', 'transfer-encoding']

/** `asked` is called for every request, because the preset is made after the server. */
export function createQuestions (prefix: string, asked: () => ConsoleKnown['asked']): Questions {
  const kept = new WeakMap<IncomingMessage, Asked>()
  const pages = pattern(`${prefix}/*`, 'loose')

  return {
    of: raw => kept.get(raw),
    rewritten: raw => {
      const url = raw.url ?? ''
      const one = asked()
      // Caddy leaves the query of the request that it is about.
      const telling = one?.paths.get(url.split('?', 1)[0] ?? '')
      if (one === undefined || telling === undefined) return url
      const question = one.question(raw)
      if ('refused' in question) {
        kept.set(raw, { telling, ...question })
        return url
      }
      const { method, target } = question
      const canonical = canonicalTarget(target)
      if ('refused' in canonical || pages.test(canonical.path)) {
        kept.set(raw, { telling, refused: 'refused' in canonical ? canonical.refused : 'the pages are the gateway\'s own', status: 400 })
        return url
      }
      // What the refusal said of a code that came along, which a proxy hands on to hear the reason.
      const { [VERDICT]: verdict } = raw.headers
      kept.set(raw, { telling, target, path: canonical.path, verdict: typeof verdict === 'string' && VERDICTS.has(verdict) ? verdict : undefined })
      raw.method = method === 'HEAD' ? 'GET' : method
      for (const name of BODY) Reflect.deleteProperty(raw.headers, name)
      // A verdict has no reader; the reason must not count the same code again.
      if (telling === 'verdict') for (const name of ['accept', 'sec-fetch-mode']) Reflect.deleteProperty(raw.headers, name)
      if (telling === 'reason') without(raw, '2fa-code')
      return target
    }
  }
}

function without ({ headers, rawHeaders }: IncomingMessage, name: string): void {
  Reflect.deleteProperty(headers, name)
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) if (rawHeaders[i]?.toLowerCase().replaceAll('_', '-') === name) rawHeaders.splice(i, 2)
}

/** The routes of a gateway that is asked instead of passing on. */
export function answerQuestions (app: FastifyInstance, { questions, known, inside, publicOrigin, passed }: {
  readonly questions: Questions
  readonly known: ConsoleKnown
  readonly inside: Inside
  readonly publicOrigin: string
  /** Before the proxy hears that it may forward a request for this canonical path. */
  readonly passed: (request: FastifyRequest, reply: FastifyReply, path: string) => Promise<void>
}): void {
  function problem (
    request: FastifyRequest,
    reply: FastifyReply,
    status: number,
    code: string,
    detail: string
  ): FastifyReply {
    inside.answering.problem(request, reply, status, code, { detail })
    return reply
  }

  // Also where a client of the proxy asks for one of these paths itself: nothing here says yes.
  for (const path of known.asked?.paths.keys() ?? []) {
    app.all(path, { config: { postern: OWN_ROUTE } }, async (request, reply) => {
      const asked = questions.of(request.raw)
      const { refused, status } = asked !== undefined && 'refused' in asked ? asked : { refused: 'this path is for proxies', status: 403 }
      return problem(request, reply, status, status === 403 ? 'denied' : 'bad_request', refused)
    })
  }

  app.all('/*', async (request, reply) => {
    const asked = questions.of(request.raw)
    if (asked === undefined || 'refused' in asked) return problem(request, reply, 404, 'not_found', 'the gateway passes nothing on; the proxy in front does')
    const passage = inside.passageOf(request.raw)
    const identity = passage?.identity ?? null
    if (inside.enforcing()) {
      // The console gets the request as it came, with whatever it could take for a login.
      if (identity === null && passage?.presented.any === true && passage.rule.rule === 'gated') return problem(request, reply, 401, 'credentials_unknown', 'a credential that belongs to nobody')
      if (foreignSocket(request, publicOrigin)) return problem(request, reply, 403, 'origin_refused', 'a socket from another origin')
    }
    if (identity !== null) known.passing?.(request)
    if (asked.telling !== 'reason') {
      await passed(request, reply, asked.path)
      return await reply.code(204).header('cache-control', 'no-store').send()
    }
    // Refused a moment ago, let through now: the client asks again.
    if (request.method === 'GET') inside.answering.redirect(reply, returnPath(asked.target))
    else inside.answering.problem(request, reply.header('retry-after', '1'), 503, 'unavailable', { retry_after: 1 })
    return reply
  })

  app.addHook('onSend', async (request, reply, payload) => {
    const asked = questions.of(request.raw)
    if (asked === undefined) return payload
    // Traefik takes a relative address for one of the gateway.
    const location = reply.getHeader('location')
    if (typeof location === 'string' && location.startsWith('/')) void reply.header('location', publicOrigin + location)
    const said = typeof payload === 'string' && String(reply.getHeader('content-type')).startsWith('application/problem+json')
      ? objectIn(Buffer.from(payload))
      : {}
    if (asked.telling === 'reason' && 'verdict' in asked && asked.verdict !== undefined && said['code'] === 'step_up_required') {
      void reply.removeHeader('content-length')
      const { type, title, status, code, ...members } = said
      return inside.answering.document(reply.statusCode, asked.verdict, members)
    }
    if (asked.telling !== 'verdict' || reply.statusCode < 300) return payload
    if (typeof said['code'] === 'string') void reply.header(VERDICT, said['code'])
    void reply.code(reply.statusCode === 401 ? 401 : 403).removeHeader('content-length')
    return ''
  })

  // A proxy that passes the client's Upgrade on asks with one.
  app.server.on('upgrade', (raw, socket) => {
    const asked = questions.of(raw)
    const yes = asked !== undefined && !('refused' in asked) && asked.telling !== 'reason'
    socket.end(`HTTP/1.1 ${yes ? '204 No Content' : '404 Not Found'}\r\nconnection: close\r\n${yes ? '' : 'content-length: 0\r\n'}\r\n`)
  })
}

/** The proxy may have taken the Upgrade away; a handshake is known by its key. */
function foreignSocket (request: FastifyRequest, publicOrigin: string): boolean {
  const { headers } = request
  return headers['sec-websocket-key'] !== undefined && headers.origin !== undefined && !sameOrigin(request, publicOrigin)
}
