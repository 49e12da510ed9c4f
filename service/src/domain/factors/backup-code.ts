// Backup codes: six single-use look-up secrets of 80 bits (NIST SP 800-63B 3.1.2, 4.2.1.1).

import { timingSafeEqual } from 'node:crypto'
import type { By, Factor, MatchContext } from '../model.ts'

/** Crockford base32: no I, L, O, U. */
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
export const SET_SIZE = 6

/** Reads a code without regard to case, dashes, spaces, and O/0, I/L/1. */
export function normaliseBackupCode (typed: string): string {
  return typed
    .normalize('NFKC')
    .toUpperCase()
    .replace(/[\s\u200b-\u200f\u2060\ufeff-]/g, '')
    .replace(/O/g, '0')
    .replace(/[IL]/g, '1')
}

/** 80 bits as 16 characters; shown in groups of four. */
export function backupCode (bytes: Uint8Array): string {
  let value = BigInt('0x' + Buffer.from(bytes.subarray(0, 10)).toString('hex'))
  let text = ''
  for (let index = 0; index < 16; index++) {
    text = (ALPHABET[Number(value & 31n)] ?? '') + text
    value >>= 5n
  }
  return text
}

/** `ABCD-EFGH-JKMN-PQRS` */
export function grouped (code: string): string {
  return code.match(/.{1,4}/g)?.join('-') ?? code
}

/**
 * An 18-bit tag by HMAC, so that scrypt runs only where it fits: a wrong code costs one HMAC, and tells nobody without
 * the server key anything.
 */
function tagOf (keyedHash: MatchContext['keyedHash'], salt: string, code: string): string {
  return keyedHash('backup_code_tag', salt, code).slice(0, 3)
}

/** What is stored of a code: `v1.<salt of the set>.<tag>.<scrypt>`. */
export async function storedBackupCode (
  context: Pick<MatchContext, 'keyedHash' | 'scrypt'>,
  whose: Pick<By, 'tenant' | 'subject'>,
  salt: string,
  code: string
): Promise<string> {
  return `v1.${salt}.${tagOf(context.keyedHash, salt, code)}.${await context.scrypt(whose, code, salt)}`
}

export const backupCodeFactor = {
  name: 'backup_code',
  strength: 'backup',
  budget: 'backup_code',
  accepts: /^[0-9A-HJKMNP-TV-Z]{16}$/,
  normalise: normaliseBackupCode,
  // A used one counts too, so that using it again is told apart from a wrong one.
  offered: state => state.authenticators.some(own => own.factor === 'backup_code'),
  whileLocked: true,
  match: async (code, { own, slot, keyedHash, scrypt }) => {
    // The codes of a set share its salt, and with it the tag of what was typed.
    let typed = { salt: '', tag: '' }
    for (const authenticator of own) {
      const [version, salt, tag, hash] = authenticator.secret.split('.')
      if (version !== 'v1' || salt === undefined || tag === undefined || hash === undefined) continue
      if (typed.salt !== salt) typed = { salt, tag: tagOf(keyedHash, salt, code) }
      if (typed.tag !== tag) continue
      const [a, b] = [Buffer.from(await scrypt(slot.by, code, salt)), Buffer.from(hash)]
      if (a.length === b.length && timingSafeEqual(a, b)) return { use: 'consume', authenticator: authenticator.id }
    }
    return undefined
  }
} as const satisfies Factor
