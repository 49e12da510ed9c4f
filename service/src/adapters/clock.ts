// The process clock, and waiting on it.

import type { Clock } from '../domain/ports.ts'

export const systemClock: Clock = { now: () => Date.now() }

/** Resolves after `ms`. */
export async function after (ms: number): Promise<void> {
  await new Promise(resolve => { setTimeout(resolve, ms) })
}

/** Runs `work` after `ms` unless the process ends before. */
export function unlessEnded (ms: number, work: () => void): void {
  setTimeout(work, ms).unref()
}
