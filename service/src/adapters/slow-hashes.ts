// scrypt one at a time, so that a flood of backup codes leaves the other cores' work alone.

import type { Sealer } from '../domain/ports.ts'
import { createLane } from './lane.ts'
import { createThread } from './thread.ts'

// In one thread of its own: each thread of the pool that hashes keeps the 16 MB that a hash takes, 64 MB in all.
const SCRYPT = `
  const { scryptSync } = require('node:crypto')
  const { setPriority } = require('node:os')
  // Behind what somebody waits for in milliseconds, where that is allowed. Elsewhere it would be that of the process.
  try { if (process.platform === 'linux') setPriority(5) } catch {}
  const answer = ([code, salt]) =>
    scryptSync(code, Buffer.from(salt, 'base64url'), 32, { N: 16384, r: 8, p: 1 }).toString('base64url')
`

export function createSlowHashes (): Sealer['scrypt'] {
  // Who holds a set of used codes, or makes sets in a loop, keeps nobody else waiting. No rest: it is not the event
  // loop that hashes.
  const thread = createThread(SCRYPT, undefined)
  const lane = createLane({ atOnce: 1, waiting: 64, ofOne: 8, rests: false })
  /** One code that is submitted many times at once is hashed once. */
  const wanted = new Map<string, Promise<string>>()

  return async (whose, code, salt) => {
    const key = JSON.stringify([whose.tenant, whose.subject, salt, code])
    const same = wanted.get(key)
    if (same !== undefined) return await same
    const hash = lane(whose, async () => String(await thread.ask([code, salt]))).finally(() => { wanted.delete(key) })
    wanted.set(key, hash)
    return await hash
  }
}
