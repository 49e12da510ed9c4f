// /v1/assurances/{session}: the gate's question (hot path), rotation, log-out; /v1/sessions/{session}.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from './type.ts'
import type { Assurances } from '../domain/assurance.ts'
import { Problem } from '../domain/problems.ts'
import type { Clock, Sealer } from '../domain/ports.ts'
import type { Records } from '../domain/records.ts'
import { fromBase64url, sessionName, toBy } from './ask.ts'
import { BrowserName, GateAnswerBody, problems, SessionName, SessionParams } from './schemas.ts'

const QuestionHeaders = Type.Object({
  'postern-subject': Type.String({ pattern: '^[A-Za-z0-9_-]{2,340}$' }),
  'postern-browser': BrowserName,
  'postern-exempt': Type.Optional(Type.String({ maxLength: 32 }))
})

export function assurancesRoutes ({
  assurances,
  sealer
}: {
  readonly assurances: Assurances
  readonly sealer: Sealer
}): FastifyPluginAsyncTypebox {
  return async app => {
    app.get(
      '/:session',
      {
        schema: {
          summary: "The gate's question: what may this session do now?",
          params: SessionParams,
          headers: QuestionHeaders,
          response: { 200: GateAnswerBody, ...problems('bad_request', 'unavailable') }
        }
      },
      async request => {
        const by = toBy(sealer, request.tenant.id, {
          subject: fromBase64url(request.headers['postern-subject']),
          session: request.params.session,
          browser: request.headers['postern-browser']
        })
        const answer = await assurances.question(
          request.tenant,
          { by, about: {}, requestId: request.id },
          request.headers['postern-exempt']
        )
        return {
          status: answer.status,
          login: answer.login === null ? null : { expires_in: answer.login.expiresInSeconds },
          step_up: answer.stepUp === null ? null : { age: answer.stepUp.ageSeconds, factor: answer.stepUp.factor },
          totp: answer.totp,
          session_ref: by.session,
          change: answer.change
        }
      }
    )

    app.post(
      '/:session/move',
      {
        schema: {
          summary: 'The console rotated its session id: move what the session passed',
          params: SessionParams,
          body: Type.Object({ to: SessionName }, { additionalProperties: false }),
          response: {
            200: Type.Object({ moved: Type.Boolean() }, { additionalProperties: false }),
            ...problems('bad_request', 'unavailable')
          }
        }
      },
      async request => ({
        moved: await assurances.move(
          request.tenant,
          sessionName(sealer, request.tenant.id, request.params.session),
          sessionName(sealer, request.tenant.id, request.body.to)
        )
      })
    )

    app.delete(
      '/:session',
      {
        schema: {
          summary: 'Log-out: end what the session passed',
          params: SessionParams,
          response: { 204: Type.Null(), ...problems('unavailable') }
        }
      },
      async (request, reply) => {
        await assurances.end(
          request.tenant,
          sessionName(sealer, request.tenant.id, request.params.session),
          request.id
        )
        return await reply.code(204).send(null)
      }
    )
  }
}

export function sessionsRoutes ({
  records,
  sealer,
  clock
}: {
  readonly records: Records
  readonly sealer: Sealer
  readonly clock: Clock
}): FastifyPluginAsyncTypebox {
  return async app => {
    app.get(
      '/:session',
      {
        schema: {
          summary: 'The subject recorded with a session',
          params: SessionParams,
          response: {
            200: Type.Object({ subject: Type.String() }, { additionalProperties: false }),
            ...problems('not_found', 'unavailable')
          }
        }
      },
      async request => {
        const subject = await records.subjectOf(
          request.tenant.id,
          sessionName(sealer, request.tenant.id, request.params.session),
          clock.now()
        )
        if (subject === undefined) throw new Problem('not_found')
        return { subject }
      }
    )
  }
}
