// Mails: codes go out at once or not at all, notices wait in the outbox until they arrive or are given up.

import { setTimeout as wait } from 'node:timers/promises'
import type { Config } from '../config.ts'
import { sealContext } from '../domain/model.ts'
import type { Clock, Mail, Mailer, PendingNotice, Records, Sealer } from '../domain/ports.ts'
import { recurring } from './background.ts'
import { loadMailTexts } from './mail-texts.ts'
import { openTransport, type Delivery, type Transport, type Why } from './mail-transport.ts'

export interface RunningMailer extends Mailer {
  readonly start: () => void
  /** Waits for mails in flight, but not for ever. */
  readonly close: () => Promise<void>
  /** `ok` is false from a failure to reach or to log in to the mail server until a mail is taken again. */
  readonly state: () => { readonly ok: boolean; readonly queued: number }
}

/** What is logged: never an address, a code or the mail server's words. */
export interface MailLog {
  readonly info: (facts: object, text: string) => void
  readonly warn: (facts: object, text: string) => void
}

export interface MailerNeed {
  readonly smtp: Config['smtp']
  readonly from: Config['mailFrom']
  readonly records: Records
  readonly sealer: Sealer
  readonly clock: Clock
  readonly log?: MailLog
}

const CODE_CONNECTIONS = 5
const CODES_QUEUED = 200
/** Further tries for a code, soon: its reader is waiting. */
const AGAIN_MS = [2_000, 8_000] as const
/** Where no answer came the mail may have been taken all the same: one more try, so that two copies are the most. */
const UNANSWERED_TRIES = 2
/** Notices have their own connections, so that a flood of them holds up no code. As many are taken at a time. */
const NOTICE_CONNECTIONS = 2
const LOOK_MS = 5_000
const RETRY_FIRST_MS = 30_000
const RETRY_LAST_MS = 3_600_000
const GIVE_UP_MS = 86_400_000
const CHECK_MS = 30_000
/** With what requests may take, shorter than the ten seconds after which the process ends in any case. */
const CLOSE_MS = 5_000

/**
 * When to try a notice again: its age, from 30 seconds to an hour, so that waits double without a count of tries.
 * Null after a day.
 */
export function retryAt (raisedAt: number, now: number): number | null {
  const age = now - raisedAt
  return age >= GIVE_UP_MS ? null : now + Math.min(RETRY_LAST_MS, Math.max(RETRY_FIRST_MS, age))
}

