// Single-use passes for documents that need a code with the very request: a redirect that is stale on return would
// ask for ever.

import type { Clock } from './model.ts'

export interface StepUpPasses {
  /** One GET of this target by who gave the code, within 30 s. */
  readonly give: (key: string, target: string) => void
  readonly use: (key: string, target: string) => boolean
  readonly size: () => number
}

const LIFETIME = 30_000
const MOST = 1_000

export function createStepUpPasses (now: Clock): StepUpPasses {
  const passes = new Map<string, number>()
  return {
    give: (key, target) => {
      for (const [pass, until] of passes) if (until <= now() || passes.size >= MOST) passes.delete(pass)
      passes.set(`${key}\n${target}`, now() + LIFETIME)
    },
    use: (key, target) => {
      const pass = `${key}\n${target}`
      const until = passes.get(pass)
      passes.delete(pass)
      return until !== undefined && now() < until
    },
    size: () => passes.size
  }
}
