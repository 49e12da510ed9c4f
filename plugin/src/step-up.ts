// Is the verification fresh enough for this route? If not: the inline code, or a challenge to answer.

import type { FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import type { Remembered } from './cache.ts'
import type { Client } from './client.ts'
import { CODE_FIELD, takeCode } from './forms.ts'
import { deny, PASSED, refuse, stateOf, type Decision, type Passage } from './gate.ts'
import type { About, Clock, ServiceProblem, Who } from './model.ts'
import { returnPath } from './path.ts'
import { isDocument, mediaType } from './requests.ts'
import type { Rule } from './rules.ts'
import type { StepUpPasses } from './step-up-passes.ts'

export interface StepUp {
  /** Before the body is read. */
  readonly beforeBody: (passage: Passage) => Decision | Promise<Decision>
  /** With the code that the body held. */
  readonly afterBody: (passage: Passage, code: string | undefined) => Promise<Decision>
  /** Asked for by a handler. */
  readonly ask: (passage: Passage, asked: NonNullable<Rule['stepUp']>) => Promise<Decision>
}

export interface StepUpParts {
  readonly client: Client
  readonly assurances: Assurances
  readonly passes: StepUpPasses
  readonly about: (request: FastifyRequest, who: Who) => About
  readonly now: Clock
  /** Mode `observe`: say what would be refused, open nothing. */
  readonly observing: boolean
}

export function createStepUp ({ client, assurances, passes, about, now, observing }: StepUpParts): StepUp {
  function fresh (answer: Remembered, maxAge: number): boolean {
    return maxAge > 0 && answer.stepUpAt !== null && now() - answer.stepUpAt <= maxAge * 1000
  }

  async function decide (
    passage: Passage,
    asked: NonNullable<Rule['stepUp']>,
    code: string | undefined
  ): Promise<Decision> {
    const { who, request } = passage
    if (who === undefined || passage.answer === undefined) return refuse(403, 'denied', 'nobody is logged in')
    const { maxAge, action } = asked
    if (passage.grace) return unavailable(5)
    if (maxAge > 0 && !passage.asked) {
      // What is remembered may pass, but never refuse: the code may just have been given on another replica.
      const standing = await assurances.ask(who)
      passage.asked = true
      if (standing.standing === 'away') return unavailable(standing.retryAfter)
      if (standing.standing === 'unclear') return deny({ denial: 'unavailable', retryAfter: 30, code: standing.code })
      if (standing.standing !== 'passed') { return deny({ denial: standing.standing === 'enrolment_required' ? 'enrol' : 'login' }) }
      // Grace is for login only.
      if (standing.grace) return unavailable(5)
      passage.answer = standing.answer
      if (fresh(passage.answer, maxAge)) return PASSED
    }
    const ask = {
      by: assurances.by(who),
      purpose: 'step_up' as const,
      about: {
        ...about(request, who),
        action: (action ?? `${request.method} ${pathOf(passage.target)}`).slice(0, 255)
      }
    }
    if (observing) return refuse(401, 'step_up', 'a step-up that is not fresh')
    if (code !== undefined && code !== '') {
      const answered = await client.open({ ...ask, code: code.slice(0, 64), record: maxAge > 0 })
      if (answered.outcome === 'away') return unavailable(answered.retryAfter)
      if (answered.outcome === 'answer') {
        if (answered.answer.status !== 'accepted' && answered.answer.status !== 'not_required') return unavailable(5)
        // The remembered age of the step-up is out of date.
        assurances.forgetSession(who.identity.kind, who.identity.session)
        return {
          decision: 'pass',
          state: {
            ...stateOf(passage.answer, now),
            stepUp: answered.answer.status === 'accepted' ? { age: 0, factor: 'code' } : null
          }
        }
      }
      if (!VERDICTS.has(answered.problem.code)) return otherwise(answered.problem)
      const opened = await client.open(ask)
      if (opened.outcome === 'answer' && opened.answer.status === 'open') {
        return deny({
          denial: 'step_up',
          challenge: opened.answer.challenge,
          maxAge,
          action,
          rejected: answered.problem
        })
      }
      return opened.outcome === 'problem' ? otherwise(opened.problem) : unavailable(5)
    }
    const opened = await client.open(isDocument(request) ? { ...ask, returnPath: returnPath(passage.target) } : ask)
    if (opened.outcome === 'away') return unavailable(opened.retryAfter)
    if (opened.outcome === 'problem') return otherwise(opened.problem)
    if (opened.answer.status === 'not_required') return PASSED
    if (opened.answer.status !== 'open') return unavailable(5)
    return deny({ denial: 'step_up', challenge: opened.answer.challenge, maxAge, action, rejected: undefined })
  }

  return {
    beforeBody: passage => {
      const { rule, answer, who, request } = passage
      if (rule.stepUp === null || answer === undefined || who === undefined) { return refuse(403, 'denied', 'nobody is logged in') }
      if (passage.grace) return unavailable(5)
      if (fresh(answer, rule.stepUp.maxAge)) return PASSED
      if (passes.size() > 0 && request.method === 'GET' && passes.use(who.key, passage.target)) return PASSED
      if (passage.code === undefined && codeMayBeInBody(request)) return { decision: 'read_body' }
      return decide(passage, rule.stepUp, passage.code)
    },
    afterBody: async (passage, code) => {
      const { stepUp } = passage.rule
      return stepUp === null
        ? refuse(403, 'denied', 'no rule lets this request pass')
        : await decide(passage, stepUp, code)
    },
    ask: async (passage, asked) => {
      const { answer } = passage
      return answer !== undefined && !passage.grace && fresh(answer, asked.maxAge)
        ? PASSED
        : await decide(passage, asked, passage.code)
    }
  }
}

/** Verdicts on a code that was submitted; the person may try again. */
export const VERDICTS: ReadonlySet<string> = new Set(['code_malformed', 'code_rejected', 'code_used', 'waiting', 'locked', 'challenge_gone'])

function otherwise ({ code, retryAfter = 30 }: ServiceProblem): Decision {
  if (code === 'login_required') return deny({ denial: 'login' })
  if (code === 'enrolment_required') return deny({ denial: 'enrol' })
  return deny({ denial: 'unavailable', retryAfter, code })
}

function unavailable (retryAfter: number): Decision {
  return deny({ denial: 'unavailable', retryAfter, code: 'unavailable' })
}

function pathOf (target: string): string {
  const mark = target.indexOf('?')
  return mark === -1 ? target : target.slice(0, mark)
}

function codeMayBeInBody (request: FastifyRequest): boolean {
  if (request.method === 'GET' || request.method === 'HEAD' || request.method === 'OPTIONS') return false
  const type = mediaType(request)
  return type === 'application/x-www-form-urlencoded' || type === 'application/json' || type.endsWith('+json')
}

/** Takes the code out of a parsed body, so that neither schema nor handler sees it. `null` = not one code. */
export function takeCodeFromBody (request: FastifyRequest): string | null | undefined {
  const { body } = request
  if (typeof body === 'string' || Buffer.isBuffer(body)) {
    if (mediaType(request) !== 'application/x-www-form-urlencoded') return undefined
    const { code, rest } = takeCode(Buffer.from(body))
    request.body = typeof body === 'string' ? rest.toString() : rest
    return code
  }
  if (body instanceof URLSearchParams) {
    const codes = body.getAll(CODE_FIELD)
    body.delete(CODE_FIELD)
    return codes.length > 1 ? null : codes[0]
  }
  if (typeof body !== 'object' || body === null) return undefined
  let code: string | null | undefined
  for (const name of Object.keys(body)) {
    if (name.length !== CODE_FIELD.length || name.toLowerCase().replace('_', '-') !== CODE_FIELD) continue
    const value: unknown = Reflect.get(body, name)
    Reflect.deleteProperty(body, name)
    code = code === undefined && typeof value === 'string' ? value : null
  }
  return code
}
