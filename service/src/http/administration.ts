// Administration by API: an admin key, and `actor`, the person at the console who asks for it.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { Type } from './type.ts'
import type { Administration } from '../domain/administration.ts'
import type { Clock } from '../domain/ports.ts'
import type { Records } from '../domain/records.ts'
import { fromBase64url } from './ask.ts'
import { adminOnly } from './keys.ts'
import { problems, SubjectName, SubjectParams } from './schemas.ts'

const closed = { additionalProperties: false }
const ActorName = Type.String({
  minLength: 1,
  maxLength: 128,
  pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]+$',
  description: 'Who asks, for the audit log'
})
const ActorBody = Type.Object({ actor: ActorName }, closed)
const CodeBody = Type.Object({ enrolment_code: Type.Union([Type.String(), Type.Null()]) }, closed)
const Nothing = Type.Null()
const refusals = problems('bad_request', 'forbidden', 'unavailable')

const EventBody = Type.Object(
  {
    id: Type.Integer(),
    at: Type.String({ format: 'date-time' }),
    subject: Type.String(),
    kind: Type.String(),
    outcome: Type.String(),
    actor: Type.String(),
    purpose: Type.Optional(Type.String()),
    factor: Type.Optional(Type.String()),
    reason: Type.Optional(Type.String()),
    request_id: Type.Optional(Type.String()),
    address_prefix: Type.Optional(Type.String())
  },
  closed
)

