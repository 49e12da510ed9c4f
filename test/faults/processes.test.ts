// Faults around the processes themselves: nobody reads the log, everything starts at once, replicas end in the midst
// of what they do.

import { connect } from 'node:net'
import { Writable } from 'node:stream'
import t from 'tap'
import { createLogStream } from '../../service/src/adapters/log.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { dataFolder, serve, settingsIn } from '../helpers/processes.ts'
import { freePort, startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/redis-shapes.ts'
import { startRelay, type Relay } from '../helpers/relay.ts'
import { encoded, enrolled, startReplicas, STEP_MS, type Replica } from '../helpers/replicas.ts'
import { seeded } from '../helpers/seeded.ts'
import { by, totpCode } from '../helpers/service.ts'
import { startSmtpSink } from '../helpers/smtp-sink.ts'

t.test('C-38: nobody reads the log: calls and probes are answered all the same, and the process ends when it is told to', async t => {
  // A line for each answer.
  const service = await startReplicas(t, { POSTERN_LOG_LEVEL: 'debug' }, { count: 1 })
  const [replica] = service.replicas
  if (replica === undefined) throw new Error('no replica')
  const person = await enrolled(service, 'ann')
  const who = by('ann', 'owner', 'owner')
  replica.read(false)
  // More lines than any pipe holds: a process that waited for its reader would stand still long before.
  const padding = { 'x-request-id': 'x'.repeat(64) }
  const flood = async (): Promise<number[]> => await Promise.all(Array.from({ length: 4 }, async () => {
    let answered = 0
    for (let index = 0; index < 500; index++) {
      const { status } = await service.ask('GET', `/v1/assurances/${who.session}`, undefined, padding)
      if (status > 0) answered += 1
    }
    return answered
  }))
  t.same(await flood(), [500, 500, 500, 500])
  t.equal((await fetch(`${replica.operations}/livez`)).status, 200)
  const { body } = await service.open(who)
  t.equal((await service.answer(who, body.challenge.id, totpCode(person.key, (person.step + 1) * STEP_MS))).status, 200)

  replica.read(true)
  const last = { 'x-request-id': 'the-last-of-all' }
  await service.ask('GET', `/v1/assurances/${who.session}`, undefined, last)
  await until('all lines', async () => replica.output.join('').includes('the-last-of-all'))
  const lines = replica.output.join('').split('\n').filter(line => line.includes('x'.repeat(64)))
  t.equal(lines.length, 2000, 'none was lost while there was room')

  replica.read(false)
  await flood()
  replica.stop()
  await until('the process to end', async () => {
    try { process.kill(replica.pid, 0) } catch { return true }
    return false
  })
  replica.read(true)
  t.equal((await replica.ended).code, 0)
})

t.test('C-38: what is logged while somebody reads is out before a crash', async t => {
  const service = await startReplicas(t, { POSTERN_LOG_LEVEL: 'debug' }, { count: 1 })
  await service.ask('GET', '/v1/assurances/x', undefined, { 'x-request-id': 'before-the-crash' })
  // A line follows its answer: by the next answer the one before has its line.
  await service.ask('GET', '/v1/assurances/x')
  service.replicas[0]?.stop('SIGKILL')
  t.match((await service.replicas[0]?.ended)?.out, /before-the-crash/)
})

t.test('C-38: of a log that nobody reads a mebibyte waits, what comes beyond is counted, and the log says so when it is read again', async t => {
  const read: string[] = []
  let go = (): void => {}
  const output = new Writable({
    decodeStrings: false,
    write: (line, _encoding, done) => { read.push(String(line)); go = done }
  })
  const log = createLogStream(output)
  const line = `${'x'.repeat(1023)}\n`
  for (let index = 0; index < 2000; index++) log.write(line)
  t.equal(log.dropped(), 2000 - 1024)
  await log.flushed()
  t.ok(output.writableLength > 0, 'an end does not wait for ever')
  const readAll = async (): Promise<void> => {
    while (output.writableLength > 0) {
      go()
      await new Promise(resolve => { setImmediate(resolve) })
    }
  }
  await readAll()
  log.write(line)
  await readAll()
  t.equal(read.length, 1024 + 2)
  t.match(JSON.parse(read[1024] ?? ''), { level: 40, dropped: 2000 - 1024 })
})

t.test('C-40: replicas, Redis and PostgreSQL start in any order: each replica waits, and none serves before both are there', async t => {
  const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
  const { url } = await postgres.fresh()
  const [toRedis, toPostgres] = [await startRelay(t, redis.port), await startRelay(t, postgres.port)]
  const shapes = [
    {
      name: 'with Redis',
      redis: { POSTERN_REDIS: `redis://127.0.0.1:${toRedis.port}` },
      replicas: 3,
      servers: [toRedis, toPostgres]
    },
    // Without Redis one process may serve.
    { name: 'without Redis', redis: {}, replicas: 1, servers: [toPostgres] }
  ]
  const random = seeded(40)
  const { settings } = settingsIn(dataFolder(t), { POSTERN_DATABASE: url.replace(`:${postgres.port}/`, `:${toPostgres.port}/`) })
  for (const shape of shapes) {
    await t.test(shape.name, async t => {
      for (const server of shape.servers) server.closed = true
      const early: string[] = []
      const ended: unknown[] = []
      const running: Promise<Replica>[] = []
      const all = { up: false }
      const start = async (): Promise<void> => {
        const [port, operations] = [await freePort(), await freePort()]
        const ports = { POSTERN_PORT: String(port), POSTERN_OPERATIONS_PORT: String(operations) }
        const env = { ...settings, ...shape.redis, ...ports }
        /** Starts it again when it gave up, as any supervisor does. */
        const supervised = async (): Promise<Replica> => {
          for (;;) {
            try {
              return await serve(t, env)
            } catch (error) {
              ended.push(error)
            }
          }
        }
        const replica = supervised()
        running.push(replica)
        void (async () => {
          while (!all.up) {
            for (const at of [port, operations]) {
              await fetch(`http://127.0.0.1:${at}/readyz`).then(({ status }) => { early.push(`${at}: ${status}`) }, () => {})
            }
            await new Promise(resolve => { setTimeout(resolve, 20) })
          }
        })()
      }
      const open = (server: Relay) => async (): Promise<void> => {
        // Whoever is here already asked in vain, more than once.
        if (running.length > 0 && shape.servers.every(one => one.closed)) {
          const before = toPostgres.refused()
          await until('replicas to ask again', async () => toPostgres.refused() >= before + 2)
          if (running.length === 1) t.same(ended, [], 'it waits')
        }
        if (shape.servers.every(one => one === server || !one.closed)) all.up = true
        server.closed = false
      }
      const steps = [...Array.from({ length: shape.replicas }, () => start), ...shape.servers.map(open)]
        .map(step => ({ step, at: random() })).sort((a, b) => a.at - b.at)
      // One replica at least is there first.
      await start()
      steps.splice(steps.findIndex(({ step }) => step === start), 1)
      for (const { step } of steps) await step()
      const replicas = await Promise.all(running)
      t.same(early, [], 'nobody answered before everything was there')
      t.equal(replicas.length, shape.replicas)
      for (const { operations } of replicas) t.equal((await fetch(`${operations}/readyz`)).status, 200)
      await Promise.all(replicas.map(async one => { one.stop(); await one.ended }))
    })
  }
})

t.test('C-21: replicas are told to end while codes and mails are under way: each code is good at another one, and no mail goes out twice', async t => {
  const sink = await startSmtpSink(t)
  const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
  const service = await startReplicas(t, {
    POSTERN_DATABASE: (await postgres.fresh()).url,
    POSTERN_REDIS: redis.url,
    POSTERN_SMTP: `smtp://127.0.0.1:${sink.port}`,
    POSTERN_SMTP_TLS: 'none'
  }, { count: 2 })
  const random = seeded(21)
  const counts = { answered: 0, repeated: 0 }
  for (let run = 0; run < 10; run++) {
    const codes = await Promise.all([0, 1].map(async index => {
      const person = await enrolled(service, `person ${run} ${index}`)
      const who = by(person.name)
      const { body } = await service.open(who, 1)
      return { who, id: body.challenge.id as string, code: totpCode(person.key, (person.step + 1) * STEP_MS) }
    }))
    const readers = [0, 1].map(index => `reader-${run}-${index}`)
    const answering = codes.map(async ({ who, id, code }) => await service.answer(who, id, code, `key-${id}`, 0))
    const mailing = readers.map(async name => await service.ask(
      'POST', `/v1/subjects/${encoded(name)}/email`, { by: by(name), address: `${name}@x.example` }, {}, 0))
    await new Promise(resolve => { setTimeout(resolve, random() * 60) })
    service.replicas[0]?.stop('SIGTERM')
    t.equal((await service.replicas[0]?.ended)?.code, 0, 'it ends well')
    for (const [index, { who, id, code }] of codes.entries()) {
      const first = await answering[index]
      if (first?.status === 200) counts.answered += 1
      else {
        // Never taken, or cut off.
        t.equal(first?.status, 0)
        t.equal((await service.answer(who, id, code, `key-${id}`, 1)).status, 200, 'the same request at another replica')
        counts.repeated += 1
      }
      t.equal((await service.question(who, 1)).body.status, 'verified')
    }
    for (const [index, name] of readers.entries()) {
      const { status } = await mailing[index] ?? { status: 0 }
      const copies = sink.messages.filter(text => text.includes(`${name}@x.example`)).length
      if (status === 200) t.equal(copies, 1, 'what was promised is out before the end, once')
      else t.ok(copies <= 1)
    }
    await service.restart(0)
  }
  t.comment(`${counts.answered} were answered, ${counts.repeated} repeated`)
  for (const text of new Set(sink.messages)) t.equal(sink.messages.filter(one => one === text).length, 1)
  const { body } = await service.asAdmin('GET', '/v1/events?limit=1000')
  const accepted = (body.events as { kind: string, purpose: string, outcome: string, subject: string }[])
    .filter(({ kind, purpose, outcome }) => kind === 'verification' && purpose === 'login' && outcome === 'accepted')
  t.equal(accepted.length, 20)
  t.equal(new Set(accepted.map(({ subject }) => subject)).size, 20, 'each code was accepted once')
})

t.test('C-35: 2,000 clients that send a request and never its body are ended, and others are answered meanwhile', async t => {
  const service = await startReplicas(t, {}, { count: 1 })
  const person = await enrolled(service, 'ann')
  const who = by('ann', 'owner', 'owner')
  const port = Number(new URL(service.replicas[0]?.url ?? '').port)
  const heads: string[] = []
  let ended = 0
  const slow = async (): Promise<void> => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    socket.on('data', data => { heads.push(data.toString('latin1').slice(0, 12)) })
    socket.on('error', () => {}).on('close', () => { ended += 1 })
    await new Promise<void>(resolve => { socket.once('connect', resolve).once('close', () => { resolve() }) })
    socket.write(`POST /v1/challenges HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${service.gate}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`)
  }
  for (let batch = 0; batch < 20; batch++) await Promise.all(Array.from({ length: 100 }, slow))
  const held = 2000 - ended
  t.ok(held > 1000, `${held} are waited for`)
  t.equal((await service.question(who)).status, 200)
  const { body } = await service.open(who)
  t.equal((await service.answer(who, body.challenge.id, totpCode(person.key, (person.step + 1) * STEP_MS))).status, 200)
  await until('all to be ended', async () => ended === 2000)
  t.same([...new Set(heads)], ['HTTP/1.1 408'])
  t.equal((await service.question(who)).status, 200)
})
