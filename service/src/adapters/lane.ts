// A lane for what may wait: few at once, the rest in a bounded queue in which subjects take turns. A flood in it leaves
// what is not in it alone, and whoever comes with one piece of work waits for one piece of each other at the most.

import type { Lane } from '../domain/ports.ts'
import { Problem } from '../domain/problems.ts'
import { after } from './clock.ts'

export interface LaneOptions {
  /** Most under way in a process. */
  readonly atOnce: number
  /** Most that wait in a process; beyond it a caller is told to come back. */
  readonly waiting: number
  /** Most of them of one subject. */
  readonly ofOne: number
  /**
   * After each piece of work the lane rests twice as long as that took, and no longer than 25 ms: what the event loop
   * does for a flood is then at most a third of what it does, and a slow database is not waited for three times.
   */
  readonly rests: boolean
}

const RESTS = 2
const LONGEST_REST_MS = 25

export function createLane ({ atOnce, waiting: most, ofOne, rests }: LaneOptions): Lane {
  /** What each subject waits for; the order of the map is that of turns. */
  const waiting = new Map<string, (() => Promise<void>)[]>()
  let queued = 0
  let running = 0

  const run = async (): Promise<void> => {
    running += 1
    for (let [first] = waiting; first !== undefined; [first] = waiting) {
      const [subject, jobs] = first
      waiting.delete(subject)
      const job = jobs.shift()
      // Behind everybody else who waits.
      if (jobs.length > 0) waiting.set(subject, jobs)
      queued -= 1
      const began = performance.now()
      await job?.()
      if (rests) await after(Math.min(RESTS * (performance.now() - began), LONGEST_REST_MS))
    }
    running -= 1
  }

  return async ({ tenant, subject }, work) => {
    const name = JSON.stringify([tenant, subject])
    const own = waiting.get(name) ?? []
    if (queued >= most || own.length >= ofOne) throw new Problem('unavailable', { retry_after: 2 })
    return await new Promise((resolve, reject) => {
      own.push(async () => { await work().then(resolve, reject) })
      waiting.set(name, own)
      queued += 1
      if (running < atOnce) void run()
    })
  }
}
