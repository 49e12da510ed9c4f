// One canonical path for a request target, or a refusal. What two servers could read in two ways is refused.

/** Longest request target that is looked at. */
const LONGEST = 8192

export type Target = { readonly path: string; readonly query: string } | { readonly refused: string }

// Printable ASCII without space, '#' and '\': everything else in a target is read differently by somebody.
const foreign = /[^\x21\x22\x24-\x5b\x5d-\x7e]/

/**
 * What no request target may hold, whichever route it matches. `undefined` = fine. `#` and the absolute form reach
 * handlers although a check on the text of the URL never sees the path (GHSA-pxq7-h93f-9jrg).
 */
export function refusedTarget (target: string): string | undefined {
  if (target.charCodeAt(0) !== 47) return 'the request target is not a path'
  if (target.length > LONGEST) return 'the request target is too long'
  if (foreign.test(target)) return 'the request target holds a character that does not belong there'
  return undefined
}

/**
 * The one reading of a target that goes to something which parses it again (a wildcard route, a proxied console):
 * unreserved escapes are decoded, all others stand in upper case, and a second pass changes nothing.
 */
export function canonicalTarget (target: string): Target {
  // A gateway reads it for the rule and again where it passes it on.
  if (lastRead.target !== target) lastRead = { target, canonical: canonicalOf(target) }
  return lastRead.canonical
}

let lastRead: { readonly target: string; readonly canonical: Target } = { target: '', canonical: { refused: 'the request target is not a path' } }

function canonicalOf (target: string): Target {
  const refused = refusedTarget(target)
  if (refused !== undefined) return { refused }
  const mark = target.indexOf('?')
  const raw = mark === -1 ? target : target.slice(0, mark)
  const query = mark === -1 ? '' : target.slice(mark)
  if (raw.includes('//')) return { refused: 'the path holds an empty segment' }
  if (raw.includes(';')) return { refused: 'the path holds a semicolon' }
  if (!raw.includes('%')) {
    return dotted(raw) ? { refused: 'the path holds a dot segment' } : { path: raw, query }
  }
  if (/%(?![0-9a-f]{2})/i.test(raw)) return { refused: 'the path holds a percent sign that escapes nothing' }
  // Twice decoded by a lenient server, `%252e` is a dot.
  if (/%25[0-9a-f]{2}/i.test(raw)) return { refused: 'the path is encoded twice' }
  const decoded = decode(raw)
  if (decoded === undefined) return { refused: 'the path is not UTF-8' }
  // An escaped slash, backslash, semicolon, `?`, `#` or control byte changes the path for whoever decodes before
  // splitting.
  if (/%(?:2f|5c|3b|3f|23|[01][0-9a-f]|7f)/i.test(raw) || /[\u0080-\u009f]/.test(decoded)) { return { refused: 'the path holds an escape that servers read differently' } }
  if (dotted(decoded)) return { refused: 'the path holds a dot segment' }
  if (decoded.split('/').some(segment => segment.trim() !== segment)) { return { refused: 'a path segment begins or ends with white space' } }
  if (/[/\\;.%?#]/.test(foldedAway(decoded))) return { refused: 'the path holds a character that folds into another' }
  return { path: raw.replace(/%[0-9a-f]{2}/gi, canonicalEscape), query }
}

/** May this be kept as the place to return to? A path of the same origin in at most 512 bytes; never a URL. */
export function returnPath (target: string): string {
  return target.length <= 512 && /^\/(?![/\\])[\x21\x22\x24-\x5b\x5d-\x7e]*$/.test(target) ? target : '/'
}

function dotted (path: string): boolean {
  return path.includes('/.') && /\/\.\.?(?:\/|$)/.test(path)
}

function decode (path: string): string | undefined {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}

// Full-width and look-alike characters that compatibility folding turns into syntax (`／`, `．`, `＼`, `；`).
function foldedAway (decoded: string): string {
  return [...decoded]
    .filter(character => character > '\u007f')
    .join('')
    .normalize('NFKC')
    .replace(/[^\x00-\x7f]/g, '')
}

function canonicalEscape (escape: string): string {
  const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
  return /[A-Za-z0-9\-._~]/.test(character) ? character : escape.toUpperCase()
}

/**
 * A pattern of a gateway or of a console that cannot declare its routes: `[METHOD ]/path`, `*` = one segment, last
 * `/*` = all below, last `*` behind a text = whatever begins so.
 */
export interface Pattern {
  readonly method: string | undefined
  readonly test: (path: string) => boolean
}

/**
 * Compiles a pattern; throws a sentence that names it where it is not one. Exact patterns match byte for byte, loose
 * ones whatever case or escaping.
 */
export function pattern (text: string, reading: 'exact' | 'loose'): Pattern {
  const parts = /^(?:([A-Z]+) )?(\/[^\s?#\\;]*)$/.exec(text)
  if (parts === null) throw new Error(`postern: "${text}" is not a pattern; write "/path", "/path/*" or "POST /path"`)
  const path = parts[2] ?? '/'
  const below = path.endsWith('/*')
  const begins = !below && path.endsWith('*')
  const source = (below ? path.slice(0, -2) : begins ? path.slice(0, -1) : path)
    .split('/')
    .map(segment =>
      segment === '*'
        ? '[^/]+'
        : (reading === 'loose' ? loosened(segment) : segment).replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
    )
    .join('/')
  const ending = begins ? '.*' : below ? (reading === 'loose' ? '(?:/.*)?' : '/.*') : reading === 'loose' ? '/?' : ''
  const expression = new RegExp(`^${source}${ending}$`, 's')
  return {
    method: parts[1],
    test: reading === 'exact' ? path => expression.test(path) : path => expression.test(lastLoosened(path))
  }
}

// Many patterns look at one path after another.
let last = { path: '', loosened: '' }

function lastLoosened (path: string): string {
  if (last.path !== path) last = { path, loosened: loosened(path) }
  return last.loosened
}

// Case-folded both ways (some compare in upper case, where a dotless i is an I), decoded until nothing changes, without
// parameters and doubled slashes: consoles behind may do any of it.
function loosened (path: string): string {
  return decodedThrough(path)
    .normalize('NFKC')
    .toUpperCase()
    .toLowerCase()
    .replace(/;[^/]*/g, '')
    .replace(/\/{2,}/g, '/')
}

/** Decoded as often as it takes; an escape that is none stays as it is. */
export function decodedThrough (text: string): string {
  let plain = text
  for (let round = 0; round < 4 && plain.includes('%'); round++) {
    const next = plain.replace(/(?:%[0-9a-f]{2})+/gi, escapes => decode(escapes) ?? escapes)
    if (next === plain) break
    plain = next
  }
  return plain
}
