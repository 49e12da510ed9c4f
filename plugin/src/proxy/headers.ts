// Which headers cross the gateway, and what it says of the client in their place.

import { folded } from '../credentials.ts'

/** RFC 9110 7.6.1: of one connection only. */
const HOP_BY_HOP = new Set([
  'connection', 'proxy-connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings',
  'proxy-authorization', 'proxy-authenticate', 'expect'
])

/** What servers and frameworks take for another path, host or method than those of the request itself. */
export const ELSEWHERE: ReadonlySet<string> = new Set([
  'x-original-url', 'x-original-uri', 'x-original-path', 'x-original-host', 'x-original-method', 'x-rewrite-url', 'x-override-url', 'x-request-uri',
  'request-uri', 'x-http-path-override', 'x-http-destinationurl', 'x-http-host-override', 'x-proxy-url', 'x-script-name', 'script-name', 'x-envoy-original-path',
  'x-http-method-override', 'x-http-method', 'x-method-override', 'x-method', 'x-forwarded-path', 'x-forwarded-url', 'x-forwarded-prefix'
])

/** Beside those, what they take for the client or the user, whoever sent it. */
const NEVER = new Set([
  ...ELSEWHERE,
  'forwarded', 'host', 'proxy', 'x-real-ip', 'x-client-ip', 'client-ip', 'x-cluster-client-ip', 'true-client-ip', 'cf-connecting-ip',
  'cf-connecting-ipv6', 'cf-pseudo-ipv4', 'fastly-client-ip', 'x-remote-ip', 'x-remote-addr', 'remote-addr', 'x-originating-ip',
  'x-envoy-external-address', 'x-azure-clientip', 'x-azure-socketip', 'x-appengine-remote-addr', 'wl-proxy-client-ip', 'proxy-client-ip',
  'x-original-forwarded-for', 'x-original-remote-addr', 'x-host', 'x-proto', 'x-scheme', 'x-url-scheme', 'front-end-https',
  'remote-user', 'x-remote-user', 'x-webauth-user', 'x-authenticated-user', 'x-authenticated-userid', 'x-user', 'x-ssl-client-cert', 'x-client-cert', 'x-client-verify'
])
const NEVER_BEGINS = ['x-forwarded-', 'x-forwarded', 'postern-', 'x-auth-request-', 'x-authentik-', 'x-goog-authenticated-', 'x-ms-client-principal', 'x-amzn-oidc-', 'tailscale-user-']

/** The public origin as forwarding headers name it. */
export interface Origin {
  readonly host: string
  readonly proto: string
  readonly port: string
}

export function originOf ({ host, protocol, port }: URL): Origin {
  const proto = protocol.slice(0, -1)
  return { host, proto, port: port === '' ? (proto === 'https' ? '443' : '80') : port }
}

export interface Told {
  readonly address: string
  readonly origin: Origin
}

/** Of names seen before: does none of them ever cross? */
const stays = new Map<string, boolean>()
const STAYS = 500

function neverCrosses (plain: string): boolean {
  const known = stays.get(plain)
  if (known !== undefined) return known
  const never = HOP_BY_HOP.has(plain) || NEVER.has(plain) || NEVER_BEGINS.some(start => plain.startsWith(start))
  if (stays.size >= STAYS) stays.clear()
  if (plain.length <= 64) stays.set(plain, never)
  return never
}

export interface Passing {
  /** Header names (folded) that the console takes for a login; may be spelled with an underscore. */
  readonly credentialHeaders: ReadonlySet<string>
  /** The owner of this request is nobody: what could be a login is taken away. */
  readonly anonymous: boolean
  readonly cookies: ReadonlySet<string>
  /** The binding and page cookies, which are nobody's business behind. */
  readonly ours: (cookieName: string) => boolean
  /** The answer is going to be read, so it must come as it is. */
  readonly plain: boolean
}

