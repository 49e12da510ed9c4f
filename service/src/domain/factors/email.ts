// The e-mailed out-of-band code (NIST SP 800-63B 3.1.3): valid only for the slot that sent it, and only the newest.

import { timingSafeEqual } from 'node:crypto'
import type { Factor, MatchContext, Slot } from '../model.ts'
import { normaliseDigits } from './totp.ts'

/** What is stored of a mailed code: bound to its slot, so that it opens nothing else. */
export function mailedHash (keyedHash: MatchContext['keyedHash'], slotId: string, code: string): string {
  return keyedHash('mailed', slotId, code)
}

/** How long a code that is mailed now will work, in minutes as people are told: never past the end of its slot. */
export function mailedMinutes (slot: Slot, now: number, lifeSeconds: number): number {
  return Math.max(1, Math.round(Math.min(slot.expiresAt - now, lifeSeconds * 1000) / 60_000))
}

/** Is it the newest code that was mailed for this slot? */
export function isMailedCode (keyedHash: MatchContext['keyedHash'], slot: Slot, code: string): boolean {
  if (slot.mailedHash === null) return false
  const [a, b] = [Buffer.from(mailedHash(keyedHash, slot.id, code)), Buffer.from(slot.mailedHash)]
  return a.length === b.length && timingSafeEqual(a, b)
}

export const email = {
  name: 'email',
  strength: 'check',
  budget: 'subject',
  accepts: /^\d{6}$/,
  normalise: normaliseDigits,
  // With TOTP on, e-mail verification is not used; its preference stays.
  offered: state =>
    state.authenticators.some(own => own.factor === 'email') &&
    !state.authenticators.some(own => own.factor === 'totp'),
  whileLocked: false,
  match: async (code, { slot, keyedHash }) => (isMailedCode(keyedHash, slot, code) ? { use: 'challenge' } : undefined)
} as const satisfies Factor
