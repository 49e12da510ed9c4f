// Gate: the same console with and without the plugin.

import { randomBytes, randomInt } from 'node:crypto'
import { dataFolder, serve, settingsIn } from '../test/helpers/processes.ts'
import { startRedis } from '../test/helpers/redis.ts'
import type { Teardown } from '../test/helpers/service.ts'
import { connectTo, json, WrongAnswer } from './connection.ts'
import { compare, median, slice, type Plan, type Thing } from './harness.ts'
import { startSessions } from './peers.ts'
import type { Figure, Part } from './report.ts'
import { createCleaning, startServer, type Started } from './servers.ts'

const SESSIONS = 5_000
/** One start may find another layout of memory, or other code compiled first, and differ by more than the gate. */
const STARTS = 4
/** Of each start: so short that what else the machine does falls on all of them. */
const ROUNDS = 16
const SLICE_MS = 80
const WARM_MS = 1_000
const LINES = 8

/** Well before the gate forgets. */
const ANEW_MS = 30_000

interface Service { readonly url: string, readonly operations: string, readonly key: string }

const sessions = Array.from({ length: SESSIONS }, (_, i) => `u${i}.${randomBytes(16).toString('hex')}`)

/** Asks the console for its document with a session of `pick`; the document must be that session's. */
function asking (name: string, { url, pid }: Started, pick: () => string): Thing {
  return {
    name,
    url,
    pids: [pid],
    operation: async connection => {
      const session = pick()
      const { user } = json<{ user: string }>(await connection.ask('GET', '/devices', `cookie: sid=${session}\r\n`))
      if (user !== session.slice(0, session.indexOf('.'))) throw new WrongAnswer(`${user} instead of ${session}`)
    }
  }
}

const one = (): string => sessions[0] ?? ''
const any = (): string => sessions[randomInt(SESSIONS)] ?? ''
const unknown = (): string => `u${randomInt(SESSIONS)}.${randomBytes(16).toString('hex')}`

const startConsole = async (t: Teardown, service?: Service): Promise<Started> =>
  await startServer(t, 'servers/console.ts', service === undefined ? {} : { SERVICE: service.url, KEY: service.key })

/** Every session asks once, so that the gate knows it; while it hears the changes, it remembers for a minute. */
async function introduce ({ url }: Started): Promise<void> {
  const connections = await Promise.all(Array.from({ length: LINES }, async () => await connectTo(url)))
  const left = sessions.values()
  await Promise.all(connections.map(async connection => {
    while (!json<boolean>(await connection.ask('GET', '/live')));
    for (const session of left) json(await connection.ask('GET', '/devices', `cookie: sid=${session}\r\n`))
    connection.close()
  }))
}

/** How many questions of gates the service has answered. */
async function questions ({ operations }: Service): Promise<number> {
  const line = await connectTo(operations)
  const { body } = await line.ask('GET', '/metrics')
  line.close()
  return [...body.toString().matchAll(/^postern_request_seconds_count\{[^}]*assurances[^}]*\} (\d+)/gm)]
    .reduce((sum, [, count]) => sum + Number(count), 0)
}

/** CPU that a request costs more with the plugin, over several starts of the console with it and twice without. */
async function differences (service: Service, starts: number): Promise<readonly Figure[]> {
  const kept = { again: [] as number[], one: [] as number[], many: [] as number[] }
  for (let start = 0; start < starts; start++) {
    const cleaning = createCleaning()
    try {
      const [bare, again, gated] = await Promise.all(
        [undefined, undefined, service].map(async behind => await startConsole(cleaning, behind)))
      if (bare === undefined || again === undefined || gated === undefined) throw new TypeError('three were started')
      await introduce(gated)
      const things = {
        bare: await meter(bare, any),
        one: await meter(gated, one),
        many: await meter(gated, any),
        again: await meter(again, any)
      }
      const names = ['bare', 'one', 'many', 'again'] as const
      for (const name of names) await things[name](WARM_MS)
      const more = { again: [] as number[], one: [] as number[], many: [] as number[] }
      for (let round = 0; round < ROUNDS; round++) {
        const taken = { bare: 0, one: 0, many: 0, again: 0 }
        for (const name of round % 2 === 0 ? names : [...names].reverse()) taken[name] = await things[name](SLICE_MS)
        const mean = (taken.bare + taken.again) / 2
        more.one.push(taken.one - mean)
        more.many.push(taken.many - mean)
        more.again.push(taken.again - taken.bare)
      }
      for (const name of ['again', 'one', 'many'] as const) kept[name].push(median(more[name]))
    } finally {
      await cleaning.clean()
    }
  }
  const range = (values: readonly number[]): string =>
    `${median(values).toFixed(1)} µs (${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)} over ${starts} starts)`
  const figure = (name: string, values: readonly number[]): Figure =>
    ({ name, value: range(values), must: '≤ 3 µs', kept: median(values) <= 3 })
  return [
    figure('CPU more a request than ungated, 1 session', kept.one),
    figure(`CPU more a request than ungated, ${SESSIONS} sessions`, kept.many),
    { name: 'the same of the ungated console to itself', value: range(kept.again) }
  ]
}

