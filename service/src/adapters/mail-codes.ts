// Codes by mail: at once or not at all, from a bounded queue over a few connections, neither of which one tenant fills.

import { setTimeout as wait } from 'node:timers/promises'
import type { Clock, Mail } from '../domain/ports.ts'
import { nameOf, type Delivery, type MailLog } from './mail-transport.ts'

export const CODE_CONNECTIONS = 5
const QUEUED = 200
/** Further tries for a code, soon: its reader is waiting. */
const AGAIN_MS = [2_000, 8_000] as const
/** Where no answer came the mail may have been taken all the same: one more try, so that two copies are the most. */
const UNANSWERED_TRIES = 2

interface Code {
  readonly mail: Mail
  readonly expiresAt: number
  readonly at: number
  readonly tries: number
}

export interface CodeQueue {
  /** false where it is not taken: the queue is full, or closed. */
  readonly add: (mail: Mail, expiresAt: number) => boolean
  /** Takes nothing more, tries at once what waits to be tried again, and resolves when all is done. */
  readonly close: () => Promise<void>
  readonly size: () => number
}

export interface CodeQueueNeed {
  readonly send: (mail: Mail, at: number) => Promise<Delivery>
  readonly clock: Clock
  readonly log: MailLog | undefined
}

export function createCodeQueue ({ send, clock, log }: CodeQueueNeed): CodeQueue {
  const codes: Code[] = []
  /** Under way and waiting to be tried again, each with its tenant. */
  const inFlight = new Map<Promise<void>, string>()
  const waiting = new Map<Promise<void>, string>()
  const closing = new AbortController()

  /** Sends once; what to try again, and when. */
  const sendCode = async (code: Code): Promise<void> => {
    const { mail, expiresAt, at } = code
    if (clock.now() >= expiresAt) {
      log?.warn({ mail: mail.message }, 'a code expired before it could be mailed')
      return
    }
    const delivery = await send(mail, at)
    if (delivery.delivery === 'sent') return
    const tries = code.tries + 1
    const may = delivery.delivery === 'down' ? delivery.again : !delivery.forGood
    const pause = AGAIN_MS[tries - 1]
    const again = may && pause !== undefined && (delivery.why.reply !== undefined || tries < UNANSWERED_TRIES)
    log?.warn({ mail: mail.message, ...delivery.why, again }, 'a code could not be mailed')
    if (again) later({ ...code, tries }, pause)
  }

  /** Waits beside the connections, so that it holds up no other code. When the process ends it waits no more. */
  const later = (code: Code, pause: number): void => {
    const pausing = wait(pause, undefined, { signal: closing.signal, ref: false })
      .catch(() => {})
      .then(() => {
        waiting.delete(pausing)
        codes.unshift(code)
        pump()
      })
    waiting.set(pausing, code.mail.tenant)
  }

  const pump = (): void => {
    const next = codes.findIndex(({ mail }) =>
      fits(timesIn(inFlight.values(), mail.tenant), CODE_CONNECTIONS - inFlight.size))
    const [code] = next < 0 ? [] : codes.splice(next, 1)
    if (code === undefined) return
    const sending = sendCode(code)
      .catch((error: unknown) => { log?.warn(nameOf(error), 'a code could not be written') })
      .finally(() => {
        inFlight.delete(sending)
        pump()
      })
    inFlight.set(sending, code.mail.tenant)
    pump()
  }

  return {
    add: (mail, expiresAt) => {
      const queued = [...codes.map(code => code.mail.tenant), ...waiting.values()]
      if (closing.signal.aborted || !fits(timesIn(queued, mail.tenant), QUEUED - queued.length)) return false
      codes.push({ mail, expiresAt, at: clock.now(), tries: 0 })
      pump()
      return true
    },
    close: async () => {
      closing.abort()
      while (inFlight.size + waiting.size > 0) await Promise.all([...inFlight.keys(), ...waiting.keys()])
    },
    size: () => codes.length + waiting.size + inFlight.size
  }
}

/**
 * Whether a tenant may have one more place: it holds at most as many as it leaves free. So a tenant whose mails hang
 * leaves places to the next, and that one to a third.
 */
function fits (own: number, free: number): boolean {
  return own < free
}

function timesIn (tenants: Iterable<string>, tenant: string): number {
  return [...tenants].filter(one => one === tenant).length
}
