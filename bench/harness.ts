// Measures servers against a baseline: short slices in turn (A B C A, then back), so that what else the machine does
// falls on all of them, and the baseline twice in each round, so that its spread is known.

import { readFileSync } from 'node:fs'
import { connectTo, type Connection } from './connection.ts'
import type { Row, Table } from './report.ts'

/** A running server and what is asked of it. */
export interface Thing {
  readonly name: string
  /** Where it listens; connections are spread over several addresses. */
  readonly url: string | readonly string[]
  /** What each slice needs that the one before used up; not timed. */
  readonly before?: (() => Promise<void>) | undefined
  /** The processes whose CPU is counted. */
  readonly pids: readonly number[]
  /** One operation over a connection; throws WrongAnswer where an answer is not what it must be. */
  readonly operation: (connection: Connection) => Promise<void>
}

export interface Plan {
  readonly rounds: number
  readonly sliceMs: number
  readonly warmMs: number
  readonly connections: number
  /** Operations of each thing before it is measured. */
  readonly warmOperations?: number
}

export const PLAN: Plan = { rounds: 5, sliceMs: 1_200, warmMs: 1_000, connections: 16 }
export const QUICK: Plan = { rounds: 2, sliceMs: 400, warmMs: 320, connections: 16 }

export interface Slice {
  readonly perSecond: number
  readonly cpuMicros: number
  readonly operations: number
  readonly times: readonly number[]
}

/** Enough for a steady pace that is not held up by the slowest of its operations. */
const PACED_CONNECTIONS = 64
const WARM_OPERATIONS = 3_000
const WARM_AT_MOST = 3

/** Ticks of the kernel's clock in a second, as Linux counts CPU time for processes. */
const TICKS = 100

/** CPU time of a process with all of its threads, in microseconds. */
export function cpuOf (pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 1e6 / TICKS
}

/** Resident memory of a process, in bytes. */
export function residentOf (pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) * 1024
}

export const quantile = (values: readonly number[], part: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN

export const median = (values: readonly number[]): number => quantile(values, 0.5)

async function connectAll ({ url }: Thing, connections: number): Promise<readonly Connection[]> {
  const urls = [url].flat()
  const line = async (i: number): Promise<Connection> => await connectTo(urls[i % urls.length] ?? '')
  return await Promise.all(Array.from({ length: connections }, async (_, i) => await line(i)))
}

/** A closed loop: each connection asks, waits for the answer, and asks again, until the time is over. */
export async function slice (thing: Thing, ms: number, connections: number): Promise<Slice> {
  await thing.before?.()
  const lines = await connectAll(thing, connections)
  const times: number[] = []
  const cpu = (): number => thing.pids.reduce((sum, pid) => sum + cpuOf(pid), 0)
  const before = cpu()
  const began = performance.now()
  const end = began + ms
  await Promise.all(lines.map(async line => {
    for (let from = performance.now(); from < end;) {
      await thing.operation(line)
      const now = performance.now()
      times.push(now - from)
      from = now
    }
  }))
  const took = performance.now() - began
  const used = cpu() - before
  for (const line of lines) line.close()
  return { perSecond: times.length / took * 1000, cpuMicros: used / times.length, operations: times.length, times }
}

/**
 * Operations at a steady pace, whether or not the ones before are answered: milliseconds of each from when it was due,
 * so that a stall shows in all that it kept waiting.
 */
export async function paced (thing: Thing, perSecond: number, ms: number): Promise<readonly number[]> {
  const lines = await connectAll(thing, PACED_CONNECTIONS)
  const times: number[] = []
  const total = Math.floor(perSecond * ms / 1_000)
  const began = performance.now()
  let turn = 0
  await Promise.all(lines.map(async line => {
    for (let mine = turn++; mine < total; mine = turn++) {
      const due = began + mine / perSecond * 1_000
      const early = due - performance.now()
      if (early > 0) await new Promise(resolve => { setTimeout(resolve, early) })
      await thing.operation(line)
      times.push(performance.now() - due)
    }
  }))
  for (const line of lines) line.close()
  return times
}

/** Until what is compiled while it runs is compiled: by count too, since a busy machine does little in a time. */
async function warm (thing: Thing, { warmMs, connections, warmOperations = WARM_OPERATIONS }: Plan): Promise<void> {
  const until = performance.now() + warmMs * WARM_AT_MOST
  for (let done = 0; done < warmOperations && performance.now() < until;) {
    done += (await slice(thing, warmMs, connections)).operations
  }
}

/** Collects slices of one thing into a row of the table. */
function rowOf (name: string, slices: readonly Slice[], ratios: readonly number[]): Row {
  const times = slices.flatMap(one => one.times)
  const operations = slices.reduce((sum, one) => sum + one.operations, 0)
  return {
    name,
    ratio: { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) },
    cpuMicros: slices.reduce((sum, one) => sum + one.cpuMicros * one.operations, 0) / operations,
    p50: quantile(times, 0.5),
    p99: quantile(times, 0.99),
    perSecond: median(slices.map(one => one.perSecond))
  }
}

/**
 * Rounds of slices. The ratio of a thing in a round is its throughput to the mean of the two of the baseline. `targets`
 * are the least medians, by name.
 */
export async function compare (
  title: string,
  { baseline, others, plan, operation, targets = {} }: {
    readonly baseline: Thing
    readonly others: readonly Thing[]
    readonly plan: Plan
    /** What one operation is, for the head of the table. */
    readonly operation: string
    readonly targets?: Readonly<Record<string, number>>
  }
): Promise<Table> {
  const all = [baseline, ...others]
  for (const thing of all) await warm(thing, plan)
  const kept = new Map(all.map(thing => [thing, { slices: [] as Slice[], ratios: [] as number[] }]))
  const again: number[] = []
  for (let round = 0; round < plan.rounds; round++) {
    const order = round % 2 === 0 ? others : [...others].reverse()
    const taken = new Map<Thing, Slice>()
    const first = await slice(baseline, plan.sliceMs, plan.connections)
    for (const thing of order) taken.set(thing, await slice(thing, plan.sliceMs, plan.connections))
    const second = await slice(baseline, plan.sliceMs, plan.connections)
    const mean = (first.perSecond + second.perSecond) / 2
    again.push(second.perSecond / first.perSecond)
    kept.get(baseline)?.slices.push(first, second)
    kept.get(baseline)?.ratios.push(first.perSecond / mean, second.perSecond / mean)
    for (const [thing, one] of taken) {
      kept.get(thing)?.slices.push(one)
      kept.get(thing)?.ratios.push(one.perSecond / mean)
    }
  }
  const rows = all.map(thing => {
    const { slices, ratios } = kept.get(thing) ?? { slices: [], ratios: [] }
    const target = targets[thing.name]
    return { ...rowOf(thing.name, slices, ratios), ...(target === undefined ? {} : { target }) }
  })
  return { title, operation, rows, spread: { min: Math.min(...again), max: Math.max(...again) } }
}
