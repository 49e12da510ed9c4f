// The end of a gateway: whoever is being answered gets the whole answer, and then the connection ends.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { within } from '../deadline.ts'

export interface Drain {
  /** Behind an answer that passed by Fastify: while the gateway ends, so does the connection of this request. */
  readonly behind: (request: IncomingMessage, response: ServerResponse) => void
}

/** How long a client may take to fetch what it was answered. */
const FETCH_MS = 5_000

// A connection that is busy when the drain begins would be kept alive after its last answer, and the close wait. (A
// hook behind each answer that looks after it would cost a tenth of what a small one does.)
export function createDrain (app: FastifyInstance): Drain {
  let closing = false
  const connections = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.once('close', () => { connections.delete(socket) })
  })
  app.addHook('preClose', async () => {
    closing = true
    // Node takes a connection for idle, and cuts it, once its answer is whole here, though its client has not.
    await Promise.all([...connections].map(fetched))
  })
  app.addHook('onSend', (_request, reply, payload, done) => {
    if (closing) void reply.header('connection', 'close')
    done(null, payload)
  })
  return {
    behind: ({ socket }, response) => {
      if (!closing) return
      if (response.writableFinished) socket.end()
      else response.once('finish', () => { socket.end() })
    }
  }
}

/** What was written so far has left this process, or nobody fetches it. */
async function fetched (socket: Socket): Promise<void> {
  if (socket.writableLength === 0) return
  await within(FETCH_MS, signal => new Promise<void>(resolve => {
    signal.addEventListener('abort', () => { resolve() })
    socket.write('', () => { resolve() })
  }))
}
