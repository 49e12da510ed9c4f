// /v1/subjects/{subject}: status, and the enrolments that a person makes through `by`.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { Type } from './type.ts'
import type { Assurances } from '../domain/assurance.ts'
import type { Confirmed, Enrolments, SettingsView } from '../domain/enrolment.ts'
import { Problem, problemOf } from '../domain/problems.ts'
import type { Sealer } from '../domain/ports.ts'
import { fromBase64url, toAbout, toBy, toSubject } from './ask.ts'
import { qrSvg } from './qr.ts'
import {
  AboutBody,
  ByBody,
  Code,
  EnrolmentParams,
  problems,
  SubjectParams,
  TotpStatusName,
  type AboutWire,
  type ByWire
} from './schemas.ts'

const closed = { additionalProperties: false }
const Next = Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }))
const Confirm = Type.Object({ by: ByBody, about: Type.Optional(AboutBody), code: Code, next_browser: Next }, closed)
const Proof = Type.Optional(Code)
const ByOnly = Type.Object({ by: ByBody, about: Type.Optional(AboutBody) }, closed)
const Nothing = Type.Null()

const ConfirmedBody = Type.Object({ backup_codes: Type.Array(Type.String()), bound_to_next: Type.Boolean() }, closed)

export const SettingsBody = Type.Object(
  {
    totp: Type.Object({ status: TotpStatusName, age_days: Type.Union([Type.Integer(), Type.Null()]) }, closed),
    email: Type.Object(
      {
        offered: Type.Boolean(),
        on: Type.Boolean(),
        applies: Type.Boolean(),
        masked_address: Type.Union([Type.String(), Type.Null()])
      },
      closed
    ),
    backup_codes: Type.Object({ left: Type.Integer(), of: Type.Integer() }, closed),
    locked: Type.Boolean(),
    must_enrol: Type.Boolean(),
    proof: Type.Union([Type.Literal('none'), Type.Literal('email'), Type.Literal('enrolment_code')])
  },
  closed
)

export function settingsBody (view: SettingsView, now: number) {
  return {
    totp: {
      status: view.totp.status,
      age_days: view.totp.confirmedAt === null ? null : Math.floor((now - view.totp.confirmedAt) / 86_400_000)
    },
    email: {
      offered: view.email.offered,
      on: view.email.on,
      applies: view.email.applies,
      masked_address: view.email.maskedAddress
    },
    backup_codes: view.backupCodes,
    locked: view.locked,
    must_enrol: view.mustEnrol,
    proof: view.proof
  }
}

export interface SubjectsNeed {
  readonly enrolments: Enrolments
  readonly assurances: Assurances
  readonly sealer: Sealer
  readonly clock: { readonly now: () => number }
}

type Called = FastifyRequest<{ Params: { subject: string }; Body: { by: ByWire; about?: AboutWire } }>

