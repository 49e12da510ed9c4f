// What the hosted pages answer by themselves, as a page to people and as a problem to scripts.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Answering } from './carry.ts'
import type { LoggedIn } from './model.ts'
import type { Settings } from './options.ts'
import type { OwnPages } from './own-pages.ts'
import type { ProblemCode } from './problems.ts'
import { isNavigation } from './requests.ts'

export interface PageAnswersParts {
  readonly settings: Pick<Settings, 'tokenInScript'>
  readonly answering: Answering
  readonly pages: OwnPages
  readonly signing: Signing
}

/** Where a gateway can log somebody in at the console: with its answer to a user name and a password. */
export interface Signing {
  in?: (request: FastifyRequest, name: string, password: string) => Promise<LoggedIn | undefined>
}

export type PageAnswers = ReturnType<typeof createPageAnswers>

export function createPageAnswers ({ settings, answering, pages, signing }: PageAnswersParts) {
  function script (request: FastifyRequest, reply: FastifyReply, status: number, code: ProblemCode): FastifyReply {
    answering.problem(request, reply, status, code)
    return reply
  }

  function signedOut (request: FastifyRequest, reply: FastifyReply): FastifyReply {
    if (!isNavigation(request)) return script(request, reply, 401, 'login_required')
    const seen = answering.seen(request)
    const { tokenInScript } = settings
    answering.page(reply, 401, request.method === 'GET' && tokenInScript !== undefined
      ? pages.handOver(seen, tokenInScript)
      : signing.in === undefined ? pages.signedOut(seen) : pages.signIn(seen, false))
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
