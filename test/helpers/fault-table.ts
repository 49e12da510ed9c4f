// What each fault did, as a table.

import { printedLines } from './tables.ts'

/** What was not looked at is absent. */
export interface Row {
  readonly fault: string
  readonly answers: number
  /** Half of the answers were sooner. */
  readonly medianMs?: number
  readonly longestMs: number
  readonly acceptedTwice?: number
  readonly gatesOpened?: number
  /** Requests that a console refused to a verified session. */
  readonly turnedAway?: number
  readonly recoveredMs?: number
}

/** One row of many: how much in all, and the worst of them. */
export function together (fault: string, rows: readonly Row[]): Row {
  const sum = (pick: (row: Row) => number | undefined): number => rows.reduce((all, row) => all + (pick(row) ?? 0), 0)
  const most = (pick: (row: Row) => number | undefined): number => Math.max(0, ...rows.map(row => pick(row) ?? 0))
  return {
    fault,
    answers: sum(row => row.answers),
    longestMs: most(row => row.longestMs),
    acceptedTwice: sum(row => row.acceptedTwice),
    gatesOpened: sum(row => row.gatesOpened),
    turnedAway: sum(row => row.turnedAway),
    recoveredMs: most(row => row.recoveredMs)
  }
}

const HEAD = ['fault', 'answers', 'longest answer', 'accepted twice', 'gates opened', 'verified turned away', 'recovered after'] as const

/** The table as people read it. */
export function printedTable (rows: readonly Row[]): string {
  const sorted = rows.toSorted((a, b) => a.fault < b.fault ? -1 : 1)
  const count = (value: number | undefined): string => value === undefined ? '-' : String(value)
  return printedLines([HEAD, ...sorted.map(row => [
    row.fault, count(row.answers), `${Math.round(row.longestMs)} ms`, count(row.acceptedTwice), count(row.gatesOpened),
    count(row.turnedAway), row.recoveredMs === undefined ? '-' : `${(row.recoveredMs / 1000).toFixed(1)} s`
  ])])
}
