// What each fault did, as a table.

import { printedLines } from './tables.ts'

export interface Row {
  readonly fault: string
  readonly answers: number
  readonly longestMs: number
  readonly acceptedTwice: number
  readonly gatesOpened: number
  /** Requests of a verified session that a console refused; absent where nobody browsed. */
  readonly turnedAway?: number
  readonly recoveredMs: number
}

const HEAD = ['fault', 'answers', 'longest answer', 'accepted twice', 'gates opened', 'verified turned away', 'recovered after'] as const

/** The table as people read it. */
export function printedTable (rows: readonly Row[]): string {
  const sorted = rows.toSorted((a, b) => a.fault < b.fault ? -1 : 1)
  return printedLines([HEAD, ...sorted.map(row => [
    row.fault, String(row.answers), `${Math.round(row.longestMs)} ms`, String(row.acceptedTwice), String(row.gatesOpened),
    String(row.turnedAway ?? '-'), `${(row.recoveredMs / 1000).toFixed(1)} s`
  ])])
}
