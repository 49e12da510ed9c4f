// What a request presents for a login, read from the raw header lines. Two readings are a refusal, never a guess.

import type { Remembered } from './cache.ts'
import type { LoggedIn } from './model.ts'
import { decodedThrough } from './path.ts'

/** Names of what the console takes for a login, beside `Authorization`, which always counts. */
export interface CredentialNames {
  readonly cookies: readonly string[]
  readonly headers: readonly string[]
  readonly query: readonly string[]
}

/** Somebody who came with a reading: what is checked of them, and what the service said of them last. */
export interface Known extends Pick<LoggedIn, 'kind' | 'session' | 'subject' | 'exempt'> {
  /** Their name in the cache. One that is made anew is hashed anew, which is most of looking it up. */
  readonly key: string
  answer: Remembered | undefined
}

/** What came along, in one reading. The same Cookie header gives the same object, while it is remembered. */
export interface Credentials {
  /** The raw browser binding; '' where there is none. */
  readonly binding: string
  /** Something the console may take for a login came along. */
  readonly any: boolean
  /** It came in another way than a cookie. */
  readonly header: boolean
  /** Who came with it last. */
  last: Known | undefined
}

export type Presented = Credentials | { readonly refused: string }

const AUTHORIZATION = 'authorization'

/** Header names are few and come with every request. */
const foldings = new Map<string, string>()
const FOLDINGS = 500

/** Header names as servers that turn `-` into `_` see them (GHSA-vjrc-mh2v-45x6). */
export function folded (name: string): string {
  const known = foldings.get(name)
  if (known !== undefined) return known
  const plain = name.toLowerCase().replaceAll('_', '-')
  if (foldings.size >= FOLDINGS) foldings.clear()
  if (name.length <= 64) foldings.set(name, plain)
  return plain
}

/** Bytes for the readings of cookie headers, which browsers repeat: of some eight thousand of them. */
const REMEMBERED = 8_000_000
/** Of each, with who came with it last and the answer, beside its header: many short ones take memory too. */
const READING = 900
const LONGEST_REMEMBERED = 4_096

/** Reads requests by the names given. */
export function createCredentials (
  names: CredentialNames,
  bindingName: string
): (rawHeaders: readonly string[], query: string) => Presented {
  const cookieNames = new Set([...names.cookies, bindingName])
  const foldedCookies = new Set([...cookieNames].map(lenientName))
  const headerNames = new Set([AUTHORIZATION, ...names.headers.map(folded)])
  const queryNames = new Set(['access_token', ...names.query].map(lenientName))
  // Most headers are told apart by their length; folding keeps it.
  const lengths = Array.from({ length: 1 + Math.max(...[...headerNames].map(name => name.length)) }, () => false)
  for (const { length } of headerNames) lengths[length] = true
  const cookies = createCookieReader(cookieNames, foldedCookies, bindingName)
  const memory = new Map<string, Presented>()
  let held = 0

  function readCookies (header: string): Presented {
    const known = memory.get(header)
    if (known !== undefined) return known
    const reading = cookies(header)
    if (header.length <= LONGEST_REMEMBERED) {
      const bytes = header.length + READING
      held += bytes
      if (held > REMEMBERED) {
        memory.clear()
        held = bytes
      }
      memory.set(header, reading)
    }
    return reading
  }

  return function credentials (rawHeaders, query) {
    let cookie: string | undefined
    let headers = 0
    let hosts = 0
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const name = rawHeaders[i] ?? ''
      const length = name.length
      if (length === 6 && name.toLowerCase() === 'cookie') {
        // Servers join several Cookie lines, or keep the first or the last.
        if (cookie !== undefined) return { refused: 'more than one Cookie header' }
        cookie = rawHeaders[i + 1] ?? ''
      } else if (length === 4 && name.toLowerCase() === 'host') {
        // Node keeps the first of several, others the last.
        if (++hosts > 1) return { refused: 'more than one Host header' }
      } else if (lengths[length] === true && headerNames.has(folded(name))) {
        if (name.includes('_') && !names.headers.includes(name)) {
          return { refused: 'a credential header spelled with an underscore' }
        }
        headers++
      }
    }
    if (headers > 1) return { refused: 'more than one credential header' }
    const inQuery = query.length > 1 ? countQuery(query, queryNames) : 0
    if (inQuery > 1) return { refused: 'more than one credential in the query' }
    const reading = cookie === undefined ? presented('', false, false) : readCookies(cookie)
    if ('refused' in reading) return reading
    if (headers + inQuery + (reading.any ? 1 : 0) > 1) return { refused: 'more than one credential' }
    return headers + inQuery === 0 ? reading : presented(reading.binding, true, true)
  }
}

