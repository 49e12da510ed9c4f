// The hosted pages under the prefix: requests to the service are built anew from an allow-list, answers are filtered.

import { readFileSync } from 'node:fs'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import { browserName, type Binding } from './binding.ts'
import type { PageCookie } from './page-cookie.ts'
import type { Answering } from './carry.ts'
import { base64url, type Client, type PageAnswer } from './client.ts'
import { createDialogFiles } from './dialog.ts'
import { FORM_LIMIT, readForm, takeCode } from './forms.ts'
import { whoIs, type Passage } from './gate.ts'
import { askedLanguage, chosenLanguage, languageCookie } from './language.ts'
import type { About, Who } from './model.ts'
import type { Settings } from './options.ts'
import { CONTENT_SECURITY_POLICY, type OwnPages } from './own-pages.ts'
import { canonicalTarget, returnPath } from './path.ts'
import { headersOf } from './proxy/exchange.ts'
import type { ProblemCode } from './problems.ts'
import { isNavigation, mediaType, sameOrigin } from './requests.ts'
import { OWN_ROUTE } from './rules.ts'
import type { StepUpPasses } from './step-up-passes.ts'

export interface PagesParts {
  readonly settings: Settings
  readonly client: Client
  readonly assurances: Assurances
  readonly binding: Binding
  readonly pageCookie: PageCookie
  readonly answering: Answering
  readonly pages: OwnPages
  readonly passes: StepUpPasses
  readonly releasing: Releasing
  readonly passageOf: (request: FastifyRequest) => Passage
  readonly about: (request: FastifyRequest, who: Who) => About
  readonly notes: () => readonly string[]
}

/** What comes back from the service beside status and body; never a cookie, never `postern-bind`. */
const PASSED_BACK = [
  'content-type',
  'content-language',
  'content-disposition',
  'content-security-policy',
  'cross-origin-opener-policy',
  'x-frame-options',
  'referrer-policy',
  'retry-after',
  'etag',
  'vary'
]
/** What the service may know of the browser's request. */
const PASSED_ON = ['accept', 'accept-language', 'content-type', 'user-agent']

/** A login answer that a gateway held until now: what its browser gets with the page that lets it in. */
export interface Releasing {
  unsealed: (held: string) => { readonly headers: readonly string[], readonly body: Buffer } | undefined
}

