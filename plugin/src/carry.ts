// Carries a denial out: a redirect for documents, a page for posted forms, a problem document for scripts.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import { browserName, type Binding } from './binding.ts'
import type { Client } from './client.ts'
import { readForm } from './forms.ts'
import type { Denial, Passage } from './gate.ts'
import { chosenLanguage } from './language.ts'
import type { About, Who } from './model.ts'
import type { Settings } from './options.ts'
import { CONTENT_SECURITY_POLICY, type OwnPage, type OwnPages, type Seen } from './own-pages.ts'
import { returnPath } from './path.ts'
import { problemDocument } from './problems.ts'
import { isDocument, isNavigation, sameOrigin } from './requests.ts'

export interface Answering {
  /** Sends the answer of a denial. Does not wait for it to be written. */
  readonly carry: (passage: Passage, denial: Denial, reply: FastifyReply) => Promise<void>
  readonly page: (reply: FastifyReply, status: number, page: OwnPage) => void
  /** A 303 within the console's own origin. */
  readonly redirect: (reply: FastifyReply, location: string) => void
  /** What every answer of ours says of itself, but files: not stored, not guessed at, and told to no other origin. */
  readonly common: (reply: FastifyReply) => FastifyReply
  /** A problem document for scripts. */
  readonly problem: (
    request: FastifyRequest,
    reply: FastifyReply,
    status: number,
    code: string,
    members?: Readonly<Record<string, unknown>>
  ) => void
  /** The service takes no call of this client right now: a page for people, a problem for scripts. */
  readonly later: (
    request: FastifyRequest,
    reply: FastifyReply,
    seconds: number,
    code?: string,
    passage?: Passage
  ) => void
  readonly seen: (request: FastifyRequest, passage?: Passage) => Seen
  /** The text of a problem document, where no reply of Fastify's is at hand. */
  readonly document: typeof problemDocument
  /** Opens (or continues) the login verification in a browser that is bound by the answer. */
  readonly toVerification: (
    passage: Passage,
    who: Who,
    path: string,
    reply: FastifyReply,
    verified?: 'return'
  ) => Promise<void>
}

export interface AnsweringParts {
  readonly settings: Pick<Settings, 'prefix' | 'publicOrigin' | 'deniedStatus' | 'denied'>
  readonly client: Client
  readonly assurances: Assurances
  readonly binding: Binding
  readonly pages: OwnPages
  readonly about: (request: FastifyRequest, who: Who) => About
}

