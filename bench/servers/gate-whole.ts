// What a request costs more with the plugin, whole: the same console with and without it in one process, asked in turn
// without a network, whose cost changes by more than the gate's from one moment to the next. GET /whole answers
// microseconds of CPU a request, one number a batch.

import { randomInt } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { createConsole } from './console-app.ts'

const { SERVICE = '', KEY = '' } = process.env
const SESSIONS = 5_000
const BATCHES = 16
/** Until what is compiled while it runs is compiled. */
const WARM = 4
const TIMES = 1_500

const behind = { service: SERVICE, tenantKey: KEY }
const [bare, gated] = [await createConsole(undefined), await createConsole(behind)]
const cookies = Array.from({ length: SESSIONS }, (_, i) => `sid=u${i}.${'0123456789abcdef'.repeat(2)}`)

async function ask (app: FastifyInstance, cookie: string): Promise<void> {
  const { statusCode, body } = await app.inject({ url: '/devices', headers: { cookie } })
  if (statusCode !== 200) throw new Error(`${statusCode} ${body}`)
}

async function batch (app: FastifyInstance, pick: () => string): Promise<number> {
  const began = process.cpuUsage()
  for (let i = 0; i < TIMES; i++) await ask(app, pick())
  const { user, system } = process.cpuUsage(began)
  return (user + system) / TIMES
}

const one = (): string => cookies[0] ?? ''
const any = (): string => cookies[randomInt(SESSIONS)] ?? ''

const app = await createConsole(undefined)
app.get('/whole', async () => {
  while ((await gated.inject('/live')).body !== 'true') await new Promise(resolve => { setTimeout(resolve, 20) })
  for (const cookie of cookies) await ask(gated, cookie)
  const micros = { bare: [] as number[], again: [] as number[], one: [] as number[], many: [] as number[] }
  for (let i = 0; i < BATCHES; i++) {
    const round = {
      bare: await batch(bare, any),
      one: await batch(gated, one),
      many: await batch(gated, any),
      again: await batch(bare, any)
    }
    if (i >= WARM) for (const name of ['bare', 'again', 'one', 'many'] as const) micros[name].push(round[name])
  }
  return micros
})
process.stdout.write(`listening ${await app.listen({ port: 0, host: '127.0.0.1' })}\n`)