/** The headers that go to the console, as name, value, name, value. */
export function requestHeaders (raw: readonly string[], told: Told, passing: Passing): string[] {
  const dropped = listedIn(raw, 'connection')
  const headers: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? ''
    const value = raw[i + 1] ?? ''
    const plain = folded(name)
    if (neverCrosses(plain)) continue
    if (dropped.has(plain) && !KEPT.has(plain)) continue
    const credential = plain === 'authorization' || passing.credentialHeaders.has(plain)
    if (credential && passing.anonymous) continue
    // Servers that turn `-` into `_` see one header where another spelled it differently.
    if (name.includes('_') && !(credential && plain !== 'authorization')) continue
    if (passing.plain && (plain === 'accept-encoding' || plain === 'range' || plain.startsWith('if-'))) continue
    if (plain === 'cookie') {
      const rest = cookiesLeft(value, one => passing.ours(one) || (passing.anonymous && passing.cookies.has(one)))
      if (rest !== '') headers.push(name, rest)
      continue
    }
    headers.push(name, value)
  }
  if (passing.plain) headers.push('accept-encoding', 'identity')
  const { address, origin: { host, proto, port } } = told
  const node = address.includes(':') ? `"[${address}]"` : address
  headers.push(
    'host', host,
    'x-forwarded-for', address,
    'x-forwarded-proto', proto,
    'x-forwarded-host', host,
    'x-forwarded-port', port,
    'x-real-ip', address,
    'forwarded', `for=${node};host="${host}";proto=${proto}`
  )
  return headers
}

/** Without them the message is another one; a `Connection` header cannot have them taken away. */
const KEPT = new Set(['content-length', 'content-type', 'content-encoding', 'cookie', 'authorization'])

/** The headers of the console's answer, byte for byte but for those of the connection. */
export function answerHeaders (raw: readonly (Buffer | string)[], upstream: string, publicOrigin: string): string[] {
  const lines = raw.map(one => (typeof one === 'string' ? one : one.toString('latin1')))
  const connection = listedIn(lines, 'connection')
  const headers: string[] = []
  for (let i = 0; i < lines.length; i += 2) {
    const name = lines[i] ?? ''
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || (connection.has(lower) && !KEPT.has(lower))) continue
    const value = lines[i + 1] ?? ''
    // A console that names its own address would send people past the gateway.
    const own = lower === 'location' && (value === upstream || value.startsWith(`${upstream}/`))
    headers.push(name, own ? publicOrigin + value.slice(upstream.length) : value)
  }
  return headers
}

const NONE: ReadonlySet<string> = new Set()

function listedIn (raw: readonly string[], header: string): ReadonlySet<string> {
  let names: Set<string> | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? ''
    if (name.length !== header.length || name.toLowerCase() !== header) continue
    const value = raw[i + 1] ?? ''
    // Says nothing but what it is for.
    if (value === 'keep-alive' || value === 'close') continue
    names ??= new Set()
    for (const one of value.split(',')) names.add(folded(one.trim()))
  }
  return names ?? NONE
}

function cookiesLeft (header: string, taken: (name: string) => boolean): string {
  const pairs = header.split(';')
  const left = pairs.filter(pair => {
    const equals = pair.indexOf('=')
    return !taken((equals === -1 ? pair : pair.slice(0, equals)).trim())
  })
  return left.length === pairs.length ? header : left.join(';').trim()
}

/** The target without these parameters. */
export function withoutParameters (query: string, names: ReadonlySet<string>): string {
  if (query.length < 2 || names.size === 0) return query
  const left = query.slice(1).split('&').filter(pair => {
    // Some servers split at semicolons too.
    return !pair.split(';').some(piece => {
      const name = (piece.split('=', 1)[0] ?? '').replaceAll('+', ' ')
      return names.has(unescaped(name).trim().toLowerCase().replace(/\[.*$/s, ''))
    })
  })
  return left.length === 0 ? '' : `?${left.join('&')}`
}

function unescaped (text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
