// TOTP (RFC 6238): key, key URI, and matching a code within the window.

import { createHmac, timingSafeEqual } from 'node:crypto'
import { generateTOTP } from '@otplib/uri'
import { sealContext, type Factor } from '../model.ts'

const PERIOD = 30
/** RFC 4226 4, R6: at least 128 bits. */
const KEY_BYTES = 16
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

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
  return generateTOTP({ issuer, label, secret: key })
}

/** Digits of any script are read as ASCII ones; spaces and dashes are dropped. */
export function normaliseDigits (typed: string): string {
  return typed.normalize('NFKC').replace(/[\s\u200b-\u200f\u2060\ufeff-]/g, '')
}

/** The code of a time step (RFC 4226 5.3, RFC 6238 4.2), as ASCII. */
function codeOf (key: Uint8Array, step: number): Buffer {
  const counter = Buffer.allocUnsafe(8)
  counter.writeBigUInt64BE(BigInt(step))
  const mac = createHmac('sha1', key).update(counter).digest()
  const number = mac.readUInt32BE((mac[mac.length - 1] ?? 0) & 15) & 0x7fffffff
  return Buffer.from(String(number % 1_000_000).padStart(6, '0'))
}

/**
 * The time step that the code is right for, or `undefined`. `steps` either side of `now` are looked at, the nearest
 * first. What is no code of six digits is not right, nor is any under a key that is too short.
 */
export function matchingStep (key: Uint8Array, code: string, now: number, steps: number): number | undefined {
  if (!/^\d{6}$/.test(code) || key.length < KEY_BYTES) return undefined
  const typed = Buffer.from(code)
  const current = Math.floor(now / 1000 / PERIOD)
  for (let distance = 0; distance <= steps; distance++) {
    for (const step of distance === 0 ? [current] : [current - distance, current + distance]) {
      if (step >= 0 && timingSafeEqual(codeOf(key, step), typed)) return step
    }
  }
  return undefined
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
