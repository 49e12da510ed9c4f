// Waiting at start for what is starting too: after a power cut everything does, in any order.

import { after } from './clock.ts'

/** How long a server that is starting, or a fail-over that is under way, is waited for at start. */
const PATIENCE_MS = 10_000
const FIRST_MS = 100
const LONGEST_MS = 2_000

/** Tries until it works, with growing pauses. Throws what was wrong last, and at once what waiting would not change. */
export async function patient<T> (attempt: () => Promise<T>, isLasting: (error: unknown) => boolean): Promise<T> {
  const started = performance.now()
  for (let pause = FIRST_MS; ; pause = Math.min(pause * 2, LONGEST_MS)) {
    try {
      return await attempt()
    } catch (error) {
      if (isLasting(error) || performance.now() - started > PATIENCE_MS) throw error
      await after(pause)
    }
  }
}
