// How a request looks: a person's browser or a script, from which origin, with which body.

import type { FastifyRequest } from 'fastify'
import { FORM_LIMIT } from './forms.ts'

/** Media type without parameters, lower case. */
export function mediaType (request: FastifyRequest): string {
  const type = request.headers['content-type'] ?? ''
  const semicolon = type.indexOf(';')
  return (semicolon === -1 ? type : type.slice(0, semicolon)).trim().toLowerCase()
}

/** A person's browser is going somewhere. Over plain HTTP off loopback browsers send no Sec-Fetch headers. */
export function isNavigation (request: FastifyRequest): boolean {
  const { headers } = request
  const mode = headers['sec-fetch-mode']
  if (mode !== undefined) return mode === 'navigate'
  return headers['x-requested-with'] === undefined && /\btext\/html\b/i.test(headers.accept ?? '')
}

export function isDocument (request: FastifyRequest): boolean {
  return request.method === 'GET' && request.headers.upgrade === undefined && isNavigation(request)
}

/** Did a page of the console's own origin send this? `null`, nothing, or a header that says otherwise is no. */
export function sameOrigin (request: FastifyRequest, publicOrigin: string): boolean {
  const { origin, 'sec-fetch-site': site } = request.headers
  if (site !== undefined && site !== 'same-origin') return false
  return origin === undefined ? site === 'same-origin' : origin === publicOrigin
}

/** Reads a form into memory, so that it can be carried or its code taken out; undefined past the limit. */
export async function readFormBody (
  request: FastifyRequest,
  payload: AsyncIterable<Buffer | string>
): Promise<Buffer | undefined> {
  if (mediaType(request) !== 'application/x-www-form-urlencoded') return undefined
  const parts: Buffer[] = []
  let length = 0
  for await (const part of payload) {
    const bytes = Buffer.from(part)
    length += bytes.length
    if (length > FORM_LIMIT) return undefined
    parts.push(bytes)
  }
  return Buffer.concat(parts)
}

/** The body as bytes, where a route keeps it so; nothing of a form with files. */
export function bytesOf (request: FastifyRequest): Buffer | undefined {
  return Buffer.isBuffer(request.body) && mediaType(request) !== 'multipart/form-data' ? request.body : undefined
}
