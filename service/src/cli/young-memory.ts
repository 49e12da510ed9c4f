// How much memory V8 takes for young objects. It would go from 2 to 32 MB in a burst, and stay there: 16 MB more than
// the service is faster for.

import { PerformanceObserver } from 'node:perf_hooks'
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'

/** Enough for what is young at a time under full load; both halves of it. */
const MOST_BYTES = 16 * 1024 * 1024

const growBy = (factor: number): void => { setFlagsFromString(`--semi-space-growth-factor=${factor}`) }

/** A start makes many objects once, for which nothing needs to grow. Must stand before anything else is loaded. */
export function holdYoungMemory (): void {
  growBy(1)
}

/** Requests come from now on: it may grow, and no further than that. Looked at after each collection. */
export function letYoungMemoryGrow (): void {
  growBy(2)
  new PerformanceObserver(() => {
    const young = getHeapSpaceStatistics().find(space => space.space_name === 'new_space')
    growBy((young?.space_size ?? 0) < MOST_BYTES ? 2 : 1)
  }).observe({ entryTypes: ['gc'] })
}
