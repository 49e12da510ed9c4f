// What the gate does itself for a session that it knows: its three hooks, called one after the other on a request that
// really came, with an `identify` that returns what it has. The built files: what loads TypeScript names each function
// as it is made, which costs more than the gate. GET /own answers nanoseconds of CPU, one number a batch.

import fastify from 'fastify'
import { parseOptions } from '../../plugin/dist/options.js'
import { createPostern } from '../../plugin/dist/postern.js'

const { SERVICE = '', KEY = '' } = process.env
const BATCHES = 20
/** Until what is compiled while it runs is compiled. */
const WARM = 8
const TIMES = 200_000

const identity = { subject: 'u0', session: 'u0.known', kind: 'cookie' } as const
const app = fastify()
const gate = createPostern({
  app,
  settings: parseOptions({
    service: SERVICE,
    tenantKey: KEY,
    publicOrigin: 'http://127.0.0.1:1',
    credentials: { cookies: ['sid'] },
    timeoutMs: 10_000,
    identify: () => identity
  }, Date.now()),
  now: () => performance.now(),
  today: () => Date.now()
})
const { posternGate, posternCode, posternLateIdentity } = gate.hooks
app.addHook('onReady', gate.ready)
app.addHook('onClose', gate.close)
app.addHook('preParsing', posternGate)

app.get('/own', async (request, reply) => {
  let passed = 0
  const next = (error?: Error | null): void => { if (error == null) passed++ }
  const nanos: number[] = []
  for (let batch = 0; batch < BATCHES; batch++) {
    const began = process.cpuUsage()
    for (let i = 0; i < TIMES; i++) {
      posternGate(request, reply, request.raw, next)
      posternCode(request, reply, next)
      posternLateIdentity(request, reply, next)
    }
    const { user, system } = process.cpuUsage(began)
    nanos.push((user + system) * 1_000 / TIMES)
    // The stream of changes is heard in between.
    await new Promise(resolve => { setImmediate(resolve) })
  }
  // Each call went on at once, synchronously: nothing was asked of anybody.
  return { nanos: nanos.slice(WARM), passed, expected: BATCHES * TIMES * 3 }
})
process.stdout.write(`listening ${await app.listen({ port: 0, host: '127.0.0.1' })}\n`)
