// What a console with a habit makes of a request it received: the judge of the attack suite. Written apart from the
// gate's own code, and as lenient as any of them.

export interface Received {
  readonly url: string
  readonly headers: Readonly<Record<string, unknown>>
}

/** A console with this session cookie, that takes tokens in the usual places too. */
export const habitOf = (cookie: string): Habit =>
  ({ cookie, headers: ['authorization', 'x_api_key'], query: ['access_token', 'token'] })

const fold = (name: string): string =>
  decoded(decoded(name.replaceAll('+', ' '))).normalize('NFKC').toUpperCase().toLowerCase().replace(/[\s"'\0]/g, '').replace(/(?!^)\[.*$/s, '').replace(/[.-]/g, '_')

function decoded (text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, escapes => {
    const bytes = Buffer.from(escapes.replaceAll('%', ''), 'hex')
    const utf8 = bytes.toString('utf8')
    return utf8.includes('\ufffd') ? bytes.toString('latin1') : utf8
  })
}

const textOf = (value: unknown): string => Array.isArray(value) ? value.join('; ') : String(value ?? '')

/** What a console reads a login from, folded. */
export interface Habit {
  readonly cookie: string | undefined
  readonly headers: readonly string[]
  readonly query: readonly string[]
}

/** Sessions that some console would take from this request: first or last duplicate, commas, quotes, escapes. */
export function loginsOf ({ url, headers }: Received, habit: Habit, candidates: readonly string[]): string[] {
  const found = new Set<string>()
  const cookie = textOf(headers['cookie'])
  for (const piece of [...cookie.split(';'), ...cookie.split(/[;,]/)]) {
    const equals = piece.indexOf('=')
    if (equals === -1 || habit.cookie === undefined || fold(piece.slice(0, equals)) !== fold(habit.cookie)) continue
    const value = decoded(piece.slice(equals + 1)).replace(/^[\s"']+|[\s"'\0]+$/g, '')
    for (const one of candidates) if (value === one) found.add(one)
  }
  for (const [name, value] of Object.entries(headers)) {
    if (!habit.headers.includes(fold(name))) continue
    const text = textOf(value)
    const basic = /\bbasic +([A-Za-z0-9+/=]+)/i.exec(text)?.[1]
    for (const one of candidates) {
      if (text.includes(one) || (basic !== undefined && Buffer.from(basic, 'base64').toString().includes(one))) found.add(one)
    }
  }
  for (const pair of url.split(/[?&;#]/).slice(1)) {
    const equals = pair.indexOf('=')
    if (!habit.query.includes(fold(pair.slice(0, equals)))) continue
    for (const one of candidates) if (decoded(pair.slice(equals + 1)) === one) found.add(one)
  }
  return [...found]
}

const PATH_HEADERS = /^(?:x_(?:original_ur[li]|rewrite_url|forwarded_(?:uri|path|url|prefix)|original_path|request_uri|envoy_original_path|proxy_url|http_path_override)|request_uri)$/

/** Every path that some console would read: decoded not at all, once or twice, folded, without parameters, resolved. */
export function pathsOf ({ url, headers }: Received): string[] {
  const named = Object.entries(headers).filter(([name]) => PATH_HEADERS.test(fold(name)))
  const targets = [url, ...named.map(([, value]) => textOf(value))]
  return targets.flatMap(target => [target, target.replace(/^[a-z]+:\/\/[^/]*/i, '')]).flatMap(target => {
    const rounds = [target, decoded(target), decoded(decoded(target))]
    return rounds.flatMap(round => [round, round.split('?')[0] ?? '', decoded(target.split('?')[0] ?? ''), decoded(decoded(target.split('?')[0] ?? ''))]).map(resolved)
  })
}

function resolved (text: string): string {
  const path = text.normalize('NFKC').toUpperCase().toLowerCase().replace(/[?#\0].*$/s, '').replaceAll('\\', '/').replace(/;[^/]*/g, '')
  const kept: string[] = []
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment === '..') kept.pop()
    else kept.push(segment.trim())
  }
  return `/${kept.join('/')}`
}
