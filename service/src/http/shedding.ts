// Shedding: while the event loop is late, calls are refused at once rather than answered when nobody waits any more.

import underPressure from '@fastify/under-pressure'
import type { FastifyInstance } from 'fastify'
import { Problem } from '../domain/problems.ts'

const SAMPLE_MS = 1_000

export interface Shedding {
  /** The service listens now: what a start delayed is not held against it, and is no load. */
  readonly begin: () => void
}

/** Refuses every call of the instance with Problem `unavailable` while the loop is later than `delayMs` on average. */
export async function shedLoad (app: FastifyInstance, delayMs: number): Promise<Shedding> {
  let from = Number.POSITIVE_INFINITY
  await app.register(underPressure, {
    maxEventLoopDelay: delayMs,
    sampleInterval: SAMPLE_MS,
    pressureHandler: async () => {
      if (performance.now() >= from) throw new Problem('unavailable', { retry_after: 2 })
    }
  })
  return {
    begin: () => {
      // The sample under way, and the one before it, are of the start.
      from = performance.now() + 2 * SAMPLE_MS
    }
  }
}
