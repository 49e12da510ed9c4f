// TOTP (RFC 6238): key, key URI, and matching a code within the window.

import { NodeCryptoPlugin } from '@otplib/plugin-crypto-node'
import { generateURI, verifySync } from 'otplib'
import { sealContext, type Factor } from '../model.ts'

const PERIOD = 30
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const crypto = new NodeCryptoPlugin()

/** RFC 4648 base32 without padding, as authenticator apps take a key. */
export function base32 (bytes: Uint8Array): string {
  let bits = 0
  let value = 0
  let text = ''
  for (const byte of bytes) {
    value = (value << 8) | byte
    bits += 8
    while (bits >= 5) {
      bits -= 5
      text += BASE32[(value >>> bits) & 31] ?? ''
      value &= (1 << bits) - 1
    }
  }
  return bits > 0 ? text + (BASE32[(value << (5 - bits)) & 31] ?? '') : text
}

/** Key URI format; label and issuer are percent-encoded by the library. */
export function keyUri (issuer: string, label: string, key: string): string {
  return generateURI({ issuer, label, secret: key })
}

/** Digits of any script are read as ASCII ones; spaces and dashes are dropped. */
export function normaliseDigits (typed: string): string {
  return typed.normalize('NFKC').replace(/[\s\u200b-\u200f\u2060\ufeff-]/g, '')
}

/**
 * The time step that the code is right for, or `undefined`. `steps` either side of `now` are looked at. The library
 * throws on malformed input; a code that cannot be checked is not right.
 */
export function matchingStep (key: Uint8Array, code: string, now: number, steps: number): number | undefined {
  if (!/^\d{6}$/.test(code)) return undefined
  try {
    const result = verifySync({
      secret: key,
      token: code,
      epoch: Math.floor(now / 1000),
      epochTolerance: steps * PERIOD,
      crypto
    })
    return result.valid && 'timeStep' in result ? result.timeStep : undefined
  } catch {
    return undefined
  }
}

/** Seconds the other clock is ahead (positive) or behind, if the code is right within `minutes` of now. */
export function clockOff (key: Uint8Array, code: string, now: number, minutes: number): number | undefined {
  const step = matchingStep(key, code, now, (minutes * 60) / PERIOD)
  return step === undefined ? undefined : (step - Math.floor(now / 1000 / PERIOD)) * PERIOD
}

/** Whole seconds until the next code. */
export function nextStepIn (now: number): number {
  return PERIOD - (Math.floor(now / 1000) % PERIOD)
}

export const totp = {
  name: 'totp',
  strength: 'factor',
  budget: 'subject',
  accepts: /^\d{6}$/,
  normalise: normaliseDigits,
  offered: state => state.authenticators.some(own => own.factor === 'totp'),
  whileLocked: false,
  match: async (code, { own, slot, now, window, unseal }) => {
    for (const authenticator of own) {
      const key = Buffer.from(
        unseal(
          authenticator.secret,
          sealContext('authenticator', slot.by.tenant, slot.by.subject, 'totp', authenticator.id)
        ),
        'base64url'
      )
      const step = matchingStep(key, code, now, window)
      if (step !== undefined) return { use: 'advance', authenticator: authenticator.id, to: step }
    }
    return undefined
  }
} as const satisfies Factor
