// Problem documents (RFC 9457) of the gate itself. Codes that the service has too mean the same there.

/** Code → title. Codes never change meaning. */
export const PROBLEMS = {
  login_required: 'The login verification has not been passed',
  enrolment_required: 'The subject must enrol before this is possible',
  step_up_required: 'A fresh verification is needed',
  code_malformed: 'The code does not have the form of a code; nothing was counted',
  code_rejected: 'The code is not right',
  code_used: 'The code was already used',
  waiting: 'Too many wrong codes; wait before the next',
  locked: 'TOTP and e-mail codes are locked for this subject',
  challenge_gone: 'The challenge has expired; open another',
  rate_limited: 'Too many requests from this address',
  unavailable: 'The verification service cannot answer right now',
  unexpected: 'The verification service gave an answer that cannot be passed on',
  bad_request: 'The request is not understood',
  not_found: 'There is nothing here',
  credentials_ambiguous: 'The request presents its login in a way that can be read differently',
  credentials_unknown: 'The credential belongs to nobody',
  identity_unclear: 'The console could not tell who is logged in',
  identity_late: 'The console loads its session after the gate',
  origin_refused: 'Only pages of this origin may send this',
  cookies_needed: 'The browser did not send back the binding cookie',
  form_too_large: 'The form is too large to be carried through a verification',
  upstream_unreachable: 'The console behind the gateway does not answer',
  upstream_late: 'The console behind the gateway takes too long',
  denied: 'No rule lets this request pass'
} as const

export type ProblemCode = keyof typeof PROBLEMS

/** The body of a problem document. A code that is newer than this plugin keeps its name and gets a plain title. */
export function problemDocument (
  status: number,
  code: string,
  members: Readonly<Record<string, unknown>> = {}
): string {
  const title = Object.hasOwn(PROBLEMS, code) ? PROBLEMS[code as ProblemCode] : 'The verification was refused'
  return JSON.stringify({ type: `urn:postern:problem:${code}`, title, status, code, ...members })
}
