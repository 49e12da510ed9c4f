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
const STARTS = 4
/** One start may find another layout of memory, or other code compiled first, and differ by more than the gate. */
const SLICES_A_START = 3

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
  const connection = await connectTo(url)
  while (!json<boolean>(await connection.ask('GET', '/live')));
  for (const session of sessions) json(await connection.ask('GET', '/devices', `cookie: sid=${session}\r\n`))
  connection.close()
}

/** How many questions of gates the service has answered. */
async function questions ({ operations }: Service): Promise<number> {
  const line = await connectTo(operations)
  const { body } = await line.ask('GET', '/metrics')
  line.close()
  return [...body.toString().matchAll(/^postern_request_seconds_count\{[^}]*assurances[^}]*\} (\d+)/gm)]
    .reduce((sum, [, count]) => sum + Number(count), 0)
}

/** CPU that a request costs more with the plugin, over several starts of both. */
async function differences (service: Service, plan: Plan, starts: number): Promise<readonly Figure[]> {
  const kept = { one: [] as number[], many: [] as number[] }
  for (let start = 0; start < starts; start++) {
    const cleaning = createCleaning()
    try {
      const [bare, gated] = await Promise.all([startConsole(cleaning), startConsole(cleaning, service)])
      await introduce(gated)
      const things = { bare: asking('', bare, any), one: asking('', gated, one), many: asking('', gated, any) }
      for (const thing of [things.bare, things.many]) await slice(thing, plan.warmMs, plan.connections)
      const cpu = { bare: [] as number[], one: [] as number[], many: [] as number[] }
      for (let i = 0; i < SLICES_A_START; i++) {
        for (const name of ['bare', 'one', 'many'] as const) {
          cpu[name].push((await slice(things[name], plan.sliceMs / 2, plan.connections)).cpuMicros)
        }
      }
      for (const name of ['one', 'many'] as const) kept[name].push(median(cpu[name]) - median(cpu.bare))
    } finally {
      await cleaning.clean()
    }
  }
  const figure = (name: string, values: readonly number[]): Figure => ({
    name,
    value: `${median(values).toFixed(1)} µs (${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)} over ${starts} starts)`,
    must: '≤ 3 µs',
    kept: median(values) <= 3
  })
  return [
    figure('CPU more a request than ungated, 1 session', kept.one),
    figure(`CPU more a request than ungated, ${SESSIONS} sessions`, kept.many)
  ]
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

  // A gate of its own: it would forget who is known for all that are not.
  const strange = await startConsole(t, service)
  const others = [...known, asking('gated, all sessions unknown', strange, unknown)]
  if (!quick) {
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
      ...(quick ? [] : await differences(service, plan, STARTS)),
      { name: `questions to the service in ${answered} requests of known sessions`, value: String(asked), must: '0', kept: asked === 0 }
    ]
  }
}
