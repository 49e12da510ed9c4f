// Mail settings as configuration: the server's URL taken apart, its certificate authority read, the sender checked.

import { readFileSync } from 'node:fs'
import { singleMailbox } from './domain/addresses.ts'

/** Whether mail may travel without TLS. */
export type MailTls = 'required' | 'opportunistic' | 'none'

export interface Smtp {
  readonly host: string
  readonly port: number
  /** TLS from the first byte (`smtps:`), not by STARTTLS. */
  readonly secure: boolean
  readonly login: { readonly user: string; readonly password: string } | undefined
  readonly tls: MailTls
  /** Certificates to trust instead of the system's, PEM. */
  readonly ca: string | undefined
}

export interface Sender {
  readonly name: string
  readonly address: string
}

const FORM = 'POSTERN_SMTP must be smtp://user:password@host:port or smtps://…, with user and password percent-encoded'

/** The mail server, or undefined where none is named; mistakes are added by name and never by value. */
export function readSmtp (
  url: string | undefined,
  tls: MailTls,
  caFile: string | undefined,
  mistakes: string[]
): Smtp | undefined {
  if (url === undefined) return undefined
  try {
    const { protocol, hostname, port, username, password, pathname, search, hash } = new URL(url)
    const secure = protocol === 'smtps:'
    // A "/", "?" or "#" in a password that is not encoded would quietly become another host.
    if ((!secure && protocol !== 'smtp:') || hostname === '' || !/^\/?$/.test(pathname) || search + hash !== '') {
      throw new TypeError('form')
    }
    return {
      host: hostname.replace(/^\[|\]$/g, ''),
      port: port === '' ? (secure ? 465 : 587) : Number(port),
      secure,
      login:
        username === ''
          ? undefined
          : { user: decodeURIComponent(username), password: decodeURIComponent(password) },
      tls,
      ca: readAuthority(caFile, 'POSTERN_SMTP_CA', mistakes)
    }
  } catch {
    mistakes.push(FORM)
    return undefined
  }
}

/** The certificates of a file, PEM; `called` is the setting that names it. */
export function readAuthority (file: string | undefined, called: string, mistakes: string[]): string | undefined {
  if (file === undefined) return undefined
  try {
    const text = readFileSync(file, 'utf8')
    if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  } catch {
    // Said below: a file that cannot be read and one without a certificate are mended in the same place.
  }
  mistakes.push(`${called} must name a file with a certificate (PEM)`)
  return undefined
}

/** `Console <postern@example.org>` or `postern@example.org`. */
export function readSender (text: string, mistakes: string[]): Sender {
  const match = /^(?:"?([^"<>\p{C}]*?)"?\s*<([^<>]+)>|([^<>\s]+))$/u.exec(text.trim())
  const address = singleMailbox(match?.[2] ?? match?.[3] ?? '')
  if (address === undefined) {
    mistakes.push('POSTERN_MAIL_FROM must be an address, or a name and an address as Name <name@example.org>')
    return { name: '', address: '' }
  }
  return { name: match?.[1] ?? '', address }
}
