// The log on its way out: nobody who should read it can make the service wait.

import type { Writable } from 'node:stream'
import { after } from './clock.ts'

/** Bytes that wait for a slow reader; what comes beyond is dropped and counted. */
const WAITING = 1024 * 1024
/** How long an ending process waits for its reader. */
const LAST_MS = 1_000
const LOOK_MS = 10

export interface LogStream {
  readonly write: (line: string) => void
  /** Lines that were dropped since the start. */
  readonly dropped: () => number
  /** Resolves when all is out, or nobody reads it. */
  readonly flushed: () => Promise<void>
}

/**
 * Lines go out at once while somebody reads, so that the last ones before a crash are not lost. `output` never blocks:
 * a pipe takes what it has room for and keeps the rest in memory.
 */
export function createLogStream (output: Writable): LogStream {
  let dropped = 0
  let unsaid = 0
  return {
    write: line => {
      if (output.writableLength >= WAITING) {
        dropped += 1
        unsaid += 1
        return
      }
      if (unsaid > 0) {
        output.write(`${JSON.stringify({ level: 40, time: Date.now(), dropped: unsaid, msg: 'lines of the log were dropped' })}\n`)
        unsaid = 0
      }
      output.write(line)
    },
    dropped: () => dropped,
    flushed: async () => {
      const until = performance.now() + LAST_MS
      while (output.writableLength > 0 && output.writable && performance.now() < until) await after(LOOK_MS)
    }
  }
}