/** Asks a console for some time: microseconds of CPU a request, as its process counts them. */
async function meter (console: Started, pick: () => string): Promise<(ms: number) => Promise<number>> {
  const line = await connectTo(console.url)
  const cpu = async (): Promise<number> => json<number>(await line.ask('GET', '/cpu'))
  const thing = asking('', console, pick)
  return async ms => {
    const before = await cpu()
    const { operations } = await slice(thing, ms, LINES)
    return (await cpu() - before) / operations
  }
}

async function ownWork (t: Teardown, service: Service): Promise<Figure> {
  const { url } = await startServer(t, 'servers/gate-own.ts', { SERVICE: service.url, KEY: service.key })
  const line = await connectTo(url)
  const headers = 'cookie: sid=u0.known\r\nuser-agent: Mozilla/5.0\r\naccept: text/html\r\naccept-language: en\r\n'
  const { nanos, passed, expected } = json<{ nanos: number[], passed: number, expected: number }>(
    await line.ask('GET', '/own', headers))
  line.close()
  if (passed !== expected) throw new WrongAnswer(`${passed} of ${expected} hooks went on at once`)
  const micros = median(nanos) / 1_000
  return { name: 'the gate\'s own work, session known', value: `${micros.toFixed(2)} µs`, must: '≤ 1 µs', kept: micros <= 1 }
}

export async function gate (t: Teardown, plan: Plan, quick: boolean): Promise<Part> {
  const { settings, gate: key } = settingsIn(dataFolder(t), { POSTERN_SHED_AFTER_MS: '10000' })
  const service: Service = { ...await serve(t, settings), key }
  const [bare, gated] = await Promise.all([startConsole(t), startConsole(t, service)])
  await introduce(gated)
  // A gate remembers for a minute; all of them asking anew within one slice would be another thing.
  let introduced = performance.now()
  const before = async (): Promise<void> => {
    if (performance.now() - introduced < ANEW_MS) return
    await introduce(gated)
    introduced = performance.now()
  }
  const known = [asking('gated, 1 session', gated, one), asking(`gated, ${SESSIONS} sessions`, gated, any)]
    .map(thing => ({ ...thing, before }))

  // What is counted here goes on for less than the time for which a gate remembers.
  const counted = await questions(service)
  let answered = 0
  for (const thing of known) {
    answered += (await slice({ ...thing, before: undefined }, plan.sliceMs, plan.connections)).operations
  }
  const asked = await questions(service) - counted

  const others: Thing[] = [...known]
  // What a quick look leaves out takes long to warm, and differs most from itself.
  if (!quick) {
    // A gate of its own: it would forget who is known for all that are not.
    others.push(asking('gated, all sessions unknown', await startConsole(t, service), unknown))
    const peer = await startSessions(t, (await startRedis(t)).url, SESSIONS)
    others.push({
      name: 'Express with express-session in Redis',
      url: peer.url,
      pids: [peer.pid],
      operation: async connection => {
        const cookie = peer.cookies[randomInt(SESSIONS)] ?? ''
        const { hello } = json<{ hello: string }>(await connection.ask('GET', '/', `cookie: ${cookie}\r\n`))
        if (hello !== 'world') throw new WrongAnswer(hello)
      }
    })
  }
  const table = await compare('A console behind the gate', {
    operation: 'a request for a small document',
    plan,
    baseline: asking('the same console ungated', bare, any),
    others
  })
  return {
    tables: [table],
    figures: [
      await ownWork(t, service),
      ...(quick ? [] : await differences(service, STARTS)),
      { name: `questions to the service in ${answered} requests of known sessions`, value: String(asked), must: '0', kept: asked === 0 }
    ]
  }
}
