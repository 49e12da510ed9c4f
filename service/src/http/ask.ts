// Who asks, from the wire: JSON bodies of calls, and the postern-* headers of pages. Names are keyed here, so that
// nothing behind this file ever holds what a console or a browser named.

import type { FastifyRequest } from 'fastify'
import { checkedSubject, type About, type Ask, type By } from '../domain/model.ts'
import type { Sealer } from '../domain/ports.ts'
import { Problem } from '../domain/problems.ts'
import type { AboutWire, ByWire } from './schemas.ts'

/** The UTF-8 text of a base64url value, or Problem `bad_request`. Only the canonical spelling is read. */
export function fromBase64url (value: string): string {
  const bytes = Buffer.from(value, 'base64url')
  const text = bytes.toString('utf8')
  if (bytes.toString('base64url') !== value || !Buffer.from(text).equals(bytes)) {
    throw new Problem('bad_request', { errors: ['base64url of UTF-8 expected'] })
  }
  return text
}

/** A subject id as it must be, or Problem `bad_request`. */
export function toSubject (subject: string): string {
  const checked = checkedSubject(subject)
  if (checked === undefined) throw new Problem('bad_request', { errors: ['by/subject is not a subject id'] })
  return checked
}

/** The keyed name of a session, as stored and as changes speak of it (`session_ref`). */
export function sessionName (sealer: Sealer, tenant: string, session: string): string {
  return sealer.keyedHash('session', tenant, session)
}

/** The keyed name of a browser binding; `none` stays `none`. */
export function browserName (sealer: Sealer, tenant: string, browser: string): string {
  return browser === 'none' ? 'none' : sealer.keyedHash('browser', tenant, browser)
}

export function toBy (sealer: Sealer, tenant: string, wire: ByWire): By {
  return {
    tenant,
    subject: toSubject(wire.subject),
    session: sessionName(sealer, tenant, wire.session),
    browser: browserName(sealer, tenant, wire.browser)
  }
}

/** Control characters are dropped (they break mails and logs), and what is too long is cut. */
const plain = (text: string | undefined, longest: number): string | undefined =>
  text?.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '').slice(0, longest)

export function toAbout (wire: AboutWire | undefined): About {
  if (wire === undefined) return {}
  return {
    email: wire.email,
    displayName: plain(wire.display_name, 64),
    locale:
      wire.locale !== undefined && /^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$/.test(wire.locale)
        ? wire.locale
        : undefined,
    address: plain(wire.address, 64),
    userAgent: plain(wire.user_agent, 256),
    action: plain(wire.action, 120)
  }
}

/**
 * `by` and `about` of a page request; `undefined` for a visitor without a session. Problem `bad_request` if they are
 * not understood.
 */
export function readAsk (sealer: Sealer, request: FastifyRequest): Ask | undefined {
  const header = (name: string): string | undefined => {
    const value = request.headers[name]
    if (Array.isArray(value)) throw new Problem('bad_request', { errors: [`${name} stands twice`] })
    return value
  }
  const [subject, session, browser] = [
    header('postern-subject'),
    header('postern-session'),
    header('postern-browser')
  ]
  if (subject === undefined && session === undefined && browser === undefined) return undefined
  if (
    subject === undefined ||
    session === undefined ||
    browser === undefined ||
    !/^[A-Za-z0-9_-]{43}$/.test(session) ||
    !/^([A-Za-z0-9_-]{43}|none)$/.test(browser)
  ) {
    throw new Problem('bad_request', {
      errors: ['postern-subject, postern-session and postern-browser belong together']
    })
  }
  return {
    by: toBy(sealer, request.tenant.id, { subject: fromBase64url(subject), session, browser }),
    about: toAbout(readAbout(header('postern-about'))),
    requestId: request.id
  }
}

/** The keyed name of the binding that the plugin will set if it is used. */
export function readNextBrowser (sealer: Sealer, request: FastifyRequest): string | undefined {
  const next = request.headers['postern-next-browser']
  return typeof next === 'string' && /^[A-Za-z0-9_-]{43}$/.test(next)
    ? browserName(sealer, request.tenant.id, next)
    : undefined
}

/** The `about` of a page request. Problem `bad_request` if it is not understood. */
export function readAbout (header: string | undefined): AboutWire | undefined {
  if (header === undefined) return undefined
  let parsed: unknown
  try {
    parsed = JSON.parse(fromBase64url(header))
  } catch {
    throw new Problem('bad_request', { errors: ['postern-about is not base64url of JSON'] })
  }
  if (typeof parsed !== 'object' || parsed === null) {
    throw new Problem('bad_request', { errors: ['postern-about is not an object'] })
  }
  const given = new Map<string, unknown>(Object.entries(parsed))
  const text = (name: string) => {
    const value = given.get(name)
    return typeof value === 'string' ? value : undefined
  }
  const email = given.get('email') === null ? null : text('email')
  const [displayName, locale, address, userAgent, action] = [
    'display_name',
    'locale',
    'address',
    'user_agent',
    'action'
  ].map(text)
  return {
    ...(email === undefined ? {} : { email }),
    ...(displayName === undefined ? {} : { display_name: displayName }),
    ...(locale === undefined ? {} : { locale }),
    ...(address === undefined ? {} : { address }),
    ...(userAgent === undefined ? {} : { user_agent: userAgent }),
    ...(action === undefined ? {} : { action })
  }
}
