// Sealing with key ids and row-bound data, keyed hashes, and randomness.

import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  randomBytes,
  randomFillSync,
  randomInt,
  timingSafeEqual
} from 'node:crypto'
import type { Randomness, Sealer } from '../domain/ports.ts'
import { createSlowHashes } from './slow-hashes.ts'

export interface NamedKey {
  readonly id: string
  readonly key: Uint8Array
}

export function createSealer ({
  encryptionKeys,
  serverKey
}: {
  readonly encryptionKeys: readonly NamedKey[]
  readonly serverKey: NamedKey
}): Sealer {
  const [primary] = encryptionKeys
  if (primary === undefined) throw new TypeError('a key ring needs a key')
  const ring = new Map(encryptionKeys.map(key => [key.id, key.key]))

  const macKey = createSecretKey(serverKey.key)
  const keyedHash: Sealer['keyedHash'] = (purpose, ...parts) => {
    // Length first, so that no part can be moved into its neighbour. In one piece: each call into the library costs
    // more than what it hashes.
    const all = [purpose, ...parts]
    const bytes = Buffer.allocUnsafe(all.reduce((sum, part) => sum + 4 + Buffer.byteLength(part), 0))
    let at = 0
    for (const part of all) {
      const length = bytes.write(part, at + 4)
      at = bytes.writeUInt32BE(length, at) + length
    }
    return createHmac('sha256', macKey).update(bytes).digest('base64url')
  }

  return {
    keyedHash,
    seal: (plain, context) => {
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', primary.key, nonce).setAAD(Buffer.from(context))
      const sealed = Buffer.concat([nonce, cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return `v1.${primary.id}.${sealed.toString('base64url')}`
    },
    unseal: (sealed, context) => {
      const [version, id = '', text = ''] = sealed.split('.')
      const key = ring.get(id)
      if (version !== 'v1' || key === undefined) throw new Error('sealed under a key that is not in the ring')
      const bytes = Buffer.from(text, 'base64url')
      if (bytes.length < 28) throw new Error('sealed text is cut short')
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12)).setAAD(Buffer.from(context))
      decipher.setAuthTag(bytes.subarray(bytes.length - 16))
      return decipher.update(bytes.subarray(12, bytes.length - 16), undefined, 'utf8') + decipher.final('utf8')
    },
    equal: (a, b) => {
      const [left, right] = [Buffer.from(a), Buffer.from(b)]
      return left.length === right.length && timingSafeEqual(left, right)
    },
    scrypt: createSlowHashes()
  }
}

const POOL_BYTES = 4096

export function createRandomness (): Randomness {
  // Many at a time: each call into the library costs more than what it makes. What was given stands there no more.
  const pool = Buffer.alloc(POOL_BYTES)
  let at = POOL_BYTES
  return {
    bytes: count => {
      if (count > POOL_BYTES) return new Uint8Array(randomBytes(count))
      if (at + count > POOL_BYTES) {
        randomFillSync(pool)
        at = 0
      }
      const bytes = new Uint8Array(pool.subarray(at, at + count))
      pool.fill(0, at, at + count)
      at += count
      return bytes
    },
    digits: digits => String(randomInt(10 ** digits)).padStart(digits, '0')
  }
}
