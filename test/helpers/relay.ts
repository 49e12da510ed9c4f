// A TCP relay that tests put between two parties: it drops answers, holds them back, or lets nobody through.

import { connect, createServer, type Socket } from 'node:net'
import type { Teardown } from './service.ts'

export interface Relay {
  readonly port: number
  /** The port behind; connections that are open keep theirs. */
  target: number
  /** For each answer: true ends the connection in its place, so that what was asked for was done but never told. */
  drop: (answer: Buffer) => boolean
  /**
   * For each answer, by what was last asked on its connection: what it waits for. One that waits for ever leaves an
   * open socket that says nothing.
   */
  hold: (asked: string, connection: Socket) => Promise<void> | undefined
  /** Nobody gets through: connections are ended as they come. */
  closed: boolean
  /** Connections stay and come, and nothing that is said on them arrives, as where a network drops every packet. */
  mute: boolean
  readonly cut: () => void
  readonly dropped: () => number
  /** Connections that nobody got through by. */
  readonly refused: () => number
}

export async function startRelay (t: Teardown, target: number): Promise<Relay> {
  const open = new Set<Socket>()
  let dropped = 0
  let refused = 0
  const server = createServer(client => {
    if (relay.closed) {
      refused += 1
      client.destroy()
      return
    }
    const upstream = connect(relay.target, '127.0.0.1')
    for (const [socket, other] of [[client, upstream], [upstream, client]] as const) {
      open.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => { open.delete(socket); other.destroy() })
    }
    let asked = ''
    let told: Promise<void> | undefined
    client.on('data', data => {
      asked = data.toString('latin1')
      if (!relay.mute) upstream.write(data)
    })
    upstream.on('data', data => {
      if (relay.mute) return
      if (relay.drop(data)) {
        dropped += 1
        client.destroy()
        return
      }
      const held = relay.hold(asked, client)
      if (held === undefined && told === undefined) { client.write(data); return }
      // What comes after an answer that is held keeps its place.
      const before = told
      told = (async () => {
        await before
        await held
        if (!client.destroyed) client.write(data)
      })()
    })
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const address = server.address()
  const relay: Relay & { port: number } = {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    target,
    drop: () => false,
    hold: () => undefined,
    closed: false,
    mute: false,
    cut: () => { for (const socket of open) socket.destroy() },
    dropped: () => dropped,
    refused: () => refused
  }
  t.teardown(async () => {
    relay.cut()
    await new Promise(resolve => { server.close(resolve) })
  })
  return relay
}
