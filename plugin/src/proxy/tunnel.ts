// WebSockets through the gateway: the handshake is made anew, and only once the console agrees do bytes pass.

import { request as plainRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import { request as secureRequest } from 'node:https'
import type { Duplex } from 'node:stream'
import { answerHeaders } from './headers.ts'

export interface Tunnel {
  readonly open: (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    path: string,
    headers: readonly string[]
  ) => void
  /** Ends every tunnel. */
  readonly close: () => void
}

export function createTunnel ({ origin, publicOrigin, timeoutMs }: {
  readonly origin: string
  readonly publicOrigin: string
  readonly timeoutMs: number
}): Tunnel {
  const send = origin.startsWith('https:') ? secureRequest : plainRequest
  const open = new Set<Duplex>()

  return {
    open: (request, socket, head, path, headers) => {
      const protocol = request.headers.upgrade?.trim().toLowerCase()
      socket.on('error', () => { socket.destroy() })
      // h2c and its kin would carry requests that no gate sees.
      if (protocol !== 'websocket' || request.method !== 'GET') return refuse(socket, 400, 'Bad Request')
      const asked = send(origin + path, { method: 'GET', headers: grouped([...headers, 'connection', 'Upgrade', 'upgrade', 'websocket']), agent: false, timeout: timeoutMs })
      const leave = (): void => { asked.destroy() }
      socket.once('close', leave)
      asked.on('upgrade', (answer, behind, first) => {
        socket.removeListener('close', leave)
        asked.setTimeout(0)
        open.add(socket)
        socket.once('close', () => {
          open.delete(socket)
          behind.destroy()
        })
        behind.once('close', () => { socket.destroy() })
        behind.on('error', () => { socket.destroy() })
        socket.write(`HTTP/1.1 101 Switching Protocols\r\n${linesOf([...answerHeaders(answer.rawHeaders, origin, publicOrigin), 'connection', 'Upgrade', 'upgrade', 'websocket'])}\r\n`, 'latin1')
        if (first.length > 0) socket.write(first)
        if (head.length > 0) behind.write(head)
        socket.pipe(behind)
        behind.pipe(socket)
      })
      // Anything but an upgrade is an answer like any other, and the last on this connection: what the client wrote
      // after its handshake never reaches the console.
      asked.on('response', answer => {
        const body = answer.headers['transfer-encoding'] === undefined
        socket.write(`HTTP/1.1 ${answer.statusCode ?? 502} ${answer.statusMessage ?? ''}\r\n${linesOf([
          ...answerHeaders(answer.rawHeaders, origin, publicOrigin).filter((_, i, all) => body || (all[i - i % 2] ?? '').toLowerCase() !== 'content-length'), 'connection', 'close'
        ])}\r\n`, 'latin1')
        answer.pipe(socket)
      })
      asked.on('timeout', () => { asked.destroy() })
      asked.on('error', () => { refuse(socket, 502, 'Bad Gateway') })
      asked.end()
    },
    close: () => {
      for (const socket of open) socket.destroy()
    }
  }
}

function refuse (socket: Duplex, status: number, text: string): void {
  if (socket.writable) socket.end(`HTTP/1.1 ${status} ${text}\r\nconnection: close\r\ncontent-length: 0\r\n${status === 502 ? 'retry-after: 5\r\n' : ''}\r\n`)
  else socket.destroy()
}

function linesOf (headers: readonly string[]): string {
  return headers.map((one, i) => i % 2 === 0 ? `${one}: ` : `${one}\r\n`).join('')
}

function grouped (headers: readonly string[]): OutgoingHttpHeaders {
  const all: Record<string, string | string[]> = {}
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] ?? '').toLowerCase()
    const before = all[name]
    const value = headers[i + 1] ?? ''
    all[name] = before === undefined ? value : [before, value].flat()
  }
  return all
}
