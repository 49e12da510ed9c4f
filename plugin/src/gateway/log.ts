// The log on its way out: nobody who should read it can make the gateway wait.

import type { Writable } from 'node:stream'

/** Bytes that wait for a slow reader; what comes beyond is dropped and counted. */
const WAITING = 1024 * 1024

/** Lines go out at once while somebody reads. `output` never blocks: what a pipe has no room for waits in memory. */
export function createLogStream (output: Writable, today: () => number) {
  let dropped = 0
  return {
    write: (line: string): void => {
      if (output.writableLength >= WAITING) {
        dropped += 1
        return
      }
      if (dropped > 0) {
        output.write(`${JSON.stringify({ level: 40, time: today(), dropped, msg: 'lines of the log were dropped' })}\n`)
        dropped = 0
      }
      output.write(line)
    }
  }
}
