// Faults around the processes themselves: nobody reads the log, everything starts at once, replicas end in the midst
// of what they do.

import { Writable } from 'node:stream'
import t from 'tap'
import { createLogStream } from '../../service/src/adapters/log.ts'
import { until } from '../helpers/redis-shapes.ts'
import { enrolled, startReplicas, STEP_MS } from '../helpers/replicas.ts'
import { by, totpCode } from '../helpers/service.ts'

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
  await until('the log to be read', async () => { go(); return output.writableLength === 0 })
  log.write(line)
  await until('the rest to be read', async () => { go(); return output.writableLength === 0 })
  t.equal(read.length, 1024 + 2)
  t.match(JSON.parse(read[1024] ?? ''), { level: 40, dropped: 2000 - 1024 })
})
