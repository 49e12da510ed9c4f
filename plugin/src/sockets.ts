// Upgrades are gated whoever listens for them, and sockets of an ended assurance are closed.

import { ServerResponse, type IncomingMessage, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import type { Clock, Who } from './model.ts'

export interface Sockets {
  /** The upgrade that this request stands for, if it does. */
  readonly upgradeOf: (request: FastifyRequest) => Upgrade | undefined
  /** Lets the upgrade through to whoever listens, and watches its socket. */
  readonly pass: (upgrade: Upgrade, who: Who | undefined) => void
  /** From now on open sockets are looked after: one whose assurance ended is closed. */
  readonly start: () => void
  readonly stop: () => void
  readonly open: () => number
}

/** How often open sockets are looked after. */
const SWEEP_MS = 1_500
/** Without the stream an answer may be so old: with the sweep and a question's deadline it is under 5 s together. */
const YOUNG_MS = 1_000
/** Questions of one sweep that are under way at once, so that requests find room beside them. */
const LANES = 16

export interface Upgrade {
  readonly request: IncomingMessage
  readonly socket: Duplex
  readonly head: Buffer
  readonly response: ServerResponse
}

export interface SocketsParts {
  readonly app: FastifyInstance
  readonly assurances: Pick<Assurances, 'known' | 'ask' | 'live' | 'onEnded'>
  readonly now: Clock
}

/**
 * Node hands an upgrade to `upgrade` listeners past every Fastify hook (fastify/fastify-http-proxy#414). `emit` is
 * the one place that all of them go through, whenever they were added. So the request first goes the way of any other,
 * with its own path, up to the gate's hook: the console's session plugin sees what it would see.
 */
export function createSockets ({ app, assurances, now }: SocketsParts): Sockets {
  const upgrades = new WeakMap<IncomingMessage, Upgrade>()
  const watched = new Map<Duplex, Who>()
  const server = app.server
  const emit = emitterOf(server)

  function gated (request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const response = new ServerResponse(request)
    socket.on('error', ignore)
    response.shouldKeepAlive = false
    response.assignSocket(asSocket(socket))
    response.on('finish', () => {
      socket.end()
    })
    upgrades.set(request, { request, socket, head, response })
    app.routing(request, response)
  }

  refuseOtherListeners(server)
  server.emit = function emitGated (event: string | symbol, ...args: unknown[]): boolean {
    if (event === 'upgrade') {
      const [request, socket, head] = args
      gated(asRequest(request), asDuplex(socket), Buffer.isBuffer(head) ? head : Buffer.alloc(0))
      return true
    }
    if (event === 'connect') {
      // A tunnel has no path to decide on.
      asDuplex(args[1]).destroy()
      return true
    }
    return emit(event, ...args)
  }

  let sweeping: NodeJS.Timeout | undefined
  let running = false
  let again = false

  async function look (who: Who, sockets: readonly Duplex[]): Promise<void> {
    const known = assurances.known(who.key)
    if (known !== undefined && (assurances.live() || now() - known.askedAt < YOUNG_MS)) return
    const standing = await assurances.ask(who)
    if (standing.standing !== 'passed') for (const socket of sockets) socket.destroy()
  }

  // Asks again about every open socket that is not known to be verified; closes those that are not.
  async function sweep (): Promise<void> {
    again = true
    if (running) return
    running = true
    try {
      while (again) {
        again = false
        const byKey = new Map<string, { readonly who: Who, readonly sockets: Duplex[] }>()
        for (const [socket, who] of watched) {
          const one = byKey.get(who.key)
          if (one === undefined) byKey.set(who.key, { who, sockets: [socket] })
          else one.sockets.push(socket)
        }
        const left = [...byKey.values()].values()
        await Promise.all(Array.from({ length: LANES }, async () => {
          for (const { who, sockets } of left) await look(who, sockets)
        }))
      }
    } finally {
      running = false
    }
  }
  assurances.onEnded(() => {
    if (watched.size > 0) void sweep()
  })

  return {
    upgradeOf: request => upgrades.get(request.raw),
    pass: ({ request, socket, head, response }, who) => {
      upgrades.delete(request)
      response.removeAllListeners('finish')
      response.detachSocket(asSocket(socket))
      if (who !== undefined) {
        watched.set(socket, who)
        socket.once('close', () => {
          watched.delete(socket)
        })
      }
      socket.removeListener('error', ignore)
      if (socket.destroyed) return
      // Nobody listens: a second server of the same host names hands upgrades over all the same.
      if (!emit('upgrade', request, socket, head)) socket.destroy()
    },
    start: () => {
      sweeping ??= setInterval(() => { if (watched.size > 0) void sweep() }, SWEEP_MS)
      sweeping.unref()
    },
    stop: () => { clearInterval(sweeping) },
    open: () => watched.size
  }
}

const OTHER = new Set<string | symbol>(['request', 'checkContinue', 'checkExpectation', 'stream'])

/** Something that listens for requests beside Fastify answers past every hook, as engine.io's polling does. */
function refuseOtherListeners (server: Server): void {
  if (
    server.listenerCount('request') > 1 ||
    server.listenerCount('checkContinue') > 0 ||
    server.listenerCount('checkExpectation') > 0
  ) { throw beside() }
  server.on('newListener', event => {
    if (OTHER.has(event)) throw beside()
  })
}

function beside (): Error {
  return new Error(
    'postern: something else listens for requests on this server, beside Fastify and so beside the gate; give it a server of its own behind the gate.'
  )
}

function ignore (): void {}

// The narrowing functions of this boundary: Node's events are not typed by name here.
type Emit = (event: string | symbol, ...args: unknown[]) => boolean
function emitterOf (server: Server): Emit {
  return server.emit.bind(server) as Emit
}
function asRequest (value: unknown): IncomingMessage {
  return value as IncomingMessage
}
function asDuplex (value: unknown): Duplex {
  return value as Duplex
}
function asSocket (value: Duplex): Parameters<ServerResponse['assignSocket']>[0] {
  return value as Parameters<ServerResponse['assignSocket']>[0]
}
