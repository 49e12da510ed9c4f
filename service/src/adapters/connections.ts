// The end of a server's connections: each as it falls idle, and after a while those that never do.

import type { Server } from 'node:http'
import type { Socket } from 'node:net'

const LOOK_MS = 50
/** Longest wait for what is under way; a handler takes no more than about two seconds. */
const GRACE_MS = 4_000

export interface Connections {
  /** Ends connections until `closed`, the end of the server that stopped to listen, settles. */
  readonly endUntil: (closed: Promise<unknown>) => Promise<void>
}

export function createConnections (server: Server): Connections {
  const open = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => { open.delete(socket) })
  })
  return {
    endUntil: async closed => {
      const look = setInterval(() => {
        // A connection that falls idle after the server was closed stays for its keep-alive time otherwise.
        server.closeIdleConnections()
        // The server takes one that never said anything for busy.
        for (const socket of open) if (socket.bytesRead === 0) socket.destroy()
      }, LOOK_MS)
      const force = setTimeout(() => { server.closeAllConnections() }, GRACE_MS)
      try {
        await closed
      } finally {
        clearInterval(look)
        clearTimeout(force)
      }
    }
  }
}
