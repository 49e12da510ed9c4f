// The token that a state change on the pages carries: an HMAC over who asks and the hour, so nothing is stored.

import type { By } from '../domain/model.ts'
import type { Sealer } from '../domain/ports.ts'

const HOUR_MS = 3_600_000

const tokenOf = (sealer: Sealer, by: By, hour: number): string =>
  sealer.keyedHash('csrf', by.tenant, by.subject, by.session, by.browser, String(hour)).slice(0, 32)

/** A token for this hour. */
export function csrfToken (sealer: Sealer, by: By, now: number): string {
  return tokenOf(sealer, by, Math.floor(now / HOUR_MS))
}

/** Was the token made for this `by` in this hour or the last? */
export function csrfFits (sealer: Sealer, by: By, now: number, token: unknown): boolean {
  if (typeof token !== 'string') return false
  const hour = Math.floor(now / HOUR_MS)
  return [hour, hour - 1].some(one => sealer.equal(token, tokenOf(sealer, by, one)))
}
