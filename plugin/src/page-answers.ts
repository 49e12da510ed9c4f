// What the hosted pages answer by themselves, as a page to people and as a problem to scripts.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Answering } from './carry.ts'
import type { Settings } from './options.ts'
import type { OwnPages } from './own-pages.ts'
import type { ProblemCode } from './problems.ts'
import { isNavigation } from './requests.ts'

export interface PageAnswersParts {
  readonly settings: Pick<Settings, 'tokenInScript'>
  readonly answering: Answering
  readonly pages: OwnPages
}

export type PageAnswers = ReturnType<typeof createPageAnswers>

export function createPageAnswers ({ settings, answering, pages }: PageAnswersParts) {
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

  return { script, signedOut, refused, cookiesNeeded, later }
}
