// The browser binding: a random cookie on the console's own origin, of which the service knows only a hash.

import { createHash, randomBytes } from 'node:crypto'

const WELL_FORMED = /^[A-Za-z0-9_-]{22}$/

/** Longest assurance in seconds: a browser that passed is remembered as long. */
const LONGEST = 180 * 86_400

/** How the service names a session: neither raw ids nor linkable hashes leave the console. */
export function sessionName (kind: string, session: string): string {
  return createHash('sha256')
    .update('postern-session\0')
    .update(kind)
    .update('\0')
    .update(session)
    .digest('base64url')
}

/**
 * How the service names a browser; a client without the cookie is `none`. A value we never made names a browser that
 * never passed.
 */
export function browserName (value: string): string {
  return value === '' ? 'none' : createHash('sha256').update('postern-browser\0').update(value).digest('base64url')
}

export interface Binding {
  readonly name: string
  readonly fresh: () => string
  readonly wellFormed: (value: string) => boolean
  /** A Set-Cookie header. */
  readonly cookie: (value: string) => string
}

/**
 * Without `__Host-` and `Secure` where the console is reached over plain HTTP, which browsers allow on loopback only.
 */
export function createBinding (tenant: string, insecure: boolean): Binding {
  const suffix = createHash('sha256').update(tenant).digest('hex').slice(0, 8)
  const name = `${insecure ? '' : '__Host-'}postern-${suffix}`
  const attributes = `; Path=/; ${insecure ? '' : 'Secure; '}HttpOnly; SameSite=Lax; Max-Age=${LONGEST}`
  return {
    name,
    fresh: () => randomBytes(16).toString('base64url'),
    wellFormed: value => WELL_FORMED.test(value),
    cookie: value => `${name}=${value}${attributes}`
  }
}