export function subjectsRoutes ({ enrolments, assurances, sealer, clock }: SubjectsNeed): FastifyPluginAsyncTypebox {
  /** The `by` of the body; it must be the subject that the path names. */
  const askOf = (request: Pick<Called, 'params' | 'body' | 'id' | 'tenant'>) => {
    const by = toBy(sealer, request.tenant.id, request.body.by)
    if (by.subject !== fromBase64url(request.params.subject)) throw new Problem('enrolment_gone')
    return { by, about: toAbout(request.body.about), requestId: request.id }
  }
  const nextOf = (request: {
    readonly tenant: { readonly id: string }
    readonly body: { readonly by: ByWire; readonly next_browser?: string }
  }) =>
    request.body.next_browser === undefined
      ? undefined
      : toBy(sealer, request.tenant.id, { ...request.body.by, browser: request.body.next_browser }).browser
  const confirmed = (result: Confirmed) => {
    if (result.verdict !== 'accepted') throw problemOf(result, 'enrolment_gone')
    return { backup_codes: [...result.backupCodes], bound_to_next: result.boundToNext }
  }

  return async app => {
    app.get(
      '/:subject',
      {
        schema: {
          summary: 'Status and factors of a subject',
          params: SubjectParams,
          response: { 200: SettingsBody, ...problems('unavailable') }
        }
      },
      async request => {
        const by = {
          tenant: request.tenant.id,
          subject: toSubject(fromBase64url(request.params.subject)),
          session: '',
          browser: 'none'
        }
        return settingsBody(
          await enrolments.settings(request.tenant, { by, about: {}, requestId: request.id }),
          clock.now()
        )
      }
    )

    app.post(
      '/:subject/credentials-changed',
      {
        schema: {
          summary: 'The password was changed or reset: every assurance of the subject ends, but the one to keep',
          params: SubjectParams,
          body: Type.Object({ keep: Type.Optional(ByBody) }, closed),
          response: { 204: Nothing, ...problems('bad_request', 'unavailable') }
        }
      },
      async (request, reply) => {
        const {
          tenant,
          body: { keep },
          params
        } = request
        const subject = toSubject(fromBase64url(params.subject))
        const by = keep === undefined ? undefined : toBy(sealer, tenant.id, keep)
        if (by !== undefined && by.subject !== subject) {
          throw new Problem('bad_request', { errors: ['body/keep/subject differs from the path'] })
        }
        await assurances.credentialsChanged(tenant, subject, request.id, by)
        return await reply.code(204).send(null)
      }
    )

    app.post(
      '/:subject/proof',
      {
        schema: {
          summary: 'Mail the code that the tenant asks for before a first enrolment',
          params: SubjectParams,
          body: ByOnly,
          response: {
            200: Type.Object({ masked_address: Type.String(), resend_in: Type.Integer() }, closed),
            ...problems('method_not_available', 'waiting', 'login_required', 'unavailable')
          }
        }
      },
      async request => {
        const sent = await enrolments.sendProof(request.tenant, askOf(request))
        return { masked_address: sent.maskedAddress, resend_in: sent.resendInSeconds }
      }
    )

    app.post(
      '/:subject/totp',
      {
        schema: {
          summary: 'Begin (or go on with) the enrolment of a TOTP key',
          params: SubjectParams,
          body: Type.Object({ by: ByBody, about: Type.Optional(AboutBody), proof: Proof }, closed),
          response: {
            200: Type.Object(
              {
                id: Type.String(),
                key: Type.String(),
                uri: Type.String(),
                qr: Type.String({ description: 'SVG' }),
                expires_in: Type.Integer(),
                attempts_left: Type.Integer()
              },
              closed
            ),
            ...problems('step_up_required', 'proof_required', 'waiting', 'enrolment_gone', 'unavailable')
          }
        }
      },
      async request => {
        const begun = await enrolments.beginTotp(request.tenant, askOf(request), { proof: request.body.proof })
        return {
          id: begun.id,
          key: begun.key,
          uri: begun.uri,
          qr: await qrSvg(begun.uri),
          expires_in: begun.expiresInSeconds,
          attempts_left: begun.attemptsLeft
        }
      }
    )

    app.post(
      '/:subject/totp/:enrolment/confirm',
      {
        schema: {
          summary: 'Confirm the TOTP key with its first code; answers the backup codes, once',
          params: EnrolmentParams,
          body: Confirm,
          response: {
            200: ConfirmedBody,
            ...problems(
              'code_malformed',
              'code_rejected',
              'step_up_required',
              'waiting',
              'enrolment_gone',
              'unavailable'
            )
          }
        }
      },
      async request =>
        confirmed(
          await enrolments.confirmTotp(request.tenant, askOf(request), request.params.enrolment, request.body.code, {
            nextBrowser: nextOf(request)
          })
        )
    )

    app.delete(
      '/:subject/totp',
      {
        schema: {
          summary: 'Disable TOTP',
          params: SubjectParams,
          body: ByOnly,
          response: { 204: Nothing, ...problems('step_up_required', 'not_enabled', 'unavailable') }
        }
      },
      async (request, reply) => {
        await enrolments.removeTotp(request.tenant, askOf(request))
        return await reply.code(204).send(null)
      }
    )

    app.post(
      '/:subject/email',
      {
        schema: {
          summary: 'Send a test code to the address that login codes shall go to',
          params: SubjectParams,
          body: Type.Object(
            {
              by: ByBody,
              about: Type.Optional(AboutBody),
              address: Type.Optional(Type.String({ maxLength: 254 })),
              proof: Proof
            },
            closed
          ),
          response: {
            200: Type.Object(
              {
                id: Type.String(),
                masked_address: Type.String(),
                expires_in: Type.Integer(),
                attempts_left: Type.Integer(),
                resend_in: Type.Integer()
              },
              closed
            ),
            ...problems(
              'address_invalid',
              'step_up_required',
              'proof_required',
              'method_not_available',
              'waiting',
              'unavailable'
            )
          }
        }
      },
      async request => {
        const begun = await enrolments.beginEmail(request.tenant, askOf(request), {
          address: request.body.address,
          proof: request.body.proof
        })
        return {
          id: begun.id,
          masked_address: begun.maskedAddress,
          expires_in: begun.expiresInSeconds,
          attempts_left: begun.attemptsLeft,
          resend_in: begun.resendInSeconds
        }
      }
    )

    app.post(
      '/:subject/email/:enrolment/confirm',
      {
        schema: {
          summary: 'Switch e-mail login verification on with the test code',
          params: EnrolmentParams,
          body: Confirm,
          response: {
            200: ConfirmedBody,
            ...problems(
              'code_malformed',
              'code_rejected',
              'step_up_required',
              'waiting',
              'enrolment_gone',
              'unavailable'
            )
          }
        }
      },
      async request =>
        confirmed(
          await enrolments.confirmEmail(request.tenant, askOf(request), request.params.enrolment, request.body.code, {
            nextBrowser: nextOf(request)
          })
        )
    )

    app.delete(
      '/:subject/email',
      {
        schema: {
          summary: 'Switch e-mail login verification off',
          params: SubjectParams,
          body: ByOnly,
          response: { 204: Nothing, ...problems('step_up_required', 'not_enabled', 'unavailable') }
        }
      },
      async (request, reply) => {
        await enrolments.removeEmail(request.tenant, askOf(request))
        return await reply.code(204).send(null)
      }
    )

    app.post(
      '/:subject/backup-codes',
      {
        schema: {
          summary: 'A new set of six backup codes; the old set dies',
          params: SubjectParams,
          body: ByOnly,
          response: {
            200: Type.Object({ backup_codes: Type.Array(Type.String()) }, closed),
            ...problems('step_up_required', 'not_enabled', 'unavailable')
          }
        }
      },
      async request => ({ backup_codes: [...(await enrolments.newBackupCodes(request.tenant, askOf(request)))] })
    )
  }
}
