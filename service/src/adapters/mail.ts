// Mails: codes go out by their queue, notices wait in the outbox until they arrive or are given up.

import { setTimeout as wait } from 'node:timers/promises'
import type { Config } from '../config.ts'
import { sealContext } from '../domain/model.ts'
import type { Clock, Mailer, Sealer } from '../domain/ports.ts'
import type { PendingNotice, Records } from '../domain/records.ts'
import { recurring } from './background.ts'
import { CODE_CONNECTIONS, createCodeQueue } from './mail-codes.ts'
import { loadMailTexts } from './mail-texts.ts'
import { nameOf, openTransport, type Delivery, type MailLog, type Transport } from './mail-transport.ts'

export interface RunningMailer extends Mailer {
  readonly start: () => void
  /** Waits for mails in flight, but not for ever. */
  readonly close: () => Promise<void>
  /** `ok` is false from a failure to reach or to log in to the mail server until a mail is taken again. */
  readonly state: () => { readonly ok: boolean; readonly queued: number }
}

export interface MailerNeed {
  readonly smtp: Config['smtp']
  readonly from: Config['mailFrom']
  readonly records: Records
  readonly sealer: Sealer
  readonly clock: Clock
  readonly log?: MailLog
}

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

  const codes = lines === undefined
    ? undefined
    : createCodeQueue({ send: async (mail, at) => await send(lines.codes, mail.to, mail, at), clock, log })

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

  return {
    code: (mail, expiresAt) => codes?.add(mail, expiresAt) ?? false,
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
      await Promise.race([Promise.all([outbox?.stop(), codes?.close()]), wait(CLOSE_MS, undefined, { ref: false })])
      lines?.codes.close()
      lines?.notices.close()
    },
    state: () => ({ ok: server !== 'down', queued: codes?.size() ?? 0 })
  }
}

function refused (code: string): Delivery {
  return { delivery: 'refused', forGood: true, why: { code } }
}