export function ownRoutes (parts: PagesParts): (scope: FastifyInstance) => Promise<void> {
  const { settings, client, assurances, binding, pageCookie, answering, pages, passes, passageOf, about } = parts
  const { prefix, publicOrigin } = settings
  const dialog = createDialogFiles()

  function script (request: FastifyRequest, reply: FastifyReply, status: number, code: ProblemCode): FastifyReply {
    answering.problem(request, reply, status, code)
    return reply
  }

  function signedOut (request: FastifyRequest, reply: FastifyReply): FastifyReply {
    if (!isNavigation(request)) return script(request, reply, 401, 'login_required')
    const seen = answering.seen(request)
    const { tokenInScript } = settings
    const page = tokenInScript === undefined || request.method !== 'GET' ? pages.signedOut(seen) : pages.handOver(seen, tokenInScript)
    answering.page(reply, 401, page)
    return reply
  }

  function refused (request: FastifyRequest, reply: FastifyReply): FastifyReply {
    if (!isNavigation(request)) return script(request, reply, 403, 'origin_refused')
    answering.page(reply, 403, pages.refused(answering.seen(request)))
    return reply
  }

  function cookiesNeeded (request: FastifyRequest, reply: FastifyReply): FastifyReply {
    if (!isNavigation(request)) { return script(request, reply, 400, 'cookies_needed') }
    answering.page(reply, 400, pages.cookies(answering.seen(request)))
    return reply
  }

  function later (request: FastifyRequest, reply: FastifyReply, seconds: number, code?: string): FastifyReply {
    answering.later(request, reply, seconds, code)
    return reply
  }

  /** Who asks: by the request itself, else by the cookie that stands for a token on these pages. */
  function whoAsks (request: FastifyRequest): { readonly who: Who | undefined, readonly byCookie: boolean } {
    const { who, identity, presented } = passageOf(request)
    const known = identity === null ? pageCookie.read(request) : undefined
    return known === undefined ? { who, byCookie: false } : { who: whoIs(known, presented.binding), byCookie: true }
  }

  /** A token, once and in its own header: from here on a cookie stands for it on these pages. */
  async function takeOver (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { who } = passageOf(request)
    if (!sameOrigin(request, publicOrigin)) return refused(request, reply)
    if (who === undefined) return script(request, reply, 401, 'login_required')
    if (!binding.wellFormed(who.binding)) void reply.header('set-cookie', binding.cookie(binding.fresh()))
    return answering.common(reply)
      .header('set-cookie', pageCookie.cookie(who.identity))
      .send({ verify_url: `${prefix}/verify`, settings_url: `${prefix}/settings` })
  }

  // A page below the console's own origin that sent somebody here; never one of ours, never a URL.
  function cameFrom (request: FastifyRequest): string {
    const { referer } = request.headers
    if (referer === undefined || !URL.canParse(referer)) return '/'
    const { origin, pathname, search } = new URL(referer)
    return origin === publicOrigin && pathname !== prefix && !pathname.startsWith(`${prefix}/`)
      ? returnPath(pathname + search)
      : '/'
  }

  async function proxy (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const target = canonicalTarget(request.raw.url ?? '')
    if ('refused' in target) return script(request, reply, 404, 'not_found')
    const rest = target.path.slice(prefix.length + 1)
    if (!/^[a-z0-9-]+(?:\/[A-Za-z0-9._-]+)*$/.test(rest)) return script(request, reply, 404, 'not_found')
    const language = request.method === 'GET' ? askedLanguage(target.query) : undefined
    if (language !== undefined) {
      void reply.header('set-cookie', languageCookie(language, prefix, settings.insecureCookies))
      answering.redirect(reply, target.path)
      return reply
    }
    const asset = rest.startsWith('assets/')
    const passage = passageOf(request)
    const post = request.method === 'POST'
    if (post && (asset || !sameOrigin(request, publicOrigin))) return refused(request, reply)
    const { who: asking, byCookie } = whoAsks(request)
    if (asking === undefined && !asset) return signedOut(request, reply)

    const bound = asking !== undefined && binding.wellFormed(asking.binding)
    if (!asset && !bound && (post || rest.startsWith('verify/'))) return cookiesNeeded(request, reply)
    const value = bound ? asking.binding : binding.fresh()
    const who = asking === undefined ? undefined : { ...asking, binding: value, key: '' }
    if (who !== undefined && !asset && !post && rest.startsWith('settings')) {
      const standing = await assurances.ask({ ...who, key: `${value}\n${asking?.key ?? ''}` })
      if (standing.standing === 'verification_required') {
        await answering.toVerification(passage, who, returnPath(request.raw.url ?? '/'), reply)
        return reply
      }
    }

    const next = binding.fresh()
    const by = who === undefined || asset ? undefined : assurances.by(who)
    const chosen = chosenLanguage(request)
    const headers: Record<string, string> = { 'postern-prefix': prefix, 'x-request-id': String(request.id) }
    for (const name of PASSED_ON) {
      const given = request.headers[name]
      if (typeof given === 'string') headers[name] = given
    }
    if (chosen !== undefined) headers['postern-lang'] = chosen
    if (by !== undefined && who !== undefined) {
      headers['postern-subject'] = base64url(by.subject)
      headers['postern-session'] = by.session
      headers['postern-browser'] = by.browser
      headers['postern-about'] = base64url(JSON.stringify(about(request, who)))
      headers['postern-next-browser'] = browserName(next)
    }
    const notes = parts.notes()
    if (notes.length > 0) headers['postern-notes'] = notes.join(',')

    const asked = await client.page({
      method: post ? 'POST' : 'GET',
      rest,
      headers,
      body: post ? bodyOf(request) : undefined
    })
    // What this session may do can have changed with any answer to a form.
    if (post && who !== undefined) assurances.forgetSession(who.identity.kind, who.identity.session)
    if (asked.outcome !== 'answer') return later(request, reply, asked.outcome === 'away' ? asked.retryAfter : 30)
    const { answer } = asked
    const held = answer.headers.get('postern-bind') === 'next' ? next : value
    if (!asset) void reply.header('set-cookie', binding.cookie(held))
    const renewed = byCookie && !asset ? pageCookie.renewed(request) : undefined
    if (renewed !== undefined) void reply.header('set-cookie', renewed)
    if (who !== undefined && held === next && rest.startsWith('verify/')) {
      const released = await heldAnswer(request, who, rest.slice('verify/'.length), browserName(next))
      // The session of a held login is in its answer, and only now the browser's.
      for (const cookie of headersOf(released ?? { headers: [] }, 'set-cookie')) void reply.header('set-cookie', cookie)
      if (released !== undefined && settings.tokenInScript !== undefined) {
        // Where the service has something to say first, the settings page says it as well.
        const to = returnPath(answer.headers.get('location') ?? `${prefix}/settings`)
        const { session } = who.identity
        answering.page(reply, 200, pages.release(answering.seen(request, passage), settings.tokenInScript, session, to))
        return reply
      }
    }
    return passBack(request, reply, answer, asset)
  }

  /** An equal repeat of the answered challenge brings what was held with it, if anything was. */
  async function heldAnswer (request: FastifyRequest, who: Who, challenge: string, nextBrowser: string) {
    const reading = readForm(bodyOf(request) ?? Buffer.alloc(0))
    const field = (name: string): string | undefined =>
      'fields' in reading ? reading.fields.find(one => one.name === name)?.value : undefined
    const [code, key] = [field('code'), field('idempotency_key')]
    if (code === undefined || !/^[A-Za-z0-9_-]{8,64}$/.test(key ?? '') || challenge.includes('/')) return undefined
    const by = assurances.by(who)
    const asked = await client.verify({ challenge, by, about: about(request, who), code, key: key ?? '', nextBrowser })
    const held = asked.outcome === 'answer' ? asked.answer.held : undefined
    return held === undefined ? undefined : parts.releasing.unsealed(held)
  }

  function passBack (
    request: FastifyRequest,
    reply: FastifyReply,
    { status, headers, body }: PageAnswer,
    asset: boolean
  ): FastifyReply {
    for (const name of PASSED_BACK) {
      const given = headers.get(name)
      if (given !== null) void reply.header(name, given)
    }
    // A file that is missing for now, as while two versions run side by side, must not stay missing.
    const stored = asset && status === 200
    void reply
      .header('x-content-type-options', 'nosniff')
      .header('cache-control', stored ? (headers.get('cache-control') ?? 'public, max-age=3600') : 'no-store')
    if (!stored) {
      if (!headers.has('referrer-policy')) void reply.header('referrer-policy', 'same-origin')
      if (!headers.has('content-security-policy')) { void reply.header('content-security-policy', CONTENT_SECURITY_POLICY) }
      void reply.header('x-frame-options', 'DENY').header('cross-origin-opener-policy', 'same-origin')
    }
    const location = headers.get('location')
    if (location !== null) {
      if (returnPath(location) !== location) { return script(request, reply, 502, 'unexpected') }
      void reply.header('location', location)
    }
    return reply.code(status).send(body)
  }

  /** The code page of a GET that needs a code with the very request: one single-use pass to that path. */
  async function givePass (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const passage = passageOf(request)
    const { who } = passage
    if (!sameOrigin(request, publicOrigin)) return refused(request, reply)
    if (who === undefined) return signedOut(request, reply)
    const { code, rest } = takeCode(bodyOf(request) ?? Buffer.alloc(0))
    const reading = readForm(rest)
    const target = returnPath(
      'fields' in reading ? (reading.fields.find(({ name }) => name === 'target')?.value ?? '/') : '/'
    )
    const ask = {
      by: assurances.by(who),
      purpose: 'step_up' as const,
      about: { ...about(request, who), action: `GET ${target}`.slice(0, 255) }
    }
    const answered = await client.open({
      ...ask,
      ...(typeof code === 'string' && code !== '' ? { code: code.slice(0, 64) } : {}),
      record: false
    })
    if (
      answered.outcome === 'answer' &&
      (answered.answer.status === 'accepted' || answered.answer.status === 'not_required')
    ) {
      passes.give(who.key, target)
      answering.redirect(reply, target)
      return reply
    }
    const opened = await client.open(ask)
    if (opened.outcome === 'problem') return later(request, reply, opened.problem.retryAfter ?? 5, opened.problem.code)
    if (opened.outcome === 'away') return later(request, reply, opened.retryAfter)
    if (opened.answer.status !== 'open') return later(request, reply, 5)
    answering.page(
      reply,
      401,
      pages.code(answering.seen(request, passage), {
        challenge: opened.answer.challenge,
        action: undefined,
        target: `${prefix}/own/pass`,
        fields: [{ name: 'target', value: target }],
        charset: 'utf-8',
        carried: false,
        rejected: answered.outcome === 'problem' ? answered.problem : undefined
      })
    )
    return reply
  }

  return async scope => {
    const own = { config: { postern: OWN_ROUTE } }
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: FORM_LIMIT }, (_request, body, done) => {
      done(null, body)
    })
    for (const [path, file, type] of FILES) {
      const body = fileOf(file)
      scope.get(path, own, async (_request, reply) =>
        reply
          .headers(FILE)
          .type(type)
          .send(body())
      )
    }
    scope.get('/postern.js', own, async (_request, reply) => reply.headers(FILE).type('text/javascript; charset=utf-8').send(dialog.script()))
    scope.get<{ Querystring: { readonly lang?: unknown } }>('/own/dialog', own, async (request, reply) => {
      const { lang } = request.query
      const wanted = [chosenLanguage(request), lang, ...(request.headers['accept-language'] ?? '').split(',').map(one => one.split(';')[0]?.trim())]
      const answer = dialog.dialog(wanted.filter((one): one is string => typeof one === 'string' && one !== ''))
      return await reply.headers(FILE).header('cache-control', 'no-store').type('application/json; charset=utf-8').send(answer)
    })
    scope.get('/verify', own, async (request, reply) => {
      const { who } = whoAsks(request)
      if (who === undefined) return signedOut(request, reply)
      await answering.toVerification(passageOf(request), who, cameFrom(request), reply, 'return')
      return reply
    })
    scope.post('/session', own, takeOver)
    scope.post('/own/pass', own, givePass)
    scope.get('/*', own, proxy)
    scope.post('/*', own, proxy)
  }
}

const FILE = {
  'cache-control': 'public, max-age=3600',
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'same-origin'
} as const

const FILES = [
  ['/own/style.css', 'style.css', 'text/css; charset=utf-8'],
  ['/own/carried.js', 'carried.js', 'text/javascript; charset=utf-8'],
  ['/own/session.js', 'session.js', 'text/javascript; charset=utf-8'],
  ['/own/release.js', 'release.js', 'text/javascript; charset=utf-8']
] as const

function fileOf (name: string): () => Buffer {
  let bytes: Buffer | undefined
  return () => {
    bytes ??= readFileSync(new URL(`../browser/${name}`, import.meta.url))
    return bytes
  }
}

function bodyOf (request: FastifyRequest): Buffer | undefined {
  return Buffer.isBuffer(request.body) && mediaType(request) !== 'multipart/form-data' ? request.body : undefined
}
