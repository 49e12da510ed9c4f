// Tables that test files fill and the runner prints once, at its end.

import { appendFileSync } from 'node:fs'

/** Lines of cells as people read them: the first line is the head, the first column is words, the others numbers. */
export function printedLines (lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, column) => Math.max(...lines.map(line => line[column]?.length ?? 0)))
  return lines
    .map(line => line.map((cell, column) => column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)).join('  '))
    .join('\n')
}

/** Hands a file's rows of a table to the runner, which prints one table of all; alone it prints its own. */
export function handOver<R> (table: string, rows: readonly R[], printed: (rows: readonly R[]) => string): void {
  const file = process.env.POSTERN_TEST_TABLE
  if (file === undefined) process.stderr.write(`\n${printed(rows)}\n`)
  else appendFileSync(file, rows.map(row => `${JSON.stringify({ table, row })}\n`).join(''))
}
