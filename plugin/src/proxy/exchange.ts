// One exchange with the console behind: streamed to the client as it comes, or read into memory where it is looked
// at.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { brotliDecompress, inflate, gunzip } from 'node:zlib'
import { promisify } from 'node:util'
import { Agent } from 'undici'
import { answerHeaders } from './headers.ts'

/** An answer of the console in memory, decoded. Header names are as they came. */
export interface Answered {
  readonly status: number
  readonly headers: readonly string[]
  readonly body: Buffer
}

export interface Outgoing {
  readonly method: string
  readonly path: string
  readonly headers: string[]
  readonly body: Buffer | Readable | undefined
}

/** The console did not answer: nothing of an answer has been written. */
export interface Failed {
  readonly failed: 'unreachable' | 'late'
}

export interface Upstream {
  /**
   * Streams the answer to the client, byte for byte. Resolves when it is through, or when the console did not answer
   * and the client has heard nothing yet. `seen` gets status and headers before they are written.
   */
  readonly stream: (
    outgoing: Outgoing,
    response: ServerResponse,
    seen: (status: number, headers: readonly string[]) => void
  ) => Promise<Failed | undefined>
  /** The whole answer. */
  readonly read: (outgoing: Outgoing) => Promise<Answered | Failed>
  readonly close: () => Promise<void>
}

export interface UpstreamParts {
  readonly origin: string
  readonly publicOrigin: string
  readonly timeoutMs: number
  readonly connections: number
}

/** Longest answer that is read into memory. */
const LONGEST = 1_048_576
const CONNECT_MS = 5_000

export function createUpstream ({ origin, publicOrigin, timeoutMs, connections }: UpstreamParts): Upstream {
  const agent = new Agent({
    connections,
    pipelining: 1,
    headersTimeout: timeoutMs,
    // Events may be minutes apart; a client that leaves ends the exchange.
    bodyTimeout: 0,
    keepAliveTimeout: 4_000,
    connect: { timeout: CONNECT_MS },
    maxHeaderSize: 65_536
  })

  function attempt (
    { method, path, headers, body }: Outgoing,
    response: ServerResponse,
    seen: (status: number, headers: readonly string[]) => void
  ): Promise<Failed | 'again' | undefined> {
    return new Promise(resolve => {
      let begun = false
      let bodiless = false
      let wrote = false
      let length = Number.NaN
      let whole: Buffer | undefined
      let left: (() => void) | undefined
      let resume: (() => void) | undefined
      const settle = (how: Failed | 'again' | undefined): void => {
        if (left !== undefined) response.removeListener('close', left)
        if (resume !== undefined) response.removeListener('drain', resume)
        resolve(how)
      }
      agent.dispatch({
        origin,
        path,
        method: methodOf(method),
        headers,
        body: body instanceof Readable ? unharmed(body) : body ?? null
      }, {
        onRequestStart (controller) {
          if (left !== undefined) return
          left = () => {
            if (!response.writableFinished) controller.abort(new Error('the client left'))
          }
          response.on('close', left)
          if (response.destroyed) left()
        },
        onResponseStart (controller, status, _parsed, message = '') {
          const raw = rawOf(controller.rawHeaders)
          const passed = answerHeaders(raw, origin, publicOrigin)
          if (status < 200) return foretell(response, status, passed)
          begun = true
          bodiless = status === 204 || status === 304
          length = Number(headerOf({ headers: passed }, 'content-length'))
          seen(status, passed)
          response.writeHead(status, SAYABLE.test(message) ? message : '', passed)
          // Small ones leave whole, those of some length in as few writes as they come in. Others may begin with
          // headers alone, as server-sent events and long polls do; `flushHeaders` would send them as UTF-8.
          if (length <= SMALL) return
          const gathered = length <= GATHERED
          if (gathered) response.cork()
          setImmediate(() => {
            if (response.destroyed) return
            if (!wrote && !BODILESS.has(status) && method !== 'HEAD') response.write(NOTHING)
            if (gathered && !response.writableEnded) response.uncork()
          })
        },
        onResponseData (controller, chunk) {
          // An exchange that goes on after a pause begins with an empty piece: a system call, and another pause.
          if (chunk.length === 0) return
          if (!wrote && chunk.length === length && length <= SMALL) whole = chunk
          else if (!response.write(chunk) && !(length <= GATHERED)) {
            controller.pause()
            if (resume === undefined) response.on('drain', resume = () => { controller.resume() })
          }
          wrote = true
        },
        onResponseEnd (_controller, trailers) {
          wrote = true
          const named = Object.entries(trailers).map(([name, value]): [string, string] => [name, String(value)])
          if (named.length > 0 && response.chunkedEncoding) response.addTrailers(named)
          // As text it leaves in one write with its headers; as bytes it would be a gathered write of two pieces.
          if (whole === undefined) response.end()
          else response.end(whole.toString('latin1'), 'latin1')
          settle(undefined)
        },
        onResponseError (_controller, error) {
          if (begun) {
            // The client must see that the answer is not whole. One that has no body is: what it says of a length is
            // of the body it stands for, which undici waits for all the same.
            if (bodiless) response.end()
            else response.destroy()
            return settle(undefined)
          }
          if (response.destroyed) return settle(undefined)
          settle(retriable(error) && body === undefined && SAFE.has(method) ? 'again' : failure(error))
        }
      })
    })
  }

  return {
    stream: async (outgoing, response, seen) => {
      const first = await attempt(outgoing, response, seen)
      if (first !== 'again') return first
      // A kept connection that the console closed as we wrote to it.
      const second = await attempt(outgoing, response, seen)
      return second === 'again' ? { failed: 'unreachable' } : second
    },

    read: ({ method, path, headers, body }) => new Promise(resolve => {
      let status = 0
      let passed: readonly string[] = []
      let length = 0
      const chunks: Buffer[] = []
      agent.dispatch({
        origin,
        path,
        method: methodOf(method),
        headers,
        body: body instanceof Readable ? unharmed(body) : body ?? null,
        bodyTimeout: timeoutMs
      }, {
        onRequestStart () {},
        onResponseStart (controller, code) {
          if (code < 200) return
          status = code
          passed = answerHeaders(rawOf(controller.rawHeaders), origin, publicOrigin)
        },
        onResponseData (controller, chunk) {
          length += chunk.length
          if (length > LONGEST) controller.abort(new Error('the answer is too long'))
          else chunks.push(chunk)
        },
        onResponseEnd () {
          decoded(passed, Buffer.concat(chunks)).then(
            body => { resolve({ status, headers: withoutEncoding(passed), body }) },
            () => { resolve({ failed: 'unreachable' }) }
          )
        },
        onResponseError (_controller, error) {
          resolve(failure(error))
        }
      })
    }),

    close: async () => { await agent.close() }
  }
}

