// Stands for a token on the plugin's own pages, where a console keeps its login in script and browsers send no cookie.

import { createHash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Clock, LoggedIn } from './model.ts'
import type { Seal } from './seal.ts'

/** How long a page may be left open; renewed by every hosted page. */
const LIFETIME_SECONDS = 600
const LONGEST = 3_000

export interface PageCookie {
  readonly name: string
  /** Who was logged in when the cookie was given; undefined where it is absent, old, foreign or sent twice. */
  readonly read: (request: FastifyRequest) => LoggedIn | undefined
  /** The page below the prefix that the next document is, where the cookie was given with one. */
  readonly next: (request: FastifyRequest) => string | undefined
  /** The console's pages dropped their token and are to get it back. */
  readonly putBack: (request: FastifyRequest) => boolean
  /** A Set-Cookie header. */
  readonly cookie: (identity: LoggedIn, goesOn?: GoesOn) => string
  /** The same cookie for another while, without its page; undefined where there is none. */
  readonly renewed: (request: FastifyRequest) => string | undefined
  readonly cleared: string
}

export interface GoesOn {
  readonly next?: string | undefined
  readonly putBack?: boolean | undefined
}

export interface PageCookieParts {
  readonly tenant: string
  readonly seal: Seal
  readonly insecure: boolean
  /** Epoch milliseconds. */
  readonly today: Clock
}

export function createPageCookie ({ tenant, seal, insecure, today }: PageCookieParts): PageCookie {
  const suffix = createHash('sha256').update(tenant).digest('hex').slice(0, 8)
  const name = `${insecure ? '' : '__Host-'}postern-page-${suffix}`
  const use = `page\0${name}`
  // `__Host-` is only taken with the path `/`, and a gateway reads it on the console's documents too.
  const attributes = `; Path=/; ${insecure ? '' : 'Secure; '}HttpOnly; SameSite=Lax; Max-Age=`

  function open (value: string): Sealed | undefined {
    const text = seal.open(use, value)
    if (text === undefined) return undefined
    const known = parsed(text)
    return today() < known.until ? known : undefined
  }

  function sealedIn (request: FastifyRequest): Sealed | undefined {
    const pairs = (request.headers.cookie ?? '').split(';').map(pair => pair.trim())
    const values = pairs.filter(pair => pair.startsWith(`${name}=`))
    const [only] = values
    return only === undefined || values.length > 1 ? undefined : open(only.slice(name.length + 1))
  }

  function cookie (
    { subject, session, kind, email, displayName, locale }: LoggedIn,
    { next, putBack }: GoesOn = {}
  ): string {
    const identity = { subject, session, kind, email, displayName, locale }
    const sealed: Sealed = { until: today() + LIFETIME_SECONDS * 1000, identity, next, putBack }
    const value = seal.close(use, JSON.stringify(sealed))
    if (value.length > LONGEST) throw new RangeError('postern: what "identify" returned is too long for a cookie')
    return `${name}=${value}${attributes}${LIFETIME_SECONDS}`
  }

  return {
    name,
    read: request => sealedIn(request)?.identity,
    next: request => sealedIn(request)?.next,
    putBack: request => sealedIn(request)?.putBack === true,
    cookie,
    renewed: request => {
      const sealed = sealedIn(request)
      return sealed === undefined ? undefined : cookie(sealed.identity, { putBack: sealed.putBack })
    },
    cleared: `${name}=${attributes}0`
  }
}

// What only we can have sealed; a token's exemption never travels in it.
interface Sealed extends GoesOn {
  readonly until: number
  readonly identity: LoggedIn
}

// The one narrowing of this boundary: what only we can have sealed.
function parsed (text: Buffer): Sealed {
  return JSON.parse(text.toString('utf8')) as Sealed
}
