// Redis settings as configuration: one URL for a server, Sentinel or Cluster taken apart, its certificates read.

import { readFileSync } from 'node:fs'

export interface RedisNode {
  readonly host: string
  readonly port: number
}

export interface RedisSettings {
  readonly kind: 'standalone' | 'sentinel' | 'cluster'
  /** The server; of Sentinel the sentinels; of Cluster some nodes to begin with. */
  readonly nodes: readonly RedisNode[]
  readonly username: string | undefined
  readonly password: string | undefined
  readonly db: number
  /** Name that the sentinels know the master by. */
  readonly master: string | undefined
  readonly sentinelPassword: string | undefined
  readonly tls:
    | { readonly ca: string | undefined; readonly cert: string | undefined; readonly key: string | undefined }
    | undefined
  /** Longest wait for one answer. */
  readonly timeoutMs: number
}

export interface RedisGiven {
  readonly url: string | undefined
  readonly sentinelPassword: string | undefined
  readonly ca: string | undefined
  readonly certificate: string | undefined
  readonly key: string | undefined
  readonly timeoutMs: number
}

const FORM =
  'POSTERN_REDIS must be redis://user:password@host:port/db, redis+sentinel://…@host:port,host:port/db?master=name or redis+cluster://…@host:port,host:port (rediss… for TLS), with user and password percent-encoded'

const PORT = { standalone: 6379, sentinel: 26379, cluster: 6379 } as const

/** Redis, or undefined where none is named; mistakes are added by name and never by value. */
export function readRedis (given: RedisGiven, mistakes: string[]): RedisSettings | undefined {
  const { url, timeoutMs, sentinelPassword } = given
  if (url === undefined) return undefined
  // By hand: several hosts in one URL are no URL to the platform's parser.
  const parts =
    /^redis(s)?(?:\+(sentinel|cluster))?:\/\/(?:([^:@/?#]*)(?::([^@/?#]*))?@)?([^@/?#]+)(?:\/(\d{0,4}))?(?:\?master=([A-Za-z0-9._-]{1,64}))?$/.exec(
      url
    )
  const kind = parts?.[2] === 'sentinel' || parts?.[2] === 'cluster' ? parts[2] : 'standalone'
  const nodes = (parts?.[5] ?? '').split(',').map(text => nodeOf(text, PORT[kind]))
  const [username, password] = [decoded(parts?.[3]), decoded(parts?.[4])]
  const [db, master] = [Number(parts?.[6] ?? 0), parts?.[7]]
  const good =
    parts !== null &&
    nodes.every(node => node !== undefined) &&
    username !== null &&
    password !== null &&
    (kind === 'sentinel') === (master !== undefined) &&
    (kind !== 'standalone' || nodes.length === 1) &&
    (kind !== 'cluster' || db === 0)
  if (!good) {
    mistakes.push(FORM)
    return undefined
  }
  const tls =
    parts[1] === undefined
      ? undefined
      : {
          ca: pem(given.ca, 'POSTERN_REDIS_CA', mistakes),
          cert: pem(given.certificate, 'POSTERN_REDIS_CERTIFICATE', mistakes),
          key: pem(given.key, 'POSTERN_REDIS_KEY', mistakes)
        }
  if (tls === undefined && (given.ca ?? given.certificate ?? given.key) !== undefined) {
    mistakes.push('POSTERN_REDIS_CA, _CERTIFICATE and _KEY are for rediss:// only')
  }
  if (tls !== undefined && (tls.cert === undefined) !== (tls.key === undefined)) {
    mistakes.push('POSTERN_REDIS_CERTIFICATE and POSTERN_REDIS_KEY belong together')
  }
  if (sentinelPassword !== undefined && kind !== 'sentinel') {
    mistakes.push('POSTERN_REDIS_SENTINEL_PASSWORD is for redis+sentinel:// only')
  }
  return {
    kind,
    nodes: nodes.filter(node => node !== undefined),
    username: username === '' ? undefined : username,
    password: password === '' ? undefined : password,
    db,
    master,
    sentinelPassword,
    tls,
    timeoutMs
  }
}

function nodeOf (text: string, port: number): RedisNode | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text)
  const node = { host: match?.[1] ?? match?.[2] ?? '', port: Number(match?.[3] ?? port) }
  return match === null || node.port < 1 || node.port > 65535 ? undefined : node
}

/** `undefined` stays; null where the percent-encoding is broken. */
function decoded (text: string | undefined): string | undefined | null {
  try {
    return text === undefined ? undefined : decodeURIComponent(text)
  } catch {
    return null
  }
}

function pem (file: string | undefined, name: string, mistakes: string[]): string | undefined {
  if (file === undefined) return undefined
  try {
    const text = readFileSync(file, 'utf8')
    if (text.includes('-----BEGIN ')) return text
  } catch {
    // Said below: a file that cannot be read and one that holds no PEM are mended in the same place.
  }
  mistakes.push(`${name} must name a file in PEM form`)
  return undefined
}
