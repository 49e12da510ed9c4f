// The language somebody chose on a page: a cookie of its own, because sessions are the console's.

import type { FastifyRequest } from 'fastify'

const NAME = 'postern-lang'
const YEAR = 31_536_000

/** The language chosen earlier; the pages decide whether they have it. */
export function chosenLanguage (request: FastifyRequest): string | undefined {
  return /(?:^|;\s*)postern-lang=([A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,2})(?:;|$)/.exec(request.headers.cookie ?? '')?.[1]
}

/** The language that a page's switch asks for (`?lang=zh-CN`). */
export function askedLanguage (query: string): string | undefined {
  return /^\?lang=([A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,2})$/.exec(query)?.[1]
}

/** A Set-Cookie header: for the pages only, and no secret. */
export function languageCookie (language: string, prefix: string, insecure: boolean): string {
  return `${NAME}=${language}; Path=${prefix}; ${insecure ? '' : 'Secure; '}HttpOnly; SameSite=Lax; Max-Age=${YEAR}`
}
