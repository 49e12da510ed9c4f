// Hosted pages from the service: the request is built anew from an allow-list, and the answer is filtered.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import { browserName, type Binding } from './binding.ts'
import type { Answering } from './carry.ts'
import { base64url, type Client, type PageAnswer } from './client.ts'
import { readForm } from './forms.ts'
import type { Passage } from './gate.ts'
import { askedLanguage, chosenLanguage, languageCookie } from './language.ts'
import type { About, Who } from './model.ts'
import type { Settings } from './options.ts'
import { CONTENT_SECURITY_POLICY, type OwnPages } from './own-pages.ts'
import type { PageAnswers } from './page-answers.ts'
import type { PageCookie } from './page-cookie.ts'
import { canonicalTarget, returnPath } from './path.ts'
import { headersOf } from './proxy/exchange.ts'
import { bytesOf, sameOrigin } from './requests.ts'

export interface PageProxyParts {
  readonly settings: Settings
  readonly client: Client
  readonly assurances: Assurances
  readonly binding: Binding
  readonly pageCookie: PageCookie
  readonly answering: Answering
  readonly answers: PageAnswers
  readonly pages: OwnPages
  readonly releasing: Releasing
  readonly passageOf: (request: FastifyRequest) => Passage
  readonly whoAsks: (request: FastifyRequest) => { readonly who: Who | undefined, readonly byCookie: boolean }
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

export function createPageProxy (
  parts: PageProxyParts
): (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply> {
  const { settings, client, assurances, binding, pageCookie, answering, pages, passageOf, whoAsks, about } = parts
  const { script, signedOut, refused, cookiesNeeded, later } = parts.answers
  const { prefix, publicOrigin } = settings

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
      body: post ? bytesOf(request) : undefined
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
    const reading = readForm(bytesOf(request) ?? Buffer.alloc(0))
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

  return proxy
}
