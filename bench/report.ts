// What was measured, as Markdown: printed, kept in docs/performance.md between the marks of its part, and read back
// from there for a comparison.

import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'

export interface Row {
  readonly name: string
  /** Throughput to that of the baseline in the same round. */
  readonly ratio: { readonly median: number, readonly min: number, readonly max: number }
  /** CPU of the server's processes for one operation. */
  readonly cpuMicros: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly perSecond: number
  /** The least median that is good enough. */
  readonly target?: number
}

/** Things measured against a baseline in turn; the first row is the baseline. */
export interface Table {
  readonly title: string
  readonly operation: string
  readonly rows: readonly Row[]
  /** Second slice of the baseline to its first, over all rounds. */
  readonly spread: { readonly min: number, readonly max: number }
}

/** One number that stands for itself. */
export interface Figure {
  readonly name: string
  readonly value: string
  /** What it must be, in words, and whether it is. */
  readonly must?: string
  readonly kept?: boolean
}

/** The median ratio of a thing of the table. */
export const ratioOf = ({ rows }: Table, name: string): number =>
  rows.find(row => row.name === name)?.ratio.median ?? Number.NaN

export interface Part {
  readonly tables: readonly Table[]
  readonly figures: readonly Figure[]
}

const PAGE = fileURLToPath(new URL('../docs/performance.md', import.meta.url))

const round = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)

function printedTable ({ title, operation, rows, spread }: Table): string {
  return [
    `**${title}**; one operation is ${operation}. A/A of the baseline: ${spread.min.toFixed(2)} to ${spread.max.toFixed(2)}.`,
    '',
    '| thing | ratio to baseline: median (min to max) | must be | CPU µs an operation | p50 / p99, ms | operations a second |',
    '|---|---|---|---|---|---|',
    ...rows.map(({ name, ratio, cpuMicros, p50, p99, perSecond, target }) => [
      '', name, `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`,
      target === undefined ? '' : `≥ ${target}${ratio.median < target ? ' **missed**' : ''}`,
      cpuMicros.toFixed(0), `${round(p50)} / ${round(p99)}`, perSecond.toFixed(0), ''
    ].join(' | ').trim())
  ].join('\n')
}

function printedFigures (figures: readonly Figure[]): string {
  return [
    '| figure | measured | must be |',
    '|---|---|---|',
    ...figures.map(({ name, value, must = '', kept = true }) =>
      `| ${name} | ${value} | ${must}${kept ? '' : ' **missed**'} |`)
  ].join('\n')
}

export function printed ({ tables, figures }: Part): string {
  return [...tables.map(printedTable), ...(figures.length === 0 ? [] : [printedFigures(figures)])].join('\n\n')
}

const marks = (part: string) => ({ from: `<!-- ${part} -->\n`, to: `<!-- end of ${part} -->\n` })

function between (page: string, part: string) {
  const { from, to } = marks(part)
  const start = page.indexOf(from)
  const end = page.indexOf(to)
  if (start === -1 || end < start) throw new Error(`docs/performance.md has no marks of ${part}`)
  const begin = start + from.length
  return { before: page.slice(0, begin), text: page.slice(begin, end), after: page.slice(end) }
}

/** Puts what was measured in the place of what stood there. */
export function keep (name: string, part: Part, date: Date): void {
  const { before, after } = between(readFileSync(PAGE, 'utf8'), name)
  const [cpu] = cpus()
  const machine = `${cpus().length} × ${cpu?.model.trim() ?? 'unknown CPU'}, Node ${process.versions.node}`
  const text = `\`npm run bench -- ${name}\`, ${date.toISOString().slice(0, 10)}, ${machine}.\n\n${printed(part)}\n`
  writeFileSync(PAGE, before + text + after)
}

/** The medians that stand in the page, by table and thing. */
function keptRatios (name: string): ReadonlyMap<string, number> {
  const ratios = new Map<string, number>()
  let title = ''
  for (const line of between(readFileSync(PAGE, 'utf8'), name).text.split('\n')) {
    title = /^\*\*(.+?)\*\*;/.exec(line)?.[1] ?? title
    const [, thing = '', ratio] = /^\| (.+?) \| (\d+\.\d+) \(/.exec(line) ?? []
    if (ratio !== undefined) ratios.set(`${title}: ${thing}`, Number(ratio))
  }
  return ratios
}

/** One sentence for each ratio that fell by more than the baseline differs from itself. */
export function fallen (name: string, { tables }: Part): readonly string[] {
  const before = keptRatios(name)
  return tables.flatMap(({ title, rows, spread }) => {
    const noise = Math.max(spread.max - 1, 1 - spread.min)
    return rows.slice(1).flatMap(row => {
      const key = `${title}: ${row.name}`
      const was = before.get(key)
      return was !== undefined && row.ratio.median < was * (1 - noise)
        ? [`${key} fell from ${was.toFixed(2)} to ${row.ratio.median.toFixed(2)} (the baseline differs from itself by ${(noise * 100).toFixed(0)} %)`]
        : []
    })
  })
}
