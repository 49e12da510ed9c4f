// How a command reaches Redis: a lost reply is asked for once more, and what cannot be told is one Problem.

import { Problem } from '../domain/problems.ts'
import { after } from './clock.ts'
import type { RedisClient } from './redis-client.ts'

/** How long a command waits for a connection that is being made anew. */
const RECONNECT_MS = 300

export interface RedisCalls {
  /** Makes a call that may be repeated; rejects with Problem `unavailable`. */
  readonly twice: <T>(call: () => Promise<T>) => Promise<T>
  /** Resolves when nothing is under way, so that closing loses no give-back. */
  readonly settled: () => Promise<void>
}

export function createRedisCalls (redis: RedisClient): RedisCalls {
  // Counted, not kept: a set that loses a call for each that it gets makes its table anew all the time.
  let underWay = 0
  const settling: (() => void)[] = []
  /** A connection that broke a moment ago is mostly back at once; one that is down stays down for longer than this. */
  const connected = async (): Promise<void> => {
    const until = performance.now() + RECONNECT_MS
    while (redis.status !== 'ready' && redis.status !== 'end' && performance.now() < until) await after(10)
  }
  const attempt = async <T>(call: () => Promise<T>): Promise<T> => {
    try {
      if (redis.status !== 'ready') await connected()
      return await call()
    } catch (first) {
      if (isRefusal(first)) throw unavailable(first)
      try {
        await connected()
        return await call()
      } catch (error) {
        throw unavailable(error)
      }
    }
  }
  return {
    twice: async call => {
      underWay += 1
      try {
        return await attempt(call)
      } finally {
        underWay -= 1
        if (underWay === 0) for (const settled of settling.splice(0)) settled()
      }
    },
    settled: async () => {
      if (underWay > 0) await new Promise<void>(resolve => { settling.push(resolve) })
    }
  }
}

/** An answer that a repeat would only get again: out of memory, no permission, a script that fails. */
function isRefusal (error: unknown): boolean {
  return error instanceof Error && /^(OOM|NOPERM|NOAUTH|WRONGTYPE|ERR|CROSSSLOT|MISCONF)\b/.test(error.message)
}

/** Redis that does not answer, or answers an error, is never guessed around. */
function unavailable (cause: unknown): Problem {
  return cause instanceof Problem ? cause : new Problem('unavailable', { retry_after: 2 }, { cause })
}
