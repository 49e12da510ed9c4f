// Reads the service's stream of changes: who must be asked about again, and whether we would hear of it.

import { randomInt } from 'node:crypto'
import type { Ended } from './cache.ts'
import type { Client } from './client.ts'
import type { Clock } from './model.ts'

export interface Changes {
  readonly start: () => void
  readonly stop: () => Promise<void>
  /** A heartbeat came within 3 s. */
  readonly live: () => boolean
  /** Could an answer that knew of `change` have missed one that ends it? Unknown counts as yes. */
  readonly since: (change: number) => readonly Ended[] | 'unknown'
}

export interface ChangesOptions {
  readonly client: Pick<Client, 'changes'>
  readonly now: Clock
  readonly onChange: (change: Ended) => void
  /** Changes may have been missed: forget everything. */
  readonly onGap: () => void
  readonly onState?: (live: boolean) => void
}

const HEARTBEAT = 3_000
/** Changes kept to judge answers that were asked before and arrive after. */
const KEPT = 1_000
const LONGEST_EVENT = 100_000

export function createChanges ({ client, now, onChange, onGap, onState = () => {} }: ChangesOptions): Changes {
  let newest: number | undefined
  let heardAt = -Infinity
  let recent: Ended[] = []
  /** Every change after this number is in `recent`. */
  let completeAfter = Infinity
  let caughtUp = false
  let stopped = false
  let current: AbortController | undefined
  let running: Promise<void> | undefined
  let wake = (): void => {}

  function gap (): void {
    recent = []
    completeAfter = newest ?? Infinity
    onGap()
  }

  function hear (event: string, data: string): void {
    const { number, kind, session_ref: sessionRef, subject } = membersOf(data)
    if (typeof number !== 'number' || !Number.isSafeInteger(number)) return
    if (event === 'newest') {
      // The first number of all, or one that skips or takes back what was told.
      if (number !== newest) {
        newest = number
        gap()
      }
      // The first one of a connection only repeats what we asked from; what was missed follows it.
      if (caughtUp) heardAt = now()
      caughtUp = true
      return
    }
    if (event !== 'change') return
    const skipped = newest !== undefined && number !== newest + 1
    newest = number
    if (skipped) gap()
    const change = changeOf(number, kind, sessionRef, subject)
    recent.push(change)
    if (recent.length > KEPT) {
      const forgotten = recent.shift()
      completeAfter = forgotten?.number ?? completeAfter
    }
    onChange(change)
  }

  async function read (signal: AbortSignal, alive: () => void): Promise<void> {
    const response = await client.changes(newest, signal)
    caughtUp = false
    if (response.status !== 200 || response.body === null) {
      await response.body?.cancel()
      return
    }
    const decoder = new TextDecoder()
    let buffer = ''
    for await (const bytes of response.body) {
      alive()
      buffer += decoder.decode(bytes, { stream: true })
      const events = buffer.split(/\r?\n\r?\n/)
      buffer = events.pop() ?? ''
      if (buffer.length > LONGEST_EVENT) return
      for (const event of events) {
        const fields = new Map(event.split(/\r?\n/).map(line => {
          const colon = line.indexOf(':')
          return [line.slice(0, colon), line.slice(colon + 1).trim()]
        }))
        hear(fields.get('event') ?? 'message', fields.get('data') ?? '')
      }
    }
  }

  async function run (): Promise<void> {
    let failures = 0
    for (;;) {
      if (stopped) return
      const abort = new AbortController()
      current = abort
      // A stream that says nothing is a dead socket: half-open connections never end by themselves.
      let watch = setTimeout(() => { abort.abort() }, HEARTBEAT)
      watch.unref()
      const alive = (): void => {
        failures = 0
        clearTimeout(watch)
        watch = setTimeout(() => { abort.abort() }, HEARTBEAT)
        watch.unref()
      }
      try {
        await read(abort.signal, alive)
      } catch {
        // Refused, reset or silent: the cache falls back to its 5 s on its own.
      }
      clearTimeout(watch)
      abort.abort()
      onState(false)
      failures++
      const pause = Math.min(5_000, 100 * 2 ** Math.min(failures, 6)) * (0.5 + randomInt(500) / 1000)
      await new Promise<void>(resolve => {
        wake = resolve
        if (stopped) return resolve()
        setTimeout(resolve, pause).unref()
      })
    }
  }

  return {
    start: () => { running ??= run() },
    stop: async () => {
      stopped = true
      current?.abort()
      wake()
      await running
    },
    live: () => now() - heardAt < HEARTBEAT,
    since: change => change < completeAfter ? 'unknown' : recent.filter(one => one.number > change)
  }
}

function changeOf (number: number, kind: unknown, sessionRef: unknown, subject: unknown): Ended {
  if (kind === 'session' && typeof sessionRef === 'string') return { kind, number, sessionRef }
  if (kind === 'subject' && typeof subject === 'string') return { kind, number, subject }
  // A kind that is newer than this plugin may mean anybody.
  return { kind: 'tenant', number }
}

// The one narrowing of this boundary: an event's data, as something whose members may be looked at.
function membersOf (data: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(data)
    return typeof value === 'object' && value !== null ? value as Readonly<Record<string, unknown>> : {}
  } catch {
    return {}
  }
}
