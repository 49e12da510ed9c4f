// The one place where an error becomes a response: problem documents (RFC 9457).

import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Problem, PROBLEMS, type ProblemCode } from '../domain/problems.ts'

/** What the framework refuses by itself, as problem codes. */
const FRAMEWORK: Readonly<Record<string, ProblemCode>> = {
  FST_ERR_VALIDATION: 'bad_request',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_BODY_TOO_LARGE: 'payload_too_large',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'bad_request',
  FST_ERR_CTP_INVALID_JSON_BODY: 'bad_request',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'bad_request'
}

/** Any error as the problem that a caller may see. What is not meant to be seen is one 500. */
export function problemFrom (error: unknown): Problem {
  if (error instanceof Problem) return error
  if (!isFastifyError(error)) return new Problem('internal')
  const code = FRAMEWORK[error.code]
  if (code === 'bad_request' && error.validation !== undefined) {
    // Names and rules only: a value could be a code.
    const errors = error.validation.map(
      one => `${error.validationContext ?? 'request'}${one.instancePath} ${one.keyword}`
    )
    return new Problem(code, { errors: [...new Set(errors)] })
  }
  if (code !== undefined) return new Problem(code)
  return error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500
    ? new Problem('bad_request')
    : new Problem('internal')
}

/** The document of a problem; `undefined` members are left out. */
export function problemDocument (problem: Problem, requestId: string) {
  return {
    type: `urn:postern:problem:${problem.code}`,
    title: PROBLEMS[problem.code].title,
    status: problem.statusCode,
    code: problem.code,
    request_id: requestId,
    ...problem.details
  }
}

/** Logs what is our fault, and answers. */
export function sendProblem (error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemFrom(error)
  if (problem.code === 'internal') request.log.error({ err: error }, 'request failed')
  else if (problem.code === 'unavailable') request.log.warn({ err: error }, 'unavailable')
  const { retry_after: retryAfter } = problem.details
  if (retryAfter !== undefined) reply.header('retry-after', String(retryAfter))
  else if (problem.statusCode === 503) reply.header('retry-after', '2')
  if (problem.code === 'unauthenticated') reply.header('www-authenticate', 'Bearer realm="postern"')
  return reply
    .code(problem.statusCode)
    .type('application/problem+json')
    .serializer(JSON.stringify)
    .header('cache-control', 'no-store')
    .send(problemDocument(problem, request.id))
}

/** Gives an instance the one error handler and not-found answer. */
export function answerProblems (app: FastifyInstance): void {
  app.setErrorHandler(async (error, request, reply) => await sendProblem(error, request, reply))
  app.setNotFoundHandler(async () => {
    throw new Problem('not_found')
  })
}

function isFastifyError (error: unknown): error is FastifyError {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
}
