// TypeBox parts used by more than one resource. JSON is snake_case; seconds are whole; instants never leave the
// service.

import type { Static, TSchema } from 'typebox'
import { Type } from './type.ts'
import { PROBLEMS } from '../domain/problems.ts'

const closed = { additionalProperties: false }

/** base64url(SHA-256('postern-session' ‖ kind ‖ id)) as the plugin names a session. */
export const SessionName = Type.String({
  pattern: '^[A-Za-z0-9_-]{43}$',
  description: 'base64url of SHA-256 over "postern-session", the kind of credential and the session id'
})
export const BrowserName = Type.String({
  pattern: '^([A-Za-z0-9_-]{43}|none)$',
  description: 'base64url of SHA-256 of the browser binding, or none for a native login'
})
export const SubjectName = Type.String({
  minLength: 1,
  maxLength: 255,
  description: "The console's own immutable user id, compared byte for byte"
})
export const Code = Type.String({ minLength: 1, maxLength: 64, description: 'A verification code as it was typed' })

export const ByBody = Type.Object(
  {
    subject: SubjectName,
    session: SessionName,
    browser: BrowserName
  },
  { ...closed, description: 'Who asks, as the gate sees them on this very request' }
)

export const AboutBody = Type.Object(
  {
    email: Type.Optional(Type.Union([Type.String({ maxLength: 254 }), Type.Null()])),
    display_name: Type.Optional(Type.String({ maxLength: 255 })),
    locale: Type.Optional(Type.String({ maxLength: 35 })),
    address: Type.Optional(Type.String({ maxLength: 64 })),
    user_agent: Type.Optional(Type.String({ maxLength: 512 })),
    action: Type.Optional(Type.String({ maxLength: 255 }))
  },
  { ...closed, description: 'What the console knows of who asks' }
)

/** A path of the same origin, without fragment. */
export const ReturnPath = Type.String({
  maxLength: 512,
  pattern: '^/(?![/\\\\])[\\x21-\\x5b\\x5d-\\x7e]*$',
  description: "A path of the console's own origin"
})

export const PurposeName = Type.Union([Type.Literal('login'), Type.Literal('step_up')])

export const ChallengeParams = Type.Object({ id: Type.String({ pattern: '^[A-Za-z0-9_-]{16,64}$' }) }, closed)
export const SubjectParams = Type.Object(
  { subject: Type.String({ pattern: '^[A-Za-z0-9_-]{2,340}$', description: "base64url of the subject's UTF-8" }) },
  closed
)
export const SessionParams = Type.Object({ session: SessionName }, closed)
export const EnrolmentParams = Type.Object(
  { subject: SubjectParams.properties.subject, enrolment: ChallengeParams.properties.id },
  closed
)

export const TotpStatusName = Type.Union([
  Type.Literal('not_enabled'),
  Type.Literal('enabled'),
  Type.Literal('expired')
])

/** GET /v1/assurances/{session}: the gate's question. */
export const GateAnswerBody = Type.Object(
  {
    status: Type.Union([
      Type.Literal('verified'),
      Type.Literal('not_required'),
      Type.Literal('enrolment_required'),
      Type.Literal('verification_required')
    ]),
    login: Type.Union([Type.Object({ expires_in: Type.Integer({ minimum: 0 }) }, closed), Type.Null()]),
    step_up: Type.Union([
      Type.Object({ age: Type.Integer({ minimum: 0 }), factor: Type.String() }, closed),
      Type.Null()
    ]),
    totp: TotpStatusName,
    session_ref: Type.String({ description: 'How changes name this session' }),
    change: Type.Integer({ minimum: 0, description: 'The newest change of the tenant that this answer knows of' })
  },
  closed
)

/** POST /v1/challenges */
export const OpenBody = Type.Object(
  {
    by: ByBody,
    purpose: PurposeName,
    about: Type.Optional(AboutBody),
    return_path: Type.Optional(ReturnPath),
    held: Type.Optional(
      Type.String({
        maxLength: 21848,
        pattern: '^[A-Za-z0-9._-]+$',
        description: 'Sealed by the plugin, at most 16 kB'
      })
    ),
    code: Type.Optional(Code),
    record: Type.Optional(Type.Boolean({ description: 'false: leave no step-up behind' }))
  },
  closed
)

export const ChallengeBody = Type.Object(
  {
    id: Type.String(),
    purpose: PurposeName,
    methods: Type.Array(Type.String()),
    attempts_left: Type.Integer({ minimum: 0 }),
    expires_in: Type.Integer({ minimum: 0 }),
    wait_for: Type.Integer({ minimum: 0 }),
    locked: Type.Boolean(),
    masked_address: Type.Union([Type.String(), Type.Null()]),
    mailed: Type.Boolean(),
    resend_in: Type.Integer({ minimum: 0 }),
    csrf: Type.String({ description: 'Token for state changes on the hosted pages by this `by`' })
  },
  closed
)

export const AssuranceBody = Type.Object(
  {
    purpose: PurposeName,
    factor: Type.String(),
    expires_in: Type.Integer({ minimum: 0 }),
    bound_to_next: Type.Boolean(),
    backup_codes_left: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()])
  },
  closed
)

/** Answer of a verification. */
export const VerificationBody = Type.Object(
  {
    assurance: AssuranceBody,
    return_path: Type.Optional(ReturnPath),
    held: Type.Optional(Type.String())
  },
  closed
)

/** POST /v1/challenges answers one of these, by `status`. */
export const OpenedBody = Type.Union([
  Type.Object({ status: Type.Literal('open'), challenge: ChallengeBody }, closed),
  Type.Object({ status: Type.Literal('not_required') }, closed),
  Type.Object({ status: Type.Literal('verified') }, closed),
  Type.Object({ status: Type.Literal('accepted'), verification: VerificationBody }, closed)
])

/** POST /v1/challenges/{id}/verification */
export const AnswerBody = Type.Object(
  {
    by: ByBody,
    code: Code,
    about: Type.Optional(AboutBody),
    next_browser: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }))
  },
  closed
)

export const SendBody = Type.Object({ by: ByBody, about: Type.Optional(AboutBody) }, closed)

const problemCodes = Object.keys(PROBLEMS)

/** RFC 9457. `type` is `urn:postern:problem:<code>`. */
export const ProblemBody = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String({ enum: problemCodes }),
    request_id: Type.Optional(Type.String()),
    detail: Type.Optional(Type.String()),
    attempts_left: Type.Optional(Type.Integer()),
    retry_after: Type.Optional(Type.Integer()),
    next_in: Type.Optional(Type.Integer()),
    clock_off: Type.Optional(Type.Integer()),
    errors: Type.Optional(Type.Array(Type.String()))
  },
  closed
)

export type ByWire = Static<typeof ByBody>
export type AboutWire = Static<typeof AboutBody>

/** The problem responses a route declares. */
export function problems (...codes: readonly (keyof typeof PROBLEMS)[]): Record<number, TSchema> {
  return Object.fromEntries(codes.map(code => [PROBLEMS[code].status, ProblemBody]))
}
