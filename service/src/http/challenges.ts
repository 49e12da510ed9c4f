// /v1/challenges: open, send, answer.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from './type.ts'
import type { Accepted } from '../domain/model.ts'
import type { Challenges, ChallengeView } from '../domain/challenge.ts'
import { Problem, problemOf } from '../domain/problems.ts'
import type { Sealer } from '../domain/ports.ts'
import { toAbout, toBy } from './ask.ts'
import { csrfToken } from './csrf.ts'
import {
  AnswerBody,
  ChallengeBody,
  ChallengeParams,
  OpenBody,
  OpenedBody,
  problems,
  SendBody,
  VerificationBody
} from './schemas.ts'

/** Sent by whoever may have to repeat an answer whose reply was lost. */
export const IdempotencyHeaders = Type.Object({
  'idempotency-key': Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{8,64}$' }))
})

export function challengeBody (view: ChallengeView, csrf: string) {
  return {
    id: view.id,
    purpose: view.purpose,
    methods: [...view.methods],
    attempts_left: view.attemptsLeft,
    expires_in: view.expiresInSeconds,
    wait_for: view.waitForSeconds,
    locked: view.locked,
    masked_address: view.maskedAddress,
    mailed: view.mailed,
    resend_in: view.resendInSeconds,
    csrf
  }
}

export function verificationBody (accepted: Accepted) {
  return {
    assurance: {
      purpose: accepted.purpose,
      factor: accepted.factor,
      expires_in: accepted.expiresInSeconds,
      bound_to_next: accepted.boundToNext,
      backup_codes_left: accepted.backupCodesLeft
    },
    ...(accepted.returnPath === null ? {} : { return_path: accepted.returnPath }),
    ...(accepted.held === null ? {} : { held: accepted.held })
  }
}

export function challengesRoutes ({
  challenges,
  sealer,
  clock
}: {
  readonly challenges: Challenges
  readonly sealer: Sealer
  readonly clock: { readonly now: () => number }
}): FastifyPluginAsyncTypebox {
  return async app => {
    app.post(
      '',
      {
        schema: {
          summary: 'Open a challenge, or get the live one; with a code, answer it in the same call',
          headers: IdempotencyHeaders,
          body: OpenBody,
          response: {
            200: OpenedBody,
            ...problems('bad_request', 'login_required', 'enrolment_required', 'waiting', 'unavailable')
          }
        }
      },
      async request => {
        const { purpose, return_path: returnPath, held, code, record, about } = request.body
        const ask = {
          by: toBy(sealer, request.tenant.id, request.body.by),
          about: toAbout(about),
          requestId: request.id
        }
        const opened = await challenges.open(request.tenant, ask, { purpose, returnPath, held })
        if (opened.status === 'enrolment_required') throw new Problem('enrolment_required')
        if (opened.status !== 'open') return opened
        if (code === undefined) {
          return {
            status: 'open' as const,
            challenge: challengeBody(opened.challenge, csrfToken(sealer, ask.by, clock.now()))
          }
        }
        const verdict = await challenges.answer(request.tenant, ask, opened.challenge.id, code, {
          record,
          idempotencyKey: request.headers['idempotency-key']
        })
        if (verdict.verdict !== 'accepted') throw problemOf(verdict, 'challenge_gone')
        return { status: 'accepted' as const, verification: verificationBody(verdict.accepted) }
      }
    )

    app.post(
      '/:id/email',
      {
        schema: {
          summary: 'Send a code by e-mail; the answer never waits for the mail server',
          params: ChallengeParams,
          body: SendBody,
          response: {
            200: ChallengeBody,
            ...problems('bad_request', 'challenge_gone', 'method_not_available', 'waiting', 'locked', 'unavailable')
          }
        }
      },
      async request => {
        const ask = {
          by: toBy(sealer, request.tenant.id, request.body.by),
          about: toAbout(request.body.about),
          requestId: request.id
        }
        const view = await challenges.send(request.tenant, ask, request.params.id)
        return challengeBody(view, csrfToken(sealer, ask.by, clock.now()))
      }
    )

    app.post(
      '/:id/verification',
      {
        schema: {
          summary: 'Answer a challenge with a code',
          headers: IdempotencyHeaders,
          params: ChallengeParams,
          body: AnswerBody,
          response: {
            200: VerificationBody,
            ...problems('code_malformed', 'code_rejected', 'waiting', 'challenge_gone', 'unavailable')
          }
        }
      },
      async request => {
        const { by, code, about, next_browser: next } = request.body
        const ask = { by: toBy(sealer, request.tenant.id, by), about: toAbout(about), requestId: request.id }
        const nextBrowser =
          next === undefined ? undefined : toBy(sealer, request.tenant.id, { ...by, browser: next }).browser
        const verdict = await challenges.answer(request.tenant, ask, request.params.id, code, {
          nextBrowser,
          idempotencyKey: request.headers['idempotency-key']
        })
        if (verdict.verdict !== 'accepted') throw problemOf(verdict, 'challenge_gone')
        return verificationBody(verdict.accepted)
      }
    )
  }
}
