// A local mail catcher: an SMTP server with STARTTLS and login that delivers nothing, and a page that shows what came.

import { randomBytes, randomUUID } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { simpleParser, type AddressObject } from 'mailparser'
import { SMTPServer } from 'smtp-server'
import { selfSigned, type Certificate } from './certificate.ts'
import { createWeb } from './web.ts'

export interface Message {
  readonly id: string
  readonly to: readonly string[]
  readonly from: string
  readonly subject: string
  readonly text: string
  readonly html: string
  readonly received: string
}

/** What an SMTP client is told instead of yes, as `{ code: 451, text: 'try again' }`. */
export interface Refusal {
  readonly code: number
  readonly text: string
}

export interface MailboxOptions {
  /** 0 or absent = a free one. */
  readonly smtpPort?: number
  readonly webPort?: number
  /** Absent = a random one, which `smtp` tells. */
  readonly password?: string
  readonly certificate?: Certificate
  /** Mail is taken only after STARTTLS and a login (default), or from anybody. */
  readonly login?: 'required' | 'optional'
  /** Asked for each recipient; for showing what happens when a mail server says no. */
  readonly refuse?: (address: string) => Refusal | undefined
}

export interface Mailbox {
  /** For POSTERN_SMTP: with user and password. */
  readonly smtp: string
  /** The certificate to trust (PEM), for POSTERN_SMTP_CA. */
  readonly ca: string
  /** The page; `/messages` below it is the same as JSON. */
  readonly web: string
  readonly messages: () => readonly Message[]
  readonly close: () => Promise<void>
}

const KEPT = 500

export async function startMailbox (options: MailboxOptions = {}): Promise<Mailbox> {
  const { smtpPort = 0, webPort = 0, login = 'required', refuse } = options
  const { password = randomBytes(12).toString('hex'), certificate = selfSigned(new Date()) } = options
  const user = 'postern'
  const messages: Message[] = []

  const server = new SMTPServer({
    ...certificate,
    authOptional: login === 'optional',
    authMethods: ['PLAIN', 'LOGIN'],
    // A password in clear is worth nothing: no login before STARTTLS.
    allowInsecureAuth: false,
    disableReverseLookup: true,
    onAuth: (auth, session, done) => {
      if (auth.username === user && auth.password === password) done(null, { user })
      else done(Object.assign(new Error('The login is not right'), { responseCode: 535 }))
    },
    onRcptTo: ({ address }, session, done) => {
      const refusal = refuse?.(address)
      if (refusal === undefined) done()
      else done(Object.assign(new Error(refusal.text), { responseCode: refusal.code }))
    },
    onData: (stream, session, done) => {
      simpleParser(stream).then(mail => {
        messages.push({
          id: randomUUID(),
          to: session.envelope.rcptTo.map(one => one.address),
          from: addresses(mail.from),
          subject: mail.subject ?? '',
          text: mail.text ?? '',
          html: mail.html === false || mail.html === undefined ? '' : mail.html,
          received: new Date().toISOString()
        })
        if (messages.length > KEPT) messages.shift()
        done()
      }, done)
    }
  })
  // A client that hangs up in the middle of TLS is no reason to stop.
  server.on('error', () => {})

  const port = await new Promise<number>((resolve, reject) => {
    server.server.once('error', reject)
    server.listen(smtpPort, '127.0.0.1', () => { resolve((server.server.address() as AddressInfo).port) })
  })
  const web = createWeb(() => messages)
  const page = await web.listen({ host: '127.0.0.1', port: webPort })

  return {
    smtp: `smtp://${user}:${password}@127.0.0.1:${port}`,
    ca: certificate.cert,
    web: page,
    messages: () => messages,
    close: async () => {
      await Promise.all([web.close(), new Promise<void>(resolve => { server.close(resolve) })])
    }
  }
}

function addresses (given: AddressObject | AddressObject[] | undefined): string {
  const one = Array.isArray(given) ? given[0] : given
  return one?.text ?? ''
}
