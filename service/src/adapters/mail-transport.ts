// The way to the mail server: pooled SMTP connections, and what became of a mail in three words.

import type { SendMailOptions } from 'nodemailer'
import type { Config } from '../config.ts'
import { singleMailbox } from '../domain/addresses.ts'

type Smtp = NonNullable<Config['smtp']>
type Sender = Config['mailFrom']

/** A failure as a log may show it: never the server's words, in which the address stands. */
export interface Why {
  readonly code: string
  readonly cause?: string
  readonly command?: string
  readonly reply?: number
}

/** What is logged: never an address, a code or the mail server's words. */
export interface MailLog {
  readonly info: (facts: object, text: string) => void
  readonly warn: (facts: object, text: string) => void
}

export type Delivery =
  | { readonly delivery: 'sent' }
  /** The server answers, but does not take this mail: never, or not now. */
  | { readonly delivery: 'refused'; readonly forGood: boolean; readonly why: Why }
  /** No mail goes out now. `again`: it may be a matter of seconds, not of settings. */
  | { readonly delivery: 'down'; readonly again: boolean; readonly why: Why }

export interface Letter {
  readonly subject: string
  readonly text: string
  readonly html: string
  readonly language: string
}

export interface Transport {
  /** Resolves whatever happens, within half a minute. */
  readonly deliver: (to: string, letter: Letter) => Promise<Delivery>
  /** Connects and logs in. */
  readonly check: () => Promise<Delivery>
  readonly close: () => void
}

const CONNECT_MS = 10_000
const SILENCE_MS = 15_000
/** Longest for one mail, also where a server trickles its answers. */
const DELIVER_MS = 25_000

/** The library is loaded with the first mail. */
async function openPool (smtp: Smtp, connections: number) {
  const { default: { createTransport } } = await import('nodemailer')
  const { host, port, secure, login, tls, ca } = smtp
  const pool = createTransport({
    pool: true,
    host,
    port,
    secure,
    ...(login === undefined ? {} : { auth: { user: login.user, pass: login.password } }),
    requireTLS: tls === 'required',
    ignoreTLS: tls === 'none',
    ...(ca === undefined ? {} : { tls: { ca } }),
    maxConnections: connections,
    // Whether to try again is decided where the tries are counted.
    maxRequeues: 0,
    idleTimeout: 60_000,
    connectionTimeout: CONNECT_MS,
    dnsTimeout: CONNECT_MS,
    greetingTimeout: CONNECT_MS,
    socketTimeout: SILENCE_MS,
    // No value in a mail may make this process read a file or fetch an address.
    disableFileAccess: true,
    disableUrlAccess: true,
    logger: false,
    debug: false
  })
  // The pool tells of connections that ended while idle; the next mail opens another.
  pool.on('error', () => {})
  return pool
}

export function openTransport (smtp: Smtp, from: Sender, connections: number): Transport {
  let opened: ReturnType<typeof openPool> | undefined
  const pool = async () => await (opened ??= openPool(smtp, connections))

  return {
    deliver: async (to, { subject, text, html, language }) => {
      const address = singleMailbox(to)
      if (address === undefined) return { delivery: 'refused', forGood: true, why: { code: 'EADDRESS' } }
      const mail: SendMailOptions = {
        // A copy: nodemailer writes into it, and the configuration is frozen.
        from: { ...from },
        // An object, never a string: nodemailer reads lists, groups and line breaks in strings as more recipients.
        to: { name: '', address },
        subject,
        text,
        html,
        textEncoding: 'quoted-printable',
        xMailer: false,
        // RFC 3834: no robot answers a robot.
        headers: { 'Auto-Submitted': 'auto-generated', 'Content-Language': language },
        signal: AbortSignal.timeout(DELIVER_MS)
      }
      return await (await pool()).sendMail(mail).then(() => SENT, failed)
    },
    check: async () => await (await pool()).verify().then(() => SENT, failed),
    close: () => {
      void opened?.then(one => { one.close() })
    }
  }
}

const SENT: Delivery = { delivery: 'sent' }

/** What a failure means. RFC 5321 4.2.1: 5yz will not change, 4yz may. */
function failed (error: unknown): Delivery {
  const why = whyOf(error)
  const { code, command, reply = 0 } = why
  // 421 ends the connection (RFC 5321 3.8); a refused sender is a matter of settings, whoever the mail is for.
  if ((code === 'EENVELOPE' || code === 'EMESSAGE') && command !== 'MAIL FROM' && reply !== 421) {
    return { delivery: 'refused', forGood: reply === 0 || reply >= 500, why }
  }
  return { delivery: 'down', again: reply < 500 && code !== 'EAUTH', why }
}

function whyOf (error: unknown): Why {
  const part = (name: string): unknown =>
    typeof error === 'object' && error !== null && name in error ? Reflect.get(error, name) : undefined
  const word = (name: string): string | undefined => {
    const value = part(name)
    return typeof value === 'string' && /^[A-Z][A-Z0-9_ -]{1,39}$/.test(value) ? value : undefined
  }
  const [cause, command, reply] = [word('originalCode'), word('command'), part('responseCode')]
  return {
    code: word('code') ?? 'EUNKNOWN',
    ...(cause === undefined ? {} : { cause }),
    ...(command === undefined ? {} : { command }),
    ...(typeof reply === 'number' ? { reply } : {})
  }
}

/** An error's name and no more: a database's or a parser's text may hold what it was given. */
export function nameOf (error: unknown): Why {
  return { code: error instanceof Error ? error.name : 'unknown' }
}
