// The process of postern-gateway: reads the configuration, listens on two ports, drains on SIGTERM.

import type { AddressInfo } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import Fastify, { type FastifyInstance } from 'fastify'
import { diagnoseGateway } from './doctor.ts'
import { createGateway } from './server.ts'
import { describeSettings, readConfig, type Config } from './settings.ts'
import { PRESETS } from '../presets/index.ts'

const HELP = `postern-gateway: a second factor for a console whose code nobody touches

  postern-gateway
      Run the gateway.
  postern-gateway doctor [--upstream-public <url>]
      Check configuration, console, preset and service, and say what to do about each. With the address under which the
      console itself might be reached from outside, that nobody reaches it past the gateway.

Settings come from the environment and from the JSON file that POSTERN_GATEWAY_CONFIG names
({ "upstream": "http://127.0.0.1:21114", … }); the environment wins.

${describeSettings(PRESETS)}
`

const CLOCKS = { now: () => performance.now(), today: () => Date.now() }

/** Longest time from the end of the drain to exit. */
const CLOSE_MS = 10_000
/**
 * How much the heap may grow before all of it is collected, in percent; V8 goes as far where it thinks it pays. Bytes
 * that pass through count as growth, so a small heap would be collected for every 10 MB or so, at twice the CPU.
 */
const GROWTH = 300
/** How long an ending process waits for whoever reads its log. */
const LAST_MS = 1_000

function urlOf (app: FastifyInstance): string {
  const address: AddressInfo | string | null = app.server.address()
  if (address === null || typeof address === 'string') return String(address)
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}

/** Probes: alive while the process answers, ready until it drains. */
function operations (app: FastifyInstance, config: Config, draining: () => boolean): FastifyInstance {
  const probes = Fastify({ logger: false })
  probes.get('/livez', async () => ({ status: 'ok' }))
  probes.get('/readyz', async (_request, reply) => {
    const { mode, warnings } = app.posternReport()
    return await reply.code(draining() ? 503 : 200).send({
      status: draining() ? 'draining' : 'ok', preset: config.preset.name, mode, changes_heard: app.postern.live(), warnings
    })
  })
  return probes
}

async function run (): Promise<void> {
  const config = readConfig(process.env, PRESETS)
  setFlagsFromString(`--heap-growing-percent=${GROWTH}`)
  // Whoever reads the log may end before we do; that is no reason to end too.
  process.stdout.on('error', () => {})
  const app = await createGateway(config, CLOCKS)
  let draining = false
  const probes = operations(app, config, () => draining)
  await probes.listen({ host: config.operationsHost, port: config.operationsPort })
  await app.listen({ host: config.host, port: config.port })
  // Before anybody hears that we are ready: whoever does may ask us to stop at once.
  const stopping = new Promise<NodeJS.Signals>(resolve => {
    for (const one of ['SIGTERM', 'SIGINT'] as const) process.on(one, () => { resolve(one) })
  })
  app.log.info({ url: urlOf(app), operations: urlOf(probes), preset: config.preset.name }, 'ready')

  const signal = await stopping
  draining = true
  app.log.info({ signal }, 'draining')
  // Requests are still routed here for a moment after readiness went red; a person at a keyboard waits for nothing.
  if (signal === 'SIGTERM') await new Promise(resolve => { setTimeout(resolve, config.drainSeconds * 1000) })
  setTimeout(() => process.exit(1), CLOSE_MS).unref()
  await Promise.all([app.close(), probes.close()])
  // The last lines go out, where somebody reads.
  setTimeout(() => process.exit(0), LAST_MS).unref()
  await new Promise<void>(resolve => { process.stdout.write('', () => { resolve() }) })
  process.exit(0)
}

/** The address after --upstream-public; undefined where the words are no call of the doctor. */
function publicAddress (words: readonly string[]): { readonly upstreamPublic: string | undefined } | undefined {
  const [flag, address, ...more] = words
  if (flag === undefined) return { upstreamPublic: undefined }
  return flag === '--upstream-public' && address !== undefined && more.length === 0 ? { upstreamPublic: address } : undefined
}

/** Runs the command that these words are: the gateway itself, its doctor, or help. */
export async function main ([word, ...rest]: readonly string[]): Promise<void> {
  const looking = word === 'doctor' ? publicAddress(rest) : undefined
  if (word === '--help' || word === '-h' || word === 'help') {
    process.stdout.write(HELP)
  } else if (looking !== undefined) {
    const print = (line: string): void => { process.stdout.write(`${line}\n`) }
    process.exitCode = await diagnoseGateway({ env: process.env, presets: PRESETS, clocks: CLOCKS, print, ...looking })
  } else if (word !== undefined && (word !== 'serve' || rest.length > 0)) {
    process.stderr.write(`postern-gateway: "${word}" is not a command; postern-gateway --help lists what there is\n`)
    process.exitCode = 2
  } else {
    await run().catch((error: unknown) => {
      process.stderr.write(`postern-gateway: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exit(1)
    })
  }
}
