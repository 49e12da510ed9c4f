// What the gate let pass: to the console and back. Calls that log in or end a login are read, all else is streamed.

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { folded } from '../credentials.ts'
import type { Inside } from '../inside.ts'
import { canonicalTarget, pattern, returnPath, type Pattern } from '../path.ts'
import { hasBody, type Answered, type Failed, type Upstream } from '../proxy/exchange.ts'
import { originOf, requestHeaders, withoutParameters } from '../proxy/headers.ts'
import { isDocument, isNavigation } from '../requests.ts'
import { fieldsOf, readBody } from './calls.ts'
import type { Drain } from './drain.ts'
import type { Holding } from './held.ts'
import type { Call, ConsoleKnown, LoginCall, Reply } from './preset.ts'

export interface PassingParts {
  readonly prefix: string
  readonly publicOrigin: string
  readonly known: ConsoleKnown
  readonly inside: Inside
  readonly upstream: Upstream
  readonly holding: Holding
  readonly credentialsChanged: FastifyInstance['postern']['credentialsChanged']
  readonly behind: Drain['behind']
}

/** Also for who is asked instead of passing on, and for sockets: what a request ends, and what goes to the console. */
export function createPassing (
  { prefix, publicOrigin, known, inside, upstream, holding, credentialsChanged, behind }: PassingParts
) {
  const origin = originOf(new URL(publicOrigin))
  const cookies = new Set(known.credentials.cookies ?? [])
  const credentialHeaders = new Set((known.credentials.headers ?? []).map(folded))
  const parameters = new Set(['access_token', ...(known.credentials.query ?? []).map(name => name.toLowerCase())])
  const ours = new Set([inside.binding.name, inside.pageCookie.name])
  const compiled = (patterns: readonly string[] = []): readonly Pattern[] =>
    patterns.map(one => pattern(one, 'loose'))
  const passwords = compiled(known.passwordPatterns)
  const logouts = compiled(known.logoutPatterns)
  const fresh = compiled(known.freshLogin === undefined ? [] : [known.freshLogin])
  const logins = known.logins.map(login => ({ ...login, ...pattern(login.pattern, 'loose') }))
  const fits = (method: string, path: string) => (one: Pattern): boolean =>
    (one.method === undefined || one.method === method) && one.test(path)

  /** What goes to the console for this request, and how. */
  function outgoing (raw: IncomingMessage, address: string, path: string, query: string, plain: boolean) {
    const passage = inside.passageOf(raw)
    const anonymous = inside.enforcing() && (passage === undefined || passage.identity === null)
    const without = anonymous ? cookies : fresh.some(fits(raw.method ?? '', path)) ? cookies : NONE
    return {
      path: path + (anonymous ? withoutParameters(query, parameters) : query),
      headers: requestHeaders(raw.rawHeaders, { address, origin }, {
        credentialHeaders, anonymous, cookies: without, ours: name => ours.has(name), plain
      })
    }
  }

  async function pass (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { raw, method } = request
    const target = canonicalTarget(raw.url ?? '')
    if ('refused' in target) {
      inside.answering.problem(request, reply, 400, 'bad_request', { detail: target.refused })
      return reply
    }
    const { path, query } = target
    // What stands below the prefix is ours, whatever the method.
    if (path === prefix || path.startsWith(`${prefix}/`)) {
      inside.answering.problem(request, reply, 404, 'not_found')
      return reply
    }
    const passage = inside.passageOf(raw)
    const identity = passage?.identity ?? null
    if (identity === null && isDocument(request) && inside.enforcing()) {
      // A login that was held in this browser, or a refusal there, goes on at its page, once.
      const { pageCookie, answering } = inside
      const next = pageCookie.next(request)
      const renewed = next === undefined ? undefined : pageCookie.renewed(request)
      if (renewed !== undefined) {
        void reply.header('set-cookie', renewed)
        answering.redirect(reply, `${prefix}/${next}`)
        return reply
      }
      const waiting = pageCookie.putBack(request) ? pageCookie.read(request) : undefined
      const { tokenInScript } = inside
      if (waiting !== undefined && tokenInScript !== undefined) {
        void reply.header('set-cookie', pageCookie.cleared)
        const page = inside.pages.release(answering.seen(request), tokenInScript, waiting.session, returnPath(raw.url ?? '/'))
        answering.page(reply, 200, page)
        return reply
      }
    }
    const named = fits(method, path)
    const login = inside.enforcing() ? logins.find(named) : undefined
    if (login !== undefined) return await loginCall(request, reply, login, path, query)
    if (identity !== null) known.passing?.(request)
    // A form whose code was taken out is shorter than it came.
    const form = passage?.form
    const body = form ?? (request.body === undefined ? (hasBody(raw) ? raw : undefined) : streamOf(request.body, raw))
    const framed = (plain: boolean) => {
      const out = outgoing(raw, request.ip, path, query, plain)
      return { method, body, ...out, headers: form === undefined ? out.headers : withLength(out.headers, form) }
    }
    const ending = endingOf(method, path)
    if (ending !== undefined) {
      const answer = await upstream.read(framed(true))
      if ('failed' in answer) return failed(request, reply, answer)
      if (answer.status < 400) await end(request, reply, ending)
      if (identity !== null) known.passing?.(request, answer)
      return release(reply, answer)
    }
    reply.hijack()
    const failure = await upstream.stream(framed(false), reply.raw, (status, headers) => {
      if (identity !== null) known.passing?.(request, { status, headers })
    })
    if (failure !== undefined) bare(request, reply, failure)
    behind(raw, reply.raw)
    return reply
  }

  function endingOf (method: string, path: string): 'password' | 'logout' | undefined {
    const named = fits(method, path)
    return passwords.some(named) ? 'password' : logouts.some(named) ? 'logout' : undefined
  }

  async function end (request: FastifyRequest, reply: FastifyReply, ending: 'password' | 'logout'): Promise<void> {
    const who = inside.passageOf(request.raw)?.who
    if (who === undefined) return
    if (ending === 'password') await credentialsChanged(who.identity.subject, { keep: request })
    else {
      await reply.posternLogout()
      // Nothing brings the login back that was ended.
      void reply.header('set-cookie', inside.pageCookie.cleared)
    }
  }

  /** What a request ends that somebody else passes on. */
  async function ended (request: FastifyRequest, reply: FastifyReply, path: string): Promise<void> {
    const ending = endingOf(request.method, path)
    if (ending !== undefined) await end(request, reply, ending)
  }

  /** The answer of a login call is looked at before anybody gets it. */
  function isLogin (path: string): boolean {
    return inside.enforcing() && logins.some(({ test }) => test(path))
  }

  async function loginCall (
    request: FastifyRequest,
    reply: FastifyReply,
    login: LoginCall,
    path: string,
    query: string
  ): Promise<FastifyReply> {
    const { raw } = request
    const stream = request.body === undefined ? (hasBody(raw) ? raw : undefined) : streamOf(request.body, raw)
    const body = stream === undefined ? Buffer.alloc(0) : await readBody(stream)
    if (body === undefined) {
      inside.answering.problem(request, reply, 413, 'form_too_large')
      return reply
    }
    const call: Call = { request, body, fields: fieldsOf(request, body) }
    const answered = login.first?.(call) ?? await login.second?.(call, holding)
    if (answered !== undefined) return said(reply, answered)
    const out = outgoing(raw, request.ip, path, query, true)
    const sent = login.forwarded?.(call) ?? body
    const answer = await upstream.read({
      method: request.method,
      path: out.path,
      headers: withLength(out.headers, sent),
      body: sent.length === 0 ? undefined : sent
    })
    if ('failed' in answer) return failed(request, reply, answer)
    const logged = await login.login(call, answer)
    if (logged === undefined) return release(reply, answer)
    const asked = await holding.hold(request, reply, logged, login.device?.(call) ?? '', answer)
    if (asked.asked === 'released') return release(reply, answer)
    request.log.info({ postern: asked.asked }, 'a login was held')
    return said(reply, login.reply(call, logged, asked))
  }

  function failed (request: FastifyRequest, reply: FastifyReply, { failed: how }: Failed): FastifyReply {
    const status = how === 'late' ? 504 : 502
    void reply.header('retry-after', '5')
    if (isNavigation(request)) {
      inside.answering.page(reply, status, inside.pages.upstream(inside.answering.seen(request), how))
    } else inside.answering.problem(request, reply, status, how === 'late' ? 'upstream_late' : 'upstream_unreachable', { retry_after: 5 })
    return reply
  }

  // After hijacking: the same answer without Fastify.
  function bare (request: FastifyRequest, { raw }: FastifyReply, { failed: how }: Failed): void {
    const page = isNavigation(request) ? inside.pages.upstream(inside.answering.seen(request), how) : undefined
    const code = how === 'late' ? 'upstream_late' : 'upstream_unreachable'
    const status = how === 'late' ? 504 : 502
    raw.writeHead(status, {
      'retry-after': '5',
      'cache-control': 'no-store',
      'content-type': page === undefined ? 'application/problem+json' : 'text/html; charset=utf-8',
      ...(page === undefined ? {} : { 'content-security-policy': inside.pages.policy })
    })
    raw.end(page?.html ?? inside.answering.document(status, code, { request_id: String(request.id), retry_after: 5 }))
  }

  return { pass, failed, ended, isLogin, outgoing }
}

const NONE: ReadonlySet<string> = new Set()

function release (reply: FastifyReply, { status, headers, body }: Answered): FastifyReply {
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? ''
    if (name.toLowerCase() !== 'content-length') void reply.header(name, headers[i + 1] ?? '')
  }
  return reply.code(status).send(body)
}

function said (reply: FastifyReply, { status, headers = {}, body }: Reply): FastifyReply {
  return reply.code(status).headers(headers).send(body ?? '')
}

function withLength (headers: readonly string[], body: Buffer): string[] {
  const rest = headers.filter((_, i) => (headers[i - i % 2] ?? '').toLowerCase() !== 'content-length')
  return body.length === 0 ? rest : [...rest, 'content-length', String(body.length)]
}

// The narrowing function of this boundary: what Fastify hands on without a type.
function streamOf (body: unknown, raw: IncomingMessage): Readable {
  return typeof body === 'object' && body !== null && 'pipe' in body ? body as Readable : raw
}