export function createMailer ({ smtp, from, records, sealer, clock, log }: MailerNeed): RunningMailer {
  const texts = loadMailTexts()
  const lines = smtp === undefined
    ? undefined
    : { codes: openTransport(smtp, from, CODE_CONNECTIONS), notices: openTransport(smtp, from, NOTICE_CONNECTIONS) }

  let server: 'unknown' | 'up' | 'down' = 'unknown'
  let heardAt = Number.NEGATIVE_INFINITY
  const closing = new AbortController()

  /** What a delivery says of the mail server; passes it on. */
  const heard = (delivery: Delivery): Delivery => {
    // Refused before the server was asked.
    if (delivery.delivery === 'refused' && delivery.why.reply === undefined) return delivery
    heardAt = clock.now()
    const before = server
    server = delivery.delivery === 'down' ? 'down' : 'up'
    if (delivery.delivery === 'down' && before !== 'down') log?.warn(delivery.why, 'the mail server cannot be used')
    if (server === 'up' && before === 'down') log?.info({}, 'the mail server can be used again')
    return delivery
  }

  const send = async (
    line: Transport,
    to: string,
    { message, locale, values }: Pick<PendingNotice, 'message' | 'values'> & { locale: string | null | undefined },
    at: number
  ): Promise<Delivery> => {
    const letter = texts.write(message, locale, values, at)
    if (letter === undefined) return refused('EMESSAGENAME')
    return heard(await line.deliver(to, letter))
  }

  interface Code {
    readonly mail: Mail
    readonly expiresAt: number
    readonly at: number
    readonly tries: number
  }
  const codes: Code[] = []
  const inFlight = new Set<Promise<void>>()
  const waiting = new Set<Promise<void>>()

  /** Sends once; what to try again, and when. */
  const sendCode = async (line: Transport, code: Code): Promise<void> => {
    const { mail, expiresAt, at } = code
    if (clock.now() >= expiresAt) {
      log?.warn({ mail: mail.message }, 'a code expired before it could be mailed')
      return
    }
    const delivery = await send(line, mail.to, mail, at)
    if (delivery.delivery === 'sent') return
    const tries = code.tries + 1
    const may = delivery.delivery === 'down' ? delivery.again : !delivery.forGood
    const pause = AGAIN_MS[tries - 1]
    const again = may && pause !== undefined && (delivery.why.reply !== undefined || tries < UNANSWERED_TRIES)
    log?.warn({ mail: mail.message, ...delivery.why, again }, 'a code could not be mailed')
    if (again) later({ ...code, tries }, pause)
  }
  /** Waits beside the pool: a code that is tried again holds up no other. When the process ends it waits no more. */
  const later = (code: Code, pause: number): void => {
    const pausing = wait(pause, undefined, { signal: closing.signal, ref: false })
      .catch(() => {})
      .then(() => {
        waiting.delete(pausing)
        codes.unshift(code)
        pump()
      })
    waiting.add(pausing)
  }
  const pump = (): void => {
    if (lines === undefined) return
    for (const next of codes.splice(0, CODE_CONNECTIONS - inFlight.size)) {
      const sending = sendCode(lines.codes, next)
        .catch((error: unknown) => { log?.warn(nameOf(error), 'a code could not be written') })
        .finally(() => {
          inFlight.delete(sending)
          pump()
        })
      inFlight.add(sending)
    }
  }

  const addressOf = ({ to, tenant, subject }: PendingNotice): string | undefined => {
    try {
      return to === null ? undefined : sealer.unseal(to, sealContext('contact', tenant, subject))
    } catch {
      // Sealed under a key that is gone, or for a subject that was renamed: nobody can be told by mail.
      return undefined
    }
  }

  const sendNotice = async (notice: PendingNotice): Promise<void> => {
    const { id, message, at } = notice
    const to = addressOf(notice)
    const delivery =
      lines === undefined
        ? refused('ENOSERVER')
        : to === undefined ? refused('ENOADDRESS') : await send(lines.notices, to, notice, at)
    if (delivery.delivery === 'sent') {
      await records.notices.sent(id, clock.now())
      return
    }
    const never = delivery.delivery === 'refused' && delivery.forGood
    const next = never ? null : retryAt(at, clock.now())
    log?.warn({ mail: message, notice: id, ...delivery.why, again: next !== null }, 'a notice could not be mailed')
    await records.notices.failed(id, next)
  }

  let woken = false
  const look = async (): Promise<void> => {
    do {
      woken = false
      // While nothing goes out, one notice finds out as well as many would.
      const due = await records.notices.take(clock.now(), server === 'down' ? 1 : NOTICE_CONNECTIONS)
      await Promise.all(due.map(sendNotice))
      if (due.length > 0 && server !== 'down') woken = true
    } while (woken && !closing.signal.aborted)
    // Nobody may need a mail for hours; what is wrong with the settings is known all the same.
    if (lines !== undefined && server !== 'up' && !closing.signal.aborted && clock.now() >= heardAt + CHECK_MS) {
      heard(await lines.notices.check())
    }
  }
  let outbox: ReturnType<typeof recurring> | undefined

  const idle = async (): Promise<void> => {
    while (inFlight.size + waiting.size > 0) await Promise.all([...inFlight, ...waiting])
  }

  return {
    code: (mail, expiresAt) => {
      if (lines === undefined || closing.signal.aborted || codes.length + waiting.size >= CODES_QUEUED) return false
      codes.push({ mail, expiresAt, at: clock.now(), tries: 0 })
      pump()
      return true
    },
    wake: () => {
      woken = true
      outbox?.now()
    },
    start: () => {
      outbox ??= recurring(LOOK_MS, look, error => { log?.warn(nameOf(error), 'the outbox could not be read') })
      outbox.now()
    },
    close: async () => {
      closing.abort()
      await Promise.race([Promise.all([outbox?.stop(), idle()]), wait(CLOSE_MS, undefined, { ref: false })])
      lines?.codes.close()
      lines?.notices.close()
    },
    state: () => ({ ok: server !== 'down', queued: codes.length + waiting.size + inFlight.size })
  }
}

function refused (code: string): Delivery {
  return { delivery: 'refused', forGood: true, why: { code } }
}

/** An error's name and no more: a database's or a parser's text may hold what it was given. */
function nameOf (error: unknown): Why {
  return { code: error instanceof Error ? error.name : 'unknown' }
}
