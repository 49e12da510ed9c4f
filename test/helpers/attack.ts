// Requests as bytes, in lanes of kept-alive sockets, and the table of what they reached. No client library: none may
// tidy what is sent.

import { connect, type Socket } from 'node:net'
import { handOver, printedLines } from './tables.ts'

export interface Sent {
  /** 0: the connection ended without an answer. */
  readonly status: number
  readonly head: string
}

/** Sends one request after the other over one socket; opens another where the last one was closed. */
export function createLane (port: number, waitMs = 15_000) {
  let socket: Socket | undefined

  async function send (bytes: string, headOnly: boolean): Promise<Sent> {
    const fresh = socket === undefined
    const answer = await exchange(bytes, headOnly)
    // A kept socket may have been closed just before: only a fresh one says that the request itself is not answered.
    return answer.status === 0 && !fresh ? await exchange(bytes, headOnly) : answer
  }

  async function exchange (bytes: string, headOnly: boolean): Promise<Sent> {
    return await new Promise(resolve => {
      const mine = socket ?? connect(port, '127.0.0.1')
      socket = mine
      let text = ''
      const done = (keep: boolean): void => {
        clearTimeout(timer)
        mine.removeAllListeners()
        if (!keep) {
          mine.on('error', () => {})
          mine.destroy()
          socket = undefined
        }
        const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)
        resolve({ status, head: text.split('\r\n\r\n')[0] ?? '' })
      }
      const timer = setTimeout(() => { done(false) }, waitMs)
      mine.on('data', data => {
        text = (text + data.toString('latin1')).replace(/^HTTP\/1\.1 100[^\r]*\r\n\r\n/, '')
        const ended = endOf(text, headOnly)
        if (ended !== undefined) done(ended === 'keep')
      })
      mine.on('error', () => { done(false) })
      mine.on('close', () => { done(false) })
      mine.on('end', () => { done(false) })
      mine.write(bytes, 'latin1')
    })
  }

  return { send, close: (): void => { socket?.destroy() } }
}

/** Is the answer whole? `close` where nothing may follow on this socket. */
function endOf (text: string, headOnly: boolean): 'keep' | 'close' | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return undefined
  const head = text.slice(0, end).toLowerCase()
  const status = Number(head.split(' ')[1])
  if (status === 101) return 'close'
  const after = /\r\nconnection: *close/.test(head) ? 'close' : 'keep'
  if (headOnly || status === 204 || status === 304) return after
  const length = /\r\ncontent-length: *(\d+)/.exec(head)?.[1]
  if (length !== undefined) return text.length >= end + 4 + Number(length) ? after : undefined
  if (/\r\ntransfer-encoding: *chunked/.test(head)) return text.endsWith('\r\n0\r\n\r\n') ? after : undefined
  return undefined
}

export interface Attempt {
  readonly bytes: string
  readonly headOnly?: boolean
}

/** Sends all, in lanes side by side; answers how many were answered with which status. */
export async function sendAll (
  port: number,
  attempts: readonly Attempt[],
  lanes = 6
): Promise<ReadonlyMap<number, number>> {
  const left = attempts.values()
  const statuses = new Map<number, number>()
  await Promise.all(Array.from({ length: lanes }, async () => {
    const lane = createLane(port)
    for (const { bytes, headOnly } of left) {
      const { status } = await lane.send(bytes, headOnly === true)
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
    }
    lane.close()
  }))
  return statuses
}

export interface Row {
  readonly group: string
  readonly sent: number
  /** Requests that reached what they must not: 0. */
  readonly hits: number
  /** Requests that may pass, and did. */
  readonly controls: number
}

const HEAD = ['group', 'requests sent', 'protected hits', 'controls passed'] as const

/** The table as people read it. */
export function printedTable (rows: readonly Row[]): string {
  const sum = (pick: (row: Row) => number): number => rows.reduce((all, row) => all + pick(row), 0)
  const sorted = rows.toSorted((a, b) => a.group < b.group ? -1 : 1)
  return printedLines([
    HEAD,
    ...[...sorted, { group: 'all', sent: sum(one => one.sent), hits: sum(one => one.hits), controls: sum(one => one.controls) }]
      .map(({ group, sent, hits, controls }) => [group, String(sent), String(hits), String(controls)])
  ])
}

export function report (rows: readonly Row[]): void {
  handOver('attacks', rows, printedTable)
}