export function administrationRoutes ({
  administration,
  records,
  clock
}: {
  readonly administration: Administration
  readonly records: Records
  readonly clock: Clock
}): FastifyPluginAsyncTypebox {
  const actorOf = (
    request: Pick<FastifyRequest, 'tenantKey' | 'id'> & { readonly body: { readonly actor: string } }
  ) => ({ actor: `admin:${request.tenantKey.id}:${request.body.actor}`, requestId: request.id })
  const subjectOf = (request: { readonly params: { readonly subject: string } }) =>
    fromBase64url(request.params.subject)

  return async app => {
    app.addHook('preValidation', adminOnly({ records, clock }))

    app.post(
      '/subjects/:subject/unlock',
      {
        schema: {
          summary: 'Clear waits, counts and the lock; factors stay',
          params: SubjectParams,
          body: ActorBody,
          response: { 204: Nothing, ...refusals }
        }
      },
      async (request, reply) => {
        await administration.unlock(request.tenant, subjectOf(request), actorOf(request))
        return await reply.code(204).send(null)
      }
    )

    app.post(
      '/subjects/:subject/reset',
      {
        schema: {
          summary: 'Remove all factors; nothing passes without the enrolment code that is answered, unless open',
          params: SubjectParams,
          body: Type.Object({ actor: ActorName, open: Type.Optional(Type.Boolean()) }, closed),
          response: { 200: CodeBody, ...refusals }
        }
      },
      async request => ({
        enrolment_code: await administration.reset(request.tenant, subjectOf(request), actorOf(request), {
          open: request.body.open ?? false
        })
      })
    )

    app.post(
      '/subjects/:subject/enrolment-code',
      {
        schema: {
          summary: 'A single-use code for a first enrolment',
          params: SubjectParams,
          body: ActorBody,
          response: { 200: CodeBody, ...refusals }
        }
      },
      async request => ({
        enrolment_code: await administration.enrolmentCode(request.tenant, subjectOf(request), actorOf(request))
      })
    )

    app.post(
      '/subjects/:subject/rename',
      {
        schema: {
          summary: 'Move a subject to another id',
          params: SubjectParams,
          body: Type.Object({ actor: ActorName, to: SubjectName }, closed),
          response: { 204: Nothing, ...refusals, ...problems('target_has_factors', 'not_found') }
        }
      },
      async (request, reply) => {
        await administration.rename(request.tenant, subjectOf(request), actorOf(request), request.body.to)
        return await reply.code(204).send(null)
      }
    )

    app.delete(
      '/subjects/:subject',
      {
        schema: {
          summary: 'Erase a subject; audit rows keep it as a keyed hash',
          params: SubjectParams,
          body: ActorBody,
          response: { 204: Nothing, ...refusals }
        }
      },
      async (request, reply) => {
        await administration.remove(request.tenant, subjectOf(request), actorOf(request))
        return await reply.code(204).send(null)
      }
    )

    app.put(
      '/subjects/:subject/requirement',
      {
        schema: {
          summary: 'Require 2FA of this subject, from a date on; null lifts it',
          params: SubjectParams,
          body: Type.Object(
            {
              actor: ActorName,
              from: Type.Union([Type.String({ pattern: '^\\d{4}-\\d{2}-\\d{2}(T[0-9:.]+Z)?$' }), Type.Null()])
            },
            closed
          ),
          response: { 204: Nothing, ...refusals }
        }
      },
      async (request, reply) => {
        const { from } = request.body
        await administration.require(
          request.tenant,
          subjectOf(request),
          actorOf(request),
          from === null ? null : Date.parse(from)
        )
        return await reply.code(204).send(null)
      }
    )

    app.put(
      '/subjects/:subject/address',
      {
        schema: {
          summary: 'The address that codes go to, at once; null goes back to the proven one',
          params: SubjectParams,
          body: Type.Object(
            { actor: ActorName, address: Type.Union([Type.String({ maxLength: 254 }), Type.Null()]) },
            closed
          ),
          response: { 204: Nothing, ...refusals }
        }
      },
      async (request, reply) => {
        await administration.address(request.tenant, subjectOf(request), actorOf(request), request.body.address)
        return await reply.code(204).send(null)
      }
    )

    app.get(
      '/subjects/:subject/sessions',
      {
        schema: {
          summary: 'Sessions that passed a login verification',
          params: SubjectParams,
          response: {
            200: Type.Object(
              {
                sessions: Type.Array(
                  Type.Object(
                    {
                      session_ref: Type.String(),
                      factor: Type.String(),
                      age: Type.Integer(),
                      expires_in: Type.Integer()
                    },
                    closed
                  )
                )
              },
              closed
            ),
            ...refusals
          }
        }
      },
      async request => {
        const now = clock.now()
        const sessions = await records.sessions(request.tenant.id, subjectOf(request), now)
        return {
          sessions: sessions.map(one => ({
            session_ref: one.session,
            factor: one.factor,
            age: Math.floor((now - one.at) / 1000),
            expires_in: Math.floor((one.expiresAt - now) / 1000)
          }))
        }
      }
    )

    app.get(
      '/events',
      {
        schema: {
          summary: 'Audit records, oldest first, after a cursor',
          querystring: Type.Object(
            {
              after: Type.Optional(Type.String({ pattern: '^\\d{1,15}$' })),
              limit: Type.Optional(Type.String({ pattern: '^\\d{1,4}$' })),
              subject: Type.Optional(SubjectParams.properties.subject)
            },
            closed
          ),
          response: {
            200: Type.Object(
              {
                events: Type.Array(EventBody),
                next: Type.Integer({ description: 'Pass as `after` for what follows' })
              },
              closed
            ),
            ...refusals
          }
        }
      },
      async request => {
        const { after = '0', limit = '100', subject } = request.query
        const rows = await records.events(
          request.tenant.id,
          Number(after),
          Math.min(Math.max(Number(limit), 1), 1000),
          subject === undefined ? undefined : fromBase64url(subject)
        )
        return {
          events: rows.map(
            ({ id, at, subject, kind, outcome, actor, purpose, factor, reason, requestId, addressPrefix }) => ({
              id,
              at: new Date(at).toISOString(),
              subject,
              kind,
              outcome,
              actor,
              ...(purpose === undefined ? {} : { purpose }),
              ...(factor === undefined ? {} : { factor }),
              ...(reason === undefined ? {} : { reason }),
              ...(requestId === undefined ? {} : { request_id: requestId }),
              ...(addressPrefix === undefined ? {} : { address_prefix: addressPrefix })
            })
          ),
          next: rows.at(-1)?.id ?? Number(after)
        }
      }
    )
  }
}