export function createAnswering ({ settings, client, assurances, binding, pages, about }: AnsweringParts): Answering {
  const { prefix, publicOrigin } = settings

  function seen (request: FastifyRequest, passage?: Passage): Seen {
    return {
      locale: chosenLanguage(request) ?? passage?.who?.identity.locale,
      acceptLanguage: request.headers['accept-language'],
      requestId: String(request.id)
    }
  }

  function common (reply: FastifyReply): FastifyReply {
    return reply
      .header('cache-control', 'no-store')
      .header('referrer-policy', 'same-origin')
      .header('x-content-type-options', 'nosniff')
  }

  function page (reply: FastifyReply, status: number, { html, charset }: OwnPage): void {
    void common(reply)
      .code(status)
      .headers({
        'content-type': `text/html; charset=${charset}`,
        'content-security-policy': CONTENT_SECURITY_POLICY,
        'cross-origin-opener-policy': 'same-origin',
        'x-frame-options': 'DENY'
      })
      .send(html)
  }

  function problem (
    request: FastifyRequest,
    reply: FastifyReply,
    status: number,
    code: string,
    members: Readonly<Record<string, unknown>> = {}
  ): void {
    const said = settings.denied?.(request, { status, code, members })
    if (said !== undefined) {
      // A refusal that says 200 in the console's own way is still one; one that says nothing of its type has none.
      void common(reply).code(said.status).headers({ ...said.headers }).send(said.body ?? '')
      return
    }
    const document = problemDocument(status, code, { request_id: String(request.id), ...members })
    void common(reply).code(status).header('content-type', 'application/problem+json').send(document)
  }

  function redirect (reply: FastifyReply, location: string): void {
    void common(reply).code(303).header('location', location).send('')
  }

  /** A browser that can be bound: the one it has where it is well formed, else a fresh one. */
  function bound (who: Who, reply: FastifyReply): Who {
    const value = binding.wellFormed(who.binding) ? who.binding : binding.fresh()
    void reply.header('set-cookie', binding.cookie(value))
    return { ...who, binding: value }
  }

  async function toVerification (
    { request }: Passage,
    who: Who,
    path: string,
    reply: FastifyReply,
    verified?: 'return'
  ): Promise<void> {
    const value = binding.wellFormed(who.binding) ? who.binding : binding.fresh()
    const opened = await client.open({
      by: { ...assurances.by(who), browser: browserName(value) },
      purpose: 'login',
      about: about(request, who),
      returnPath: path
    })
    if (opened.outcome === 'problem' && opened.problem.code === 'enrolment_required') return toEnrolment(who, reply)
    if (verified === 'return' && opened.outcome === 'answer' && opened.answer.status !== 'open') { return redirect(reply, path) }
    if (opened.outcome === 'problem') {
      return later(request, reply, opened.problem.retryAfter ?? 1, opened.problem.code)
    }
    // Verified in another tab a moment ago: nothing to answer, and the next question says so.
    if (opened.outcome !== 'answer' || opened.answer.status !== 'open') return later(request, reply, 1)
    void reply.header('set-cookie', binding.cookie(value))
    redirect(reply, `${prefix}/verify/${opened.answer.challenge.id}`)
  }

  function toEnrolment (who: Who, reply: FastifyReply): void {
    bound(who, reply)
    redirect(reply, `${prefix}/enrol`)
  }

  function later (
    request: FastifyRequest,
    reply: FastifyReply,
    seconds: number,
    code = 'unavailable',
    passage?: Passage
  ): void {
    void reply.header('retry-after', String(seconds))
    const tooMany = code === 'rate_limited'
    const status = tooMany ? 429 : 503
    if (isNavigation(request)) {
      return page(reply, status, pages[tooMany ? 'tooMany' : 'away'](seen(request, passage), seconds))
    }
    problem(request, reply, status, tooMany ? code : 'unavailable', {
      retry_after: seconds,
      ...(tooMany || code === 'unavailable' ? {} : { detail: code })
    })
  }

  function stepUp (passage: Passage, denial: Extract<Denial, { denial: 'step_up' }>, reply: FastifyReply): void {
    const { request, target, who, form } = passage
    const { challenge, maxAge, action, rejected } = denial
    void reply.header(
      'www-authenticate',
      `Bearer error="insufficient_user_authentication", error_description="A fresh verification is needed", max_age=${maxAge}`
    )
    if (isDocument(request) && who !== undefined) {
      if (maxAge === 0) {
        return page(
          reply,
          401,
          pages.code(seen(request, passage), {
            challenge,
            action,
            rejected,
            target: `${prefix}/own/pass`,
            fields: [{ name: 'target', value: returnPath(target) }],
            charset: 'utf-8',
            carried: false
          })
        )
      }
      if (binding.wellFormed(who.binding)) void reply.header('set-cookie', binding.cookie(who.binding))
      void reply.removeHeader('www-authenticate')
      return redirect(reply, `${prefix}/verify/${challenge.id}`)
    }
    if (isNavigation(request)) {
      const reading = form !== undefined && sameOrigin(request, publicOrigin) ? readForm(form) : undefined
      if (reading === undefined || 'unfit' in reading) return page(reply, 401, pages.first(seen(request, passage), challenge.id))
      return page(
        reply,
        401,
        pages.code(seen(request, passage), { challenge, action, rejected, target, ...reading, carried: true })
      )
    }
    problem(request, reply, settings.deniedStatus, rejected?.code ?? 'step_up_required', {
      challenge: challenge.id,
      methods: challenge.methods,
      csrf: challenge.csrf,
      max_age: maxAge,
      attempts_left: challenge.attemptsLeft,
      wait_for: challenge.waitFor,
      locked: challenge.locked,
      ...(action === undefined ? {} : { action }),
      verify_url: `${prefix}/verify/${challenge.id}`,
      mailed: challenge.mailed,
      resend_in: challenge.resendIn,
      ...(challenge.maskedAddress === null ? {} : { masked_address: challenge.maskedAddress }),
      ...(rejected?.retryAfter === undefined ? {} : { retry_after: rejected.retryAfter }),
      ...(rejected?.nextIn === undefined ? {} : { next_in: rejected.nextIn })
    })
  }

  return {
    page,
    redirect,
    common,
    problem,
    later,
    document: problemDocument,
    seen,
    toVerification,
    carry: async (passage, denial, reply) => {
      const { request, target, who } = passage
      const people = isNavigation(request)
      switch (denial.denial) {
        case 'refused':
          if (people) {
            return page(
              reply,
              denial.status,
              denial.status === 413 ? pages.first(seen(request, passage)) : pages.refused(seen(request, passage))
            )
          }
          return problem(request, reply, denial.status, denial.code, { detail: denial.detail })
        case 'login':
          if (isDocument(request) && who !== undefined) {
            return await toVerification(passage, who, returnPath(target), reply)
          }
          if (people) return page(reply, settings.deniedStatus, pages.first(seen(request, passage)))
          return problem(request, reply, settings.deniedStatus, 'login_required', { verify_url: `${prefix}/verify` })
        case 'enrol':
          if (isDocument(request) && who !== undefined) return toEnrolment(who, reply)
          return problem(request, reply, 403, 'enrolment_required', { verify_url: `${prefix}/enrol` })
        case 'step_up':
          return stepUp(passage, denial, reply)
        case 'unavailable':
          return later(request, reply, denial.retryAfter, denial.code, passage)
        default:
          return denial satisfies never
      }
    }
  }
}
