// The end of a process: nothing under way is lost, nobody is cut off, and nobody who keeps a connection holds it up.

import { Agent, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { printedTable } from './helpers/fault-table.ts'
import { startPostgres } from './helpers/postgres.ts'
import { dataFolder, serve, settingsIn } from './helpers/processes.ts'
import { startRedis } from './helpers/redis.ts'
import { until } from './helpers/redis-shapes.ts'
import { by, type Teardown } from './helpers/service.ts'
import { handOver } from './helpers/tables.ts'
import { startSmtpSink } from './helpers/smtp-sink.ts'

/** A connection of one's own: what is written goes out as it is, what comes is kept. */
function wire (t: Teardown, url: string) {
  const { port, hostname } = new URL(url)
  const socket: Socket = connect(Number(port), hostname)
  let text = ''
  let ended = false
  socket.on('data', data => { text += data.toString('latin1') })
  socket.on('close', () => { ended = true })
  socket.on('error', () => {})
  t.teardown(() => { socket.destroy() })
  return {
    say: (...lines: readonly string[]) => { socket.write(lines.join('\r\n')) },
    heard: async (words: RegExp, times = 1) =>
      await until(`${String(words)} in ${text}`, async () => [...text.matchAll(new RegExp(words, 'g'))].length >= times),
    gone: async () => { await until('the connection to end', async () => ended) },
    text: () => text
  }
}

t.test('C-20 C-21: SIGTERM turns readiness red, serves on, then ends each connection as it falls idle, with a mail in flight', async t => {
  let take: (() => void) | undefined
  const taken = new Promise<void>(resolve => { take = resolve })
  const sink = await startSmtpSink(t, async step => {
    if (step === 'message') await taken
    return undefined
  })
  const { settings, gate } = settingsIn(dataFolder(t), {
    POSTERN_DRAIN_SECONDS: '3', POSTERN_SMTP: `smtp://127.0.0.1:${sink.port}`, POSTERN_SMTP_TLS: 'none'
  })
  const service = await serve(t, settings)
  const ann = by('ann')
  const head = (method: string, path: string) => [`${method} ${path} HTTP/1.1`, 'Host: x', `Authorization: Bearer ${gate}`]
  const question = [
    ...head('GET', `/v1/assurances/${ann.session}`), `Postern-Subject: ${Buffer.from('ann').toString('base64url')}`, `Postern-Browser: ${ann.browser}`, '', ''
  ]
  const body = JSON.stringify({ by: ann, purpose: 'login' })
  const opening = [...head('POST', '/v1/challenges'), 'Content-Type: application/json', `Content-Length: ${body.length}`, '', '']

  const idle = wire(t, service.url)
  idle.say(...question)
  await idle.heard(/HTTP\/1\.1 200/)
  const kept = wire(t, service.url)
  kept.say(...question)
  await kept.heard(/HTTP\/1\.1 200/)
  t.notMatch(kept.text(), /connection: close/i)
  const silent = wire(t, service.url)
  const halfway = wire(t, service.url)
  halfway.say('GET / HTTP/1.1', 'Host: x', '')
  const stream = wire(t, service.url)
  stream.say(...head('GET', '/v1/changes'), '', '')
  await stream.heard(/event: newest/)
  const probe = wire(t, service.operations)
  probe.say('GET /readyz HTTP/1.1', 'Host: x', '', '')
  await probe.heard(/HTTP\/1\.1 200/)
  const mailed = await fetch(`${service.url}/v1/subjects/${Buffer.from('ann').toString('base64url')}/email`, {
    method: 'POST',
    headers: { authorization: `Bearer ${gate}`, 'content-type': 'application/json' },
    body: JSON.stringify({ by: ann, address: 'ann@x.example' })
  })
  t.equal(mailed.status, 200)
  await until('the mail server to have the text', async () => sink.messages.length === 1)
  const slow = wire(t, service.url)
  slow.say(opening.join('\r\n') + body.slice(0, 10))

  service.stop('SIGTERM')
  const red = await until('readiness to be red', async () => {
    const answer = await fetch(`${service.operations}/readyz`)
    return answer.status === 503 && await answer.json() as unknown
  })
  t.match(red, { status: 'draining' })
  kept.say(...question)
  await kept.heard(/HTTP\/1\.1 200/, 2)
  t.match(kept.text(), /connection: close/i, 'the next request goes elsewhere')
  await kept.gone()
  const late = wire(t, service.url)
  late.say(...question)
  await late.heard(/HTTP\/1\.1 200/)
  t.match(late.text(), /connection: close/i, 'a connection that comes late is served too')
  await until('the port to be closed', async () => await new Promise<boolean>(resolve => {
    const { port, hostname } = new URL(service.url)
    const socket = connect(Number(port), hostname, () => { socket.destroy(); resolve(false) })
    socket.on('error', () => { resolve(true) })
  }))
  slow.say(body.slice(10))
  await slow.heard(/HTTP\/1\.1 200/)
  t.match(slow.text(), '{"status":"not_required"}', 'a request that was under way is answered whole')
  for (const one of [idle, silent, halfway, stream, probe, slow]) await one.gone()
  take?.()
  const { code, out } = await service.ended
  t.equal(code, 0, out)
  t.equal(sink.messages.length, 1)
  t.ok(sink.said.length > 0)
})

t.test('C-20: three replicas are replaced one by one under load, and no request fails', async t => {
  const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
  const { url } = await postgres.fresh()
  const { settings, gate } = settingsIn(dataFolder(t), {
    POSTERN_DATABASE: url,
    POSTERN_REDIS: redis.url,
    POSTERN_DRAIN_SECONDS: '2',
    // A machine that starts three services at once is slow for other reasons than a restart.
    POSTERN_REDIS_TIMEOUT_MS: '2000',
    POSTERN_SHED_AFTER_MS: '10000'
  })
  type Replica = Awaited<ReturnType<typeof serve>> & { ready: boolean }
  const replicas: Replica[] = []
  const outputs: string[][] = []
  const start = async () => {
    const started = await serve(t, settings)
    outputs.push(started.output)
    replicas.push({ ...started, ready: true })
  }
  await start()
  await Promise.all([start(), start()])

  // A balancer: keeps connections, asks each replica now and then whether it is ready, and repeats nothing.
  const agent = new Agent({ keepAlive: true })
  t.teardown(() => { agent.destroy() })
  const load = { done: false }
  const watching = (async () => {
    while (!load.done) {
      await Promise.all(replicas.map(async one => {
        one.ready = await fetch(`${one.operations}/readyz`).then(({ ok }) => ok, () => false)
      }))
      await delay(100)
    }
  })()
  let sent = 0
  let longestMs = 0
  const failed: string[] = []
  const call = async (method: string, path: string, headers: Record<string, string>, body?: string): Promise<void> => {
    const ready = replicas.filter(one => one.ready)
    const replica = ready[sent++ % ready.length]
    if (replica === undefined) throw new Error('no replica is ready')
    const asked = performance.now()
    const status = await new Promise<number | string>(resolve => {
      const asking = request(replica.url + path, { agent, method, headers: { authorization: `Bearer ${gate}`, ...headers } }, response => {
        response.resume().on('end', () => { resolve(response.statusCode ?? 0) }).on('error', error => { resolve(error.message) })
      })
      asking.on('error', error => { resolve(error.message) }).end(body)
    })
    longestMs = Math.max(longestMs, performance.now() - asked)
    if (status !== 200) failed.push(`${method} ${status}`)
  }
  const worker = async (name: string): Promise<void> => {
    const who = by(name)
    for (let due = performance.now(); !load.done; due = Math.max(due + 100, performance.now() - 1_000)) {
      await delay(Math.max(0, due - performance.now()))
      await call('GET', `/v1/assurances/${who.session}`, {
        'postern-subject': Buffer.from(name).toString('base64url'), 'postern-browser': who.browser
      })
      await call('POST', '/v1/challenges', { 'content-type': 'application/json' }, JSON.stringify({ by: who, purpose: 'login' }))
    }
  }
  // Twelve people with two requests each tenth of a second: over 200 a second, or what the machine can; who was held up
  // catches up with a second of it.
  const workers = Array.from({ length: 12 }, async (_, index) => { await worker(`person ${index}`) })
  const ends: number[] = []
  const began = performance.now()
  for (const old of [...replicas]) {
    await start()
    old.stop('SIGTERM')
    const { code } = await old.ended
    ends.push(code ?? -1)
    replicas.splice(replicas.indexOf(replicas.find(one => one.pid === old.pid) ?? replicas[0] as Replica), 1)
  }
  load.done = true
  await Promise.all([watching, ...workers])
  t.same(ends, [0, 0, 0])
  t.same(failed, [], outputs.flat().join('').split('\n').filter(line => line.includes('unavailable')).join('\n'))
  t.ok(sent > 100, `${sent} requests`)
  handOver('faults', [{
    fault: `C-20 service: three replicas replaced at ${Math.round(sent / (performance.now() - began) * 1000)}/s, ${failed.length} failed`,
    answers: sent,
    longestMs
  }], printedTable)
})
