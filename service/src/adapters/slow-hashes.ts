// scrypt one at a time, so that a flood of backup codes leaves the other cores' work alone.

import { scrypt as scryptCallback } from 'node:crypto'
import type { Sealer } from '../domain/ports.ts'
import { createLane } from './lane.ts'

const COST = { N: 16384, r: 8, p: 1 } as const

export function createSlowHashes (): Sealer['scrypt'] {
  // Who holds a set of used codes, or makes sets in a loop, keeps nobody else waiting. No rest: it is not the event
  // loop that hashes.
  const lane = createLane({ atOnce: 1, waiting: 64, ofOne: 8, rests: false })
  /** One code that is submitted many times at once is hashed once. */
  const wanted = new Map<string, Promise<string>>()

  return async (whose, code, salt) => {
    const key = JSON.stringify([whose.tenant, whose.subject, salt, code])
    const same = wanted.get(key)
    if (same !== undefined) return await same
    const hash = lane(whose, async () => await hashed(code, salt)).finally(() => { wanted.delete(key) })
    wanted.set(key, hash)
    return await hash
  }
}

async function hashed (code: string, salt: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    scryptCallback(code, Buffer.from(salt, 'base64url'), 32, COST, (error, hash) => {
      if (error === null) resolve(hash.toString('base64url'))
      else reject(error)
    })
  })
}
