// Who a credential belongs to, asked of the console and remembered for a little while.

import type { Identity } from '../model.ts'

export interface Identities {
  /** Asks at most once at a time for each credential. What is nobody's is never remembered. */
  readonly of: (credential: string, ask: () => Promise<Identity | null>) => Identity | null | Promise<Identity | null>
  /** Something passes that may change whose it is. */
  readonly forget: (credential: string) => void
  /** From now on each request asks: sessions become another's here, and what is remembered would pass their pages. */
  readonly keepNone: () => void
}

const REMEMBERED = 20_000

export function createIdentities ({ now, keepMs }: {
  readonly now: () => number
  readonly keepMs: number
}): Identities {
  const known = new Map<string, { readonly identity: Identity, readonly until: number }>()
  const asking = new Map<string, Promise<Identity | null>>()
  let keeps = keepMs > 0

  return {
    of: (credential, ask) => {
      const one = known.get(credential)
      if (one !== undefined && now() < one.until) return one.identity
      const running = asking.get(credential)
      if (running !== undefined) return running
      const began = now()
      const question = ask().then(identity => {
        if (asking.get(credential) === question && identity !== null && identity.subject !== null && keeps) {
          if (known.size >= REMEMBERED) known.clear()
          known.set(credential, { identity, until: began + keepMs })
        }
        return identity
      }).finally(() => {
        if (asking.get(credential) === question) asking.delete(credential)
      })
      asking.set(credential, question)
      return question
    },
    forget: credential => {
      known.delete(credential)
      asking.delete(credential)
    },
    keepNone: () => {
      keeps = false
      known.clear()
    }
  }
}
