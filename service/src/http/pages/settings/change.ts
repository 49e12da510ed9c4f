// What stands between a person and a change of settings: the login, the step-up, a stale form, a refused code.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Confirmed } from '../../../domain/enrolment.ts'
import { Problem, problemOf } from '../../../domain/problems.ts'
import { ChallengeParams } from '../../schemas.ts'
import { Type } from '../../type.ts'
import type { Banner, Page, PagesNeed, Renderer } from '../page.ts'
import { sayProblem, sayVerdict } from '../verdicts.ts'

/** The path of a form that confirms. */
export const EnrolmentParams = Type.Object(
  { enrolment: ChallengeParams.properties.id },
  { additionalProperties: false }
)

export function createChanges ({ challenges, assurances }: PagesNeed, renderer: Renderer) {
  /** Sends to the verification page; `back` is the page below the prefix that it returns to. */
  const demand = async (page: Page, purpose: 'login' | 'step_up', back: string): Promise<FastifyReply> => {
    const opened = await challenges.open(page.tenant, page.ask, { purpose, returnPath: page.url(back) })
    switch (opened.status) {
      case 'open':
        return page.see(page.url(`verify/${opened.challenge.id}`))
      case 'enrolment_required':
        return page.see(page.url('settings'))
      case 'verified':
      case 'not_required':
        return page.see(page.url(back))
      default:
        return opened satisfies never
    }
  }

  /** Settings are shown to whoever passed the login verification; who must enrol sees them to enrol. */
  const entered = async (
    request: FastifyRequest,
    reply: FastifyReply,
    back: string,
    then: (page: Page) => Promise<FastifyReply>
  ): Promise<FastifyReply> => {
    const page = renderer.page(request, reply)
    const { status } = await assurances.question(page.tenant, page.ask, undefined)
    if (status !== 'verification_required') return await then(page)
    if (page.json) throw new Problem('login_required')
    return await demand(page, 'login', back)
  }

  /** Runs a change; what stands in the way becomes the page that gets it out of the way. */
  const changing = async (
    page: Page,
    back: string,
    work: () => Promise<FastifyReply>,
    retry: (banner: Banner, status: number) => Promise<FastifyReply>
  ): Promise<FastifyReply> => {
    if (!page.formFits()) {
      if (page.json) throw new Problem('forbidden')
      return await retry({ kind: 'warning', text: page.words.say('error.stale_form') }, 403)
    }
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Problem) || page.json) throw error
      if (error.code === 'login_required') return await demand(page, 'login', back)
      if (error.code === 'step_up_required') return await demand(page, 'step_up', back)
      if (error.code === 'not_enabled') return page.see(page.url('settings'))
      const banner = sayProblem(page.words, error)
      if (banner === undefined) throw error
      return await retry(banner, error.statusCode)
    }
  }

  return { entered, changing }
}

export type Changes = ReturnType<typeof createChanges>

/** A confirmed enrolment, or the dialog again with what happened. */
export async function confirmed (
  page: Page,
  result: Confirmed,
  accepted: (codes: readonly string[]) => Promise<FastifyReply>,
  retry: (banner: Banner, status: number) => Promise<FastifyReply>
): Promise<FastifyReply> {
  if (result.verdict === 'accepted') {
    page.bind(result.boundToNext)
    return await accepted(result.backupCodes)
  }
  const problem = problemOf(result, 'enrolment_gone')
  if (page.json) throw problem
  return await retry(sayVerdict(page.words, result, { gone: 'error.enrolment_gone' }), problem.statusCode)
}
