// scrypt one at a time, so that a flood of backup codes leaves the other cores' work alone, in a bounded queue in which
// subjects take turns.

import { scrypt as scryptCallback } from 'node:crypto'
import type { Sealer } from '../domain/ports.ts'
import { Problem } from '../domain/problems.ts'

/** Most that wait in a process; beyond it a caller is told to come back. */
const QUEUE = 64
/** Most of them of one subject: who holds a set of used codes, or makes sets in a loop, keeps nobody else waiting. */
const OF_ONE = 8
const COST = { N: 16384, r: 8, p: 1 } as const

export function createSlowHashes (): Sealer['scrypt'] {
  /** What each subject waits for; the order of the map is that of turns. */
  const waiting = new Map<string, (() => Promise<void>)[]>()
  /** One code that is submitted many times at once is hashed once. */
  const wanted = new Map<string, Promise<string>>()
  let queued = 0
  let busy = false

  const work = async (): Promise<void> => {
    busy = true
    for (let [first] = waiting; first !== undefined; [first] = waiting) {
      const [subject, jobs] = first
      waiting.delete(subject)
      const job = jobs.shift()
      // Behind everybody else who waits.
      if (jobs.length > 0) waiting.set(subject, jobs)
      queued -= 1
      await job?.()
    }
    busy = false
  }

  return async ({ tenant, subject }, code, salt) => {
    const name = JSON.stringify([tenant, subject])
    const key = JSON.stringify([tenant, subject, salt, code])
    const same = wanted.get(key)
    if (same !== undefined) return await same
    const own = waiting.get(name) ?? []
    if (queued >= QUEUE || own.length >= OF_ONE) throw new Problem('unavailable', { retry_after: 2 })
    const hash = new Promise<string>((resolve, reject) => {
      own.push(async () => {
        await hashed(code, salt).then(resolve, reject)
        wanted.delete(key)
      })
    })
    wanted.set(key, hash)
    waiting.set(name, own)
    queued += 1
    if (!busy) void work()
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
