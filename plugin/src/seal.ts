// Seals what leaves the console or gateway for somebody else's keeping: the page cookie, held answers and the native
// client's `secret`.

import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

export interface SealKey {
  readonly id: string
  readonly key: Buffer
}

export interface Seal {
  /** `use` keeps what was sealed for one thing from being opened as another. */
  readonly close: (use: string, text: string | Buffer) => string
  /** undefined: not one of ours. */
  readonly open: (use: string, sealed: string) => Buffer | undefined
}

/** Replicas share the tenant key, so a ring made of it is one that they share. */
export function createSeal (keys: readonly SealKey[], tenantKey: string): Seal {
  const ring = keys.length > 0 ? keys : [{ id: 't', key: Buffer.from(hkdfSync('sha256', tenantKey, '', 'postern seal', 32)) }]
  const [first] = ring
  return {
    close: (use, text) => {
      if (first === undefined) throw new Error('postern: there is no key to seal with')
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', first.key, nonce, { authTagLength: 16 })
      cipher.setAAD(Buffer.from(`${use}\0${first.id}`))
      const bytes = Buffer.concat([cipher.update(text), cipher.final()])
      return `${first.id}.${Buffer.concat([nonce, cipher.getAuthTag(), bytes]).toString('base64url')}`
    },
    open: (use, sealed) => {
      const [id = '', value = '', ...rest] = sealed.split('.')
      const key = ring.find(one => one.id === id)
      const bytes = Buffer.from(value, 'base64url')
      if (key === undefined || rest.length > 0 || bytes.length < 28) return undefined
      try {
        const decipher = createDecipheriv('aes-256-gcm', key.key, bytes.subarray(0, 12), { authTagLength: 16 })
        decipher.setAAD(Buffer.from(`${use}\0${key.id}`))
        decipher.setAuthTag(bytes.subarray(12, 28))
        return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()])
      } catch {
        return undefined
      }
    }
  }
}

/** A ring from its text, one `<id>:<base64 of 32 bytes>` a key; `wrong` hears which key, counted from 1, is none. */
export function readSealKeys (parts: readonly string[], wrong: (sentence: string) => void): readonly SealKey[] {
  return parts.flatMap((part, index) => {
    const match = /^([a-z0-9-]{1,16}):([A-Za-z0-9+/_-]+={0,2})$/.exec(part)
    const key = Buffer.from(match?.[2] ?? '', 'base64')
    if (match !== null && key.length === 32 && !key.every(byte => byte === key[0])) return [{ id: match[1] ?? '', key }]
    wrong(`key ${index + 1} is not <id>:<base64 of 32 random bytes>`)
    return []
  })
}
