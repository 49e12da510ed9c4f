// One page request: who asks, in which words, and how a view becomes an answer.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Eta } from 'eta'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Assurances } from '../../domain/assurance.ts'
import type { Challenges } from '../../domain/challenge.ts'
import type { Enrolments } from '../../domain/enrolment.ts'
import type { Ask } from '../../domain/model.ts'
import { Problem } from '../../domain/problems.ts'
import type { Clock, Sealer } from '../../domain/ports.ts'
import type { TenantConfig } from '../../tenants.ts'
import { readAsk, readNextBrowser } from '../ask.ts'
import { csrfFits, csrfToken } from '../csrf.ts'
import { ICONS } from './icons.ts'
import { loadLanguages, type Words } from './words.ts'
import { PACKAGE_FOLDER } from '../../package-folder.ts'

/** No inline script or style, no frames, nothing from elsewhere. */
const HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'cache-control': 'no-store',
  'content-security-policy':
    "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'referrer-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY'
} as const

/** What the pages need of the domain. */
export interface PagesNeed {
  readonly challenges: Challenges
  readonly enrolments: Enrolments
  readonly assurances: Assurances
  readonly sealer: Sealer
  readonly clock: Clock
}

/** A message over a form: what happened, in the colour it deserves. */
export interface Banner {
  readonly kind: 'error' | 'warning' | 'info'
  readonly text: string
}

export interface Page {
  readonly tenant: TenantConfig
  readonly ask: Ask
  readonly words: Words
  readonly nextBrowser: string | undefined
  /** A path below the prefix. */
  readonly url: (path: string) => string
  /** Scripts ask for JSON; people get HTML. */
  readonly json: boolean
  /** A field of the posted form; never an array. */
  readonly field: (name: string) => string | undefined
  /** Was the form made by us for this `by`, not long ago? */
  readonly formFits: () => boolean
  readonly show: (view: string, data: Readonly<Record<string, unknown>>, status?: number) => FastifyReply
  /** The same for a script. */
  readonly answer: (body: Readonly<Record<string, unknown>>) => FastifyReply
  readonly see: (location: string) => FastifyReply
  /** Tells the plugin that the assurance belongs to the next browser. */
  readonly bind: (bound: boolean) => void
}

interface Asset {
  readonly name: string
  readonly type: string
  readonly body: Buffer
  readonly hash: string
}

function loadAsset (name: string, type: string): Asset {
  const body = readFileSync(new URL(`browser/${name}`, PACKAGE_FOLDER))
  return { name, type, body, hash: createHash('sha256').update(body).digest('hex').slice(0, 12) }
}

export function createRenderer ({ sealer, clock }: Pick<PagesNeed, 'sealer' | 'clock'>) {
  const languages = loadLanguages()
  const eta = new Eta({
    views: fileURLToPath(new URL('views', PACKAGE_FOLDER)),
    cache: true,
    autoTrim: false
  })
  const assets = [
    loadAsset('style.css', 'text/css; charset=utf-8'),
    loadAsset('page.js', 'text/javascript; charset=utf-8')
  ]

  const wordsFor = (request: FastifyRequest, locale: string | undefined): Words => {
    const chosen = request.headers['postern-lang']
    return languages.choose(
      typeof chosen === 'string' ? chosen : undefined,
      request.headers['accept-language'],
      locale
    )
  }
  const prefixOf = (request: FastifyRequest): string => {
    const given = request.headers['postern-prefix']
    return typeof given === 'string' && /^(\/[A-Za-z0-9._~-]+)*$/.test(given) ? given : '/2fa'
  }
  const wantsJson = (request: FastifyRequest): boolean => {
    const accept = request.headers.accept ?? ''
    return accept.includes('json') && !accept.includes('text/html')
  }

  const render = (
    request: FastifyRequest,
    reply: FastifyReply,
    words: Words,
    view: string,
    data: Readonly<Record<string, unknown>>,
    status: number
  ): FastifyReply => {
    const prefix = prefixOf(request)
    const notes =
      typeof request.headers['postern-notes'] === 'string' ? request.headers['postern-notes'].split(',') : []
    const html = eta.render(view, {
      language: words.language,
      languages: languages.names,
      // The answer to a form may hold what is shown once: following a link would lose it.
      switchable: request.method === 'GET',
      console: request.tenant.name,
      say: words.say,
      time: words.time,
      date: words.date,
      has: words.has,
      icon: (name: keyof typeof ICONS) => ICONS[name],
      url: (path: string) => `${prefix}/${path}`,
      asset: (name: string) => `${prefix}/assets/${assets.find(one => one.name === name)?.hash ?? '0'}/${name}`,
      notes: notes.filter(note => words.has(`notes.${note}`)),
      banner: undefined,
      wide: false,
      ...data
    })
    return reply.code(status).headers(HEADERS).header('content-language', words.language).send(html)
  }

  return {
    assets,

    /** Reads a request of somebody who is logged in to the console; Problem `login_required` for a visitor. */
    page: (request: FastifyRequest, reply: FastifyReply): Page => {
      const ask = readAsk(sealer, request)
      if (ask === undefined) throw new Problem('login_required')
      const words = wordsFor(request, ask.about.locale)
      const field = (name: string): string | undefined => {
        const { body } = request
        if (typeof body !== 'object' || body === null || !Object.hasOwn(body, name)) return undefined
        const value: unknown = Reflect.get(body, name)
        return typeof value === 'string' ? value : undefined
      }
      const prefix = prefixOf(request)
      const by = ask.by
      return {
        tenant: request.tenant,
        ask: { ...ask, about: { ...ask.about, locale: ask.about.locale ?? words.language } },
        words,
        nextBrowser: readNextBrowser(sealer, request),
        url: path => `${prefix}/${path}`,
        json: wantsJson(request),
        field,
        formFits: () => csrfFits(sealer, by, clock.now(), field('csrf')),
        show: (view, data, status = 200) =>
          render(
            request,
            reply,
            words,
            view,
            {
              csrf: csrfToken(sealer, by, clock.now()),
              key: randomBytes(16).toString('base64url'),
              ...data
            },
            status
          ),
        answer: body =>
          reply
            .headers({ 'cache-control': 'no-store', 'content-type': 'application/json; charset=utf-8' })
            .send(JSON.stringify(body)),
        see: location =>
          reply.code(303).headers({ 'cache-control': 'no-store', 'referrer-policy': 'same-origin', location }).send(),
        bind: bound => {
          if (bound) reply.header('postern-bind', 'next')
        }
      }
    },

    wantsJson,

    /** A failure as a page: what it means for the person, and a number to quote. */
    failure: (request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply => {
      const words = wordsFor(request, undefined)
      const text =
        problem.code === 'unavailable' || problem.code === 'rate_limited'
          ? 'failure.busy'
          : problem.code === 'not_found'
            ? 'failure.not_found'
            : problem.statusCode < 500
              ? 'failure.bad_request'
              : 'failure.text'
      const retryAfter = problem.details.retry_after ?? (problem.statusCode === 503 ? 2 : undefined)
      if (retryAfter !== undefined) reply.header('retry-after', String(retryAfter))
      return render(
        request,
        reply,
        words,
        'message',
        {
          title: words.say('failure.title'),
          lines: [words.say(text)],
          id: request.id,
          switchable: false,
          next: { href: '', label: words.say('failure.retry') }
        },
        problem.statusCode
      )
    }
  }
}

export type Renderer = ReturnType<typeof createRenderer>
