// The table of attacks, for any console behind any gate: what counts is what the console's own log saw.

import type { Test } from 'tap'
import { createLane, sendAll, type Attempt, type Row } from './attack.ts'
import { habitOf, loginsOf, pathsOf, type Habit, type Received } from './readings.ts'
import { framings, headerTricks, METHODS, spellingsOf, twoLogins } from './spellings.ts'

/** A request as the console's log has it. */
export interface Logged extends Received {
  readonly method: string
  readonly upgrade: boolean
  /** The handler that ran, where the console has routes. */
  readonly route?: string | undefined
}

export interface AttackTarget {
  readonly name: string
  readonly port: number
  /** Below what the console's paths are. */
  readonly base: string
  readonly log: readonly Logged[]
  readonly cookie: string
  /** What the console reads a login from, where it is not this cookie and the usual headers. */
  readonly reads?: Habit
  /** Header lines of sessions: passed nothing; passed login alone; passed login and step-up. */
  readonly unverified: string
  readonly verified: string
  readonly fresh: string
  /** The bare session ids of the three, and the binding cookie of the verified one. */
  readonly ids: {
    readonly unverified: string
    readonly verified: string
    readonly fresh: string
    readonly binding: string
  }
  /** A server of its own behind a gateway: headers that name another path must not reach it. */
  readonly proxied: boolean
  /** What is below the sensitive path is sensitive too. */
  readonly below: boolean
  /** Passes unverified, in exactly this spelling. */
  readonly open: string
  /** Sockets may be asked for. */
  readonly sockets: boolean
  /** What is open is so by a pattern, and a pattern opens it to sockets too. */
  readonly openToSockets?: boolean
  /** Nothing is refused here: shows that the judge would see it. Sends a part of everything. */
  readonly ungated?: boolean
  /** Sends one in so many, where another target sends them all through the same code. */
  readonly oneIn?: number
}

const BODY = 'a=1'