const presented = (binding: string, any: boolean, header: boolean): Credentials =>
  ({ binding, any, header, last: undefined })

function createCookieReader (
  names: ReadonlySet<string>,
  byFolded: ReadonlySet<string>,
  bindingName: string
): (header: string) => Presented {
  return function read (header) {
    // Node lets bytes above ASCII and tabs through; parsers differ on what they make of control characters.
    if (/[\x00-\x08\x0a-\x1f\x7f]/.test(header)) return { refused: 'a Cookie header that cannot be parsed' }
    const found = new Map<string, string>()
    for (const pair of header.split(';')) {
      const equals = pair.indexOf('=')
      const name = (equals === -1 ? pair : pair.slice(0, equals)).replace(/^[ \t]+|[ \t]+$/g, '')
      if (!names.has(name)) continue
      if (equals === -1) return { refused: `the cookie ${name} without a value` }
      if (found.has(name)) return { refused: `the cookie ${name} twice` }
      found.set(name, pair.slice(equals + 1).replace(/^[ \t]+|[ \t]+$/g, ''))
    }
    // A lenient parser splits at commas too, trims, unquotes, decodes, folds names: it must find no more than we did.
    if (countLenient(header, byFolded) !== found.size) return { refused: 'a Cookie header that servers read differently' }
    for (const [name, value] of found) {
      if (
        !/^(?:"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"|[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*)$/.test(
          value
        ) ||
        /%(?![0-9a-f]{2})/i.test(value)
      ) {
        return { refused: `the cookie ${name} with a value that cannot be parsed` }
      }
    }
    const binding = found.get(bindingName) ?? ''
    return presented(binding, found.size > (found.has(bindingName) ? 1 : 0), false)
  }
}

function countLenient (header: string, byFolded: ReadonlySet<string>): number {
  let count = 0
  for (const piece of header.split(/[;,]/)) {
    const equals = piece.indexOf('=')
    if (byFolded.has(lenientName(equals === -1 ? piece : piece.slice(0, equals)))) count++
  }
  return count
}

function countQuery (query: string, names: ReadonlySet<string>): number {
  let count = 0
  for (const pair of query.slice(query.charCodeAt(0) === 63 ? 1 : 0).split(/[&;]/)) {
    const equals = pair.indexOf('=')
    if (names.has(lenientName(equals === -1 ? pair : pair.slice(0, equals)))) count++
  }
  return count
}

/**
 * A name as the most lenient server reads it: decoded as often as it takes, unquoted, trimmed, folded, and with what
 * PHP makes of `sid[x]`, `access.token` and `access token`.
 */
function lenientName (name: string): string {
  return decodedThrough(name.replaceAll('+', ' '))
    .normalize('NFKC')
    .replace(/^[\s"'\0]+|[\s"'\0]+$/g, '')
    .toLowerCase()
    .replace(/(?<=.)[[\0].*$/s, '')
    .replace(/[. ]/g, '_')
}

/** Header lines in which all cookies stand in one. */
export function oneCookieLine (rawHeaders: readonly string[]): readonly string[] {
  const cookies: string[] = []
  const lines: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? ''
    const value = rawHeaders[i + 1] ?? ''
    if (name === 'cookie') cookies.push(value)
    else lines.push(name, value)
  }
  return cookies.length === 0 ? lines : [...lines, 'cookie', cookies.join('; ')]
}

/**
 * Takes headers that only a gate may set away from what the client sent: `postern-*`, in any spelling. Returns the code
 * of `2fa-code` where there is exactly one, and `null` where there are several.
 */
export function stripOurs (
  headers: Record<string, string | readonly string[] | undefined>,
  rawHeaders: string[]
): string | null | undefined {
  let code: string | null | undefined
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const name = rawHeaders[i] ?? ''
    const first = name.charCodeAt(0) | 32
    if (first !== 112 && first !== 50) continue // p, 2
    const plain = folded(name)
    if (plain === '2fa-code') code = code === undefined ? (rawHeaders[i + 1] ?? '') : null
    else if (!plain.startsWith('postern-')) continue
    rawHeaders.splice(i, 2)
    Reflect.deleteProperty(headers, name.toLowerCase())
  }
  return code
}
