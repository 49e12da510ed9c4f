// One keep-alive connection that asks and waits: as little as HTTP/1.1 needs, so that the driver's own cost does not
// stand in what it measures.

import { connect } from 'node:net'

export interface Answer {
  readonly status: number
  /** Status line and headers. */
  readonly head: string
  /** Bytes of the body. */
  readonly length: number
  /** Put together where it is looked at, since that costs more than to receive it. */
  readonly body: Buffer
}

export interface Connection {
  /** `headers` are whole lines, each with its CRLF. */
  readonly ask: (method: string, target: string, headers?: string, body?: string) => Promise<Answer>
  readonly close: () => void
}

/** Thrown where an answer is not what it must be: it ends the run. */
export class WrongAnswer extends Error {
  constructor (what: string) {
    super(what)
    this.name = 'WrongAnswer'
  }
}

/** The body as JSON of an answer that must have this status. */
export function json<T> ({ status, body }: Answer, expected = 200): T {
  if (status !== expected) throw new WrongAnswer(`${status} instead of ${expected}: ${body.toString().slice(0, 400)}`)
  return JSON.parse(body.toString()) as T
}

const HEAD_END = Buffer.from('\r\n\r\n')

/** The length of the head, or undefined while it is not there. */
const headOf = (bytes: Buffer): number | undefined => {
  const end = bytes.indexOf(HEAD_END)
  return end === -1 ? undefined : end + 4
}

/** The body of a chunked answer, or undefined while its last chunk is not there. */
function chunked (bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = []
  for (let at = 0; ;) {
    const line = bytes.indexOf('\r\n', at)
    if (line === -1) return undefined
    const size = Number.parseInt(bytes.toString('latin1', at, line), 16)
    const from = line + 2
    if (bytes.length < from + size + 2) return undefined
    if (size === 0) return Buffer.concat(parts)
    parts.push(bytes.subarray(from, from + size))
    at = from + size + 2
  }
}

const answerOf = (head: string, length: number, parts: readonly Buffer[], from = 0): Answer => ({
  status: Number(head.slice(9, 12)),
  head,
  length,
  get body () { return Buffer.concat(parts).subarray(from) }
})

export async function connectTo (url: string): Promise<Connection> {
  const { hostname, port, host } = new URL(url)
  const socket = connect(Number(port), hostname).setNoDelay()
  let waiting: { readonly done: (answer: Answer) => void, readonly fail: (error: Error) => void } | undefined
  let parts: Buffer[] = []
  let size = 0
  /** The head of an answer that says how long it is, and how many bytes there must be. */
  let begun: { readonly head: string, readonly needed: number } | undefined
  const read = (): Answer | undefined => {
    if (begun === undefined) {
      const bytes = Buffer.concat(parts)
      const end = headOf(bytes)
      if (end === undefined) return undefined
      const head = bytes.toString('latin1', 0, end)
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
      if (length === undefined) {
        const rest = bytes.subarray(end)
        const body = /\r\ntransfer-encoding: *chunked/i.test(head) ? chunked(rest) : rest
        return body === undefined ? undefined : answerOf(head, body.length, [body])
      }
      begun = { head, needed: end + Number(length) }
    }
    const { head, needed } = begun
    return size < needed ? undefined : answerOf(head, needed - head.length, parts, head.length)
  }
  socket.on('data', data => {
    parts.push(data)
    size += data.length
    const answer = read()
    if (answer === undefined) return
    parts = []
    size = 0
    begun = undefined
    const { done } = waiting ?? {}
    waiting = undefined
    done?.(answer)
  })
  const broken = (error?: Error): void => { waiting?.fail(new WrongAnswer(`the connection broke: ${error?.message ?? 'closed'}`)) }
  socket.on('error', broken).on('close', () => { broken() })
  await new Promise<void>((resolve, reject) => { socket.once('connect', resolve).once('error', reject) })
  return {
    ask: async (method, target, headers = '', body) => {
      const content = body === undefined ? '' : `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`
      return await new Promise((resolve, reject) => {
        waiting = { done: resolve, fail: reject }
        socket.write(`${method} ${target} HTTP/1.1\r\nhost: ${host}\r\n${headers}${content}\r\n${body ?? ''}`)
      })
    },
    close: () => { socket.destroy() }
  }
}