function request (method: string, target: string, headers: readonly string[]): Attempt {
  if (method === 'UPGRADE') {
    const lines = ['Host: 127.0.0.1', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', ...headers]
    return { bytes: `GET ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n` }
  }
  const body = method === 'POST' ? BODY : ''
  const more = body === '' ? [] : ['Content-Type: application/x-www-form-urlencoded', `Content-Length: ${body.length}`]
  return { bytes: `${method} ${target} HTTP/1.1\r\n${['Host: 127.0.0.1', ...headers, ...more].join('\r\n')}\r\n\r\n${body}`, headOnly: method === 'HEAD' }
}

/** Sends everything; each group is a test and a row of the table. */
export async function attack (t: Test, target: AttackTarget): Promise<Row[]> {
  const { base, log, ids, open } = target
  const path = { protected: `${base}/protected`, sensitive: `${base}/settings` }
  const rows: Row[] = []
  const methods = [...METHODS, ...(target.sockets ? ['UPGRADE'] : [])]
  const { cookie, reads: habit = habitOf(cookie) } = target
  const candidates = [ids.unverified, ids.verified, ids.fresh]
  const readBy = (one: Logged, id: string): boolean => loginsOf(one, habit, candidates).includes(id)
  const readings = (one: Logged): string[] => pathsOf(target.proxied ? one : { url: one.url, headers: {} })
  const isOpen = (one: Logged): boolean => one.route === 'open' || (one.route === undefined && (!one.upgrade || target.openToSockets === true) && one.url.split('?')[0] === open)
  const isSensitive = (one: Logged): boolean => one.route === 'sensitive' || ((one.route === undefined || one.upgrade) &&
    readings(one).some(read => read === path.sensitive || (target.below && read.startsWith(`${path.sensitive}/`))))

  /** Of a session that passed nothing: on anything not public, or on a public path with a header that names another. */
  const protectedHit = (one: Logged): boolean => readBy(one, ids.unverified) &&
    (!isOpen(one) || (target.proxied && readings(one).some(read => read === path.protected || read === path.sensitive)))
  const sensitiveHit = (one: Logged): boolean =>
    isSensitive(one) && !readBy(one, ids.fresh) && readBy(one, ids.verified)

  async function controls (): Promise<number> {
    const before = log.length
    const asked = (['GET', 'HEAD', 'POST', ...(target.sockets ? ['UPGRADE'] : [])])
      .flatMap(method => [
        request(method, path.protected, [target.fresh]),
        request(method, path.sensitive, [target.fresh]),
        request(method, path.protected, [target.verified])
      ])
    await sendAll(target.port, [...asked, request('GET', open, [target.unverified])])
    const seen = log.slice(before)
    const byFresh = seen.filter(one => readBy(one, ids.fresh))
    t.ok(byFresh.some(isSensitive), 'a fresh step-up opens what is sensitive')
    t.ok(seen.some(one => readBy(one, ids.verified)), 'a verified session is let through')
    t.ok(seen.some(one => readBy(one, ids.unverified) && isOpen(one)), 'what is public is open')
    return seen.length
  }

  async function group (name: string, all: readonly Attempt[], alone = false): Promise<void> {
    const { oneIn = 1 } = target
    // Which ones shifts from round to round, so that no method or path is left out.
    const attempts = target.ungated === true
      ? all.filter((_, index) => index % 7 < 2)
      : all.filter((_, index) => (index + Math.floor(index / oneIn)) % oneIn === 0)
    await t.test(`${target.name}: ${name}`, { timeout: 600_000 }, async t => {
      const before = log.length
      if (alone) {
        const left = attempts.values()
        await Promise.all(Array.from({ length: 6 }, async () => {
          for (const one of left) {
            const lane = createLane(target.port, 1_500)
            await lane.send(one.bytes, false)
            lane.close()
          }
        }))
      } else await sendAll(target.port, attempts)
      const wrong = log.slice(before).filter(one => protectedHit(one) || sensitiveHit(one))
      if (target.ungated === true) {
        t.ok(wrong.length > 0, `without a gate ${wrong.length} of ${attempts.length} do reach the console`)
        return
      }
      t.same(wrong.map(({ method, url, route, upgrade, headers }) => ({ method, url, route, upgrade, headers })).slice(0, 3), [], 'nothing reached the console')
      const passed = await controls()
      t.ok(passed > 0, 'and controls did')
      rows.push({ group: `${target.name}: ${name}`, sent: attempts.length, hits: wrong.length, controls: passed })
    })
  }

  const spelled = [...spellingsOf(path.protected, open), ...spellingsOf(path.sensitive, open)]
  for (const name of new Set(spelled.map(one => one.group))) {
    const mine = spelled.filter(one => one.group === name)
    for (const [state, header] of [['unverified', target.unverified], ['not stepped up', target.verified]] as const) {
      await group(`${name}, ${state}`, mine.flatMap(({ target: spelling }) => methods.map(method => request(method, spelling, [header]))))
    }
  }
  await group('headers', [['unverified', target.unverified], ['verified', target.verified]].flatMap(([, credential = '']) =>
    headerTricks(path.sensitive, open).flatMap(trick => [path.protected, path.sensitive, open].flatMap(where =>
      ['GET', 'POST', ...(target.sockets ? ['UPGRADE'] : [])].map(method => request(method, where, [credential, trick]))))))
  await group('boundaries', [target.unverified, target.verified].flatMap(credential =>
    [path.protected, path.sensitive].flatMap(where => framings(where, credential).map(bytes => ({ bytes })))), true)
  const logins = { cookie: target.cookie, victim: ids.unverified, own: ids.verified, binding: ids.binding }
  await group('two logins', twoLogins(logins).flatMap(({ headers, query = '' }) =>
    ['GET', 'POST', ...(target.sockets ? ['UPGRADE'] : [])].map(method => request(method, path.protected + query, headers))))
  return rows
}
