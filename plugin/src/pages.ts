// The routes under the prefix: the plugin's own files and calls, and the hosted pages behind them.

import { readFileSync } from 'node:fs'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import type { Binding } from './binding.ts'
import type { Answering } from './carry.ts'
import type { Client } from './client.ts'
import { createDialogFiles } from './dialog.ts'
import { FORM_LIMIT, readForm, takeCode } from './forms.ts'
import { whoIs, type Passage } from './gate.ts'
import { chosenLanguage } from './language.ts'
import type { About, LoggedIn, Who } from './model.ts'
import type { Settings } from './options.ts'
import type { OwnPages } from './own-pages.ts'
import { createPageAnswers, type Signing } from './page-answers.ts'
import type { PageCookie } from './page-cookie.ts'
import { createPageProxy, type Releasing } from './page-proxy.ts'
import { returnPath } from './path.ts'
import { bytesOf, sameOrigin } from './requests.ts'
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
  readonly signing: Signing
  readonly passageOf: (request: FastifyRequest) => Passage
  readonly about: (request: FastifyRequest, who: Who) => About
  readonly notes: () => readonly string[]
}

export function ownRoutes (parts: PagesParts): (scope: FastifyInstance) => Promise<void> {
  const { settings, client, assurances, binding, pageCookie, answering, pages, passes } = parts
  const { passageOf, signing, about } = parts
  const { prefix, publicOrigin } = settings
  const answers = createPageAnswers(parts)
  const { script, signedOut, refused, later } = answers
  const proxy = createPageProxy({ ...parts, answers, whoAsks })
  const dialog = createDialogFiles()

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
    return standsFor(who.identity, request, reply).send({ verify_url: `${prefix}/verify`, settings_url: `${prefix}/settings` })
  }

  function standsFor (identity: LoggedIn, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    if (!binding.wellFormed(passageOf(request).presented.binding)) void reply.header('set-cookie', binding.cookie(binding.fresh()))
    return answering.common(reply).header('set-cookie', pageCookie.cookie(identity))
  }

  /** Logs in at the console for these pages only: what the console hands out for it never reaches the browser. */
  async function signIn (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    if (!sameOrigin(request, publicOrigin)) return refused(request, reply)
    if (signing.in === undefined) return script(request, reply, 404, 'not_found')
    const reading = readForm(bytesOf(request) ?? Buffer.alloc(0))
    const field = (wanted: string): string =>
      'fields' in reading ? (reading.fields.find(({ name }) => name === wanted)?.value ?? '') : ''
    const identity = await signing.in(request, field('username'), field('password'))
    if (identity === undefined) answering.page(reply, 401, pages.signIn(answering.seen(request), true))
    else answering.redirect(standsFor(identity, request, reply), `${prefix}/settings`)
    return reply
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

  /** The code page of a GET that needs a code with the very request: one single-use pass to that path. */
  async function givePass (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const passage = passageOf(request)
    const { who } = whoAsks(request)
    if (!sameOrigin(request, publicOrigin)) return refused(request, reply)
    if (who === undefined) return signedOut(request, reply)
    const { code, rest } = takeCode(bytesOf(request) ?? Buffer.alloc(0))
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
    scope.post('/own/sign-in', own, signIn)
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