const NOTHING = Buffer.alloc(0)
/** Bytes of an answer that is kept until it is whole, where it comes in one piece. */
const SMALL = 16_384
/** Bytes of an answer that is taken as fast as the console gives it, whether its client has taken them or not. */
const GATHERED = 131_072
const BODILESS = new Set([204, 205, 304])
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])
/** Reason phrases that Node writes; a localised one may be none, and nobody has to read it (RFC 9112 4). */
const SAYABLE = /^[\t\x20-\x7e\x80-\xff]*$/

function retriable (error: Error): boolean {
  return codeOf(error) === 'UND_ERR_SOCKET' || codeOf(error) === 'ECONNRESET' || codeOf(error) === 'EPIPE'
}

function failure (error: Error): Failed {
  return { failed: /TIMEOUT|TIMEDOUT/.test(codeOf(error)) ? 'late' : 'unreachable' }
}

function codeOf (error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : ''
}

const DECODERS = new Map([
  ['gzip', promisify(gunzip)],
  ['x-gzip', promisify(gunzip)],
  ['deflate', promisify(inflate)],
  ['br', promisify(brotliDecompress)]
])

/** An answer that is looked at must be read as its client reads it; one that cannot be is a failure. */
async function decoded (headers: readonly string[], body: Buffer): Promise<Buffer> {
  const encoding = headerOf({ headers }, 'content-encoding')?.trim().toLowerCase() ?? 'identity'
  if (encoding === 'identity' || encoding === '' || body.length === 0) return body
  const decoder = DECODERS.get(encoding)
  if (decoder === undefined) throw new Error('an encoding that is not known')
  return await decoder(body, { maxOutputLength: LONGEST })
}

function withoutEncoding (headers: readonly string[]): readonly string[] {
  return headers.filter((_, i) => !['content-encoding', 'content-length'].includes((headers[i - i % 2] ?? '').toLowerCase()))
}

/** The first value of a header. */
export function headerOf ({ headers }: { readonly headers: readonly string[] }, name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) if (isNamed(headers[i], name)) return headers[i + 1]
  return undefined
}

const isNamed = (header: string | undefined, name: string): boolean =>
  header?.length === name.length && header.toLowerCase() === name

/** All values of a header. */
export function headersOf ({ headers }: { readonly headers: readonly string[] }, name: string): readonly string[] {
  return headers.filter((_, i) => i % 2 === 1 && isNamed(headers[i - 1], name))
}

/** What comes before the answer itself. A client of HTTP/1.0 would take it for the answer (RFC 9110 15.2). */
function foretell (response: ServerResponse, status: number, headers: readonly string[]): void {
  if (response.req.httpVersion === '1.0') return
  if (status === 102) response.writeProcessing()
  else if (status === 103) {
    try {
      response.writeEarlyHints(hints(headers))
    } catch {
      // Node writes fewer forms of a Link than there are; a hint may be lost, the answer may not.
    }
  }
}

function hints (headers: readonly string[]): Record<string, string | string[]> {
  const links = headersOf({ headers }, 'link')
  return links.length === 0 ? {} : { link: [...links] }
}

/** Is there a body that goes along? */
export function hasBody (request: IncomingMessage): boolean {
  const length = request.headers['content-length']
  return request.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0')
}

// The narrowing functions of this boundary. undici takes any iterable for a body and any token for a method, though its
// types name fewer; and it ends a stream that it is given, with the client's socket under it, when the console fails.
function unharmed (body: Readable): Readable {
  return body.iterator({ destroyOnReturn: false }) as unknown as Readable
}
function methodOf (method: string): 'GET' {
  return method as 'GET'
}
function rawOf (raw: unknown): readonly (Buffer | string)[] {
  return Array.isArray(raw) ? raw as readonly (Buffer | string)[] : []
}
