// /v1/changes: the stream by which gates hear within a second whose assurance ended.

import type { FastifyPluginAsync, FastifyReply } from 'fastify'
import type { Change } from '../domain/model.ts'
import { Problem } from '../domain/problems.ts'
import type { Records } from '../domain/records.ts'

/** The framework's own type knows nothing of summaries; swagger's does where it is loaded. */
const described = {
  summary: 'Server-sent events: changes of this tenant after Last-Event-ID, and the newest number at least every second'
}

/** Rows a stream sends at once; more follow on the next turn. */
const BATCH = 500

/** How often new rows are looked for: a change is told well within a second, whoever wrote it. */
export const READ_EVERY_MS = 250

interface Listener {
  readonly tenant: string
  readonly authorization: string | undefined
  readonly reply: FastifyReply
  after: number
  busy: boolean
}

/**
 * One reader a process: it reads the new rows of each tenant that has listeners, and sends the newest number as a
 * heartbeat. Rows are all there is to a change: no message can be lost between a commit and its telling, and what a
 * command on the host or another replica wrote is told like what this process wrote. A listener that does not drain is
 * cut off; it comes back with its last number.
 */
export function createChangeStream ({
  records,
  onError
}: {
  readonly records: Records
  readonly onError: (error: unknown) => void
}) {
  const listeners = new Set<Listener>()
  let closed = false

  const drop = (listener: Listener) => {
    listeners.delete(listener)
    listener.reply.raw.destroy()
  }
  const write = (listener: Listener, text: string) => {
    if (listener.reply.raw.writableLength > 1_000_000) drop(listener)
    else listener.reply.raw.write(text)
  }
  const serve = async (listener: Listener, newest: number) => {
    if (listener.busy) return
    listener.busy = true
    try {
      if (listener.after > newest) {
        listener.after = Math.min(listener.after, await records.changes.newest(listener.tenant))
      }
      while (listeners.has(listener) && listener.after < newest) {
        const rows = await records.changes.since(listener.tenant, listener.after, BATCH)
        if (rows.length === 0) break
        for (const row of rows) {
          write(listener, `event: change\nid: ${row.number}\ndata: ${JSON.stringify(wire(row))}\n\n`)
          listener.after = row.number
        }
      }
      if (listeners.has(listener)) write(listener, `event: newest\ndata: {"number":${listener.after}}\n\n`)
    } finally {
      listener.busy = false
    }
  }

  /** Reads what is new and sends it; the heartbeat goes out only when the database could be asked. */
  const beat = async (): Promise<void> => {
    if (listeners.size === 0) return
    const newest = await records.changes.newestOf([...new Set([...listeners].map(listener => listener.tenant))])
    await Promise.all(
      [...listeners].map(async listener => {
        await serve(listener, newest.get(listener.tenant) ?? 0).catch(onError)
      })
    )
  }

  const routes: FastifyPluginAsync = async app => {
    app.get('', { schema: described }, async (request, reply) => {
      const last = request.headers['last-event-id']
      const newest = await records.changes.newest(request.tenant.id)
      if (closed) throw new Problem('unavailable', { retry_after: 1 })
      // A number that this database has not reached comes from before a restore or a fail-over; the answer tells.
      const after = typeof last === 'string' && /^\d{1,15}$/.test(last) ? Math.min(Number(last), newest) : newest
      reply.hijack()
      const { authorization } = request.headers
      const listener: Listener = { tenant: request.tenant.id, authorization, reply, after, busy: false }
      reply.raw.writeHead(200, {
        'content-type': 'text/event-stream',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no'
      })
      reply.raw.on('close', () => {
        listeners.delete(listener)
      })
      reply.raw.on('error', () => {
        listeners.delete(listener)
      })
      reply.raw.write(`event: newest\ndata: {"number":${after}}\n\n`)
      listeners.add(listener)
    })
  }

  return {
    routes,
    beat,
    listeners: () => listeners.size,
    /** Cuts off who may not listen any more. */
    recheck: (allowed: (authorization: string | undefined) => boolean) => {
      for (const listener of [...listeners]) if (!allowed(listener.authorization)) drop(listener)
    },
    /** Ends all streams, so that a closing server has no open answers. */
    close: () => {
      closed = true
      for (const listener of [...listeners]) {
        listeners.delete(listener)
        listener.reply.raw.end()
      }
    }
  }
}

function wire ({ number, kind, session, subject }: Change) {
  return {
    number,
    kind,
    ...(session === null ? {} : { session_ref: session }),
    ...(subject === null ? {} : { subject })
  }
}
