// postern serve: builds, listens on two ports, drains on SIGTERM.

import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { after, unlessEnded } from '../adapters/clock.ts'
import { buildApp, type App } from '../app.ts'
import { ConfigError, readConfig } from '../config.ts'
import type { Command, Io } from './command.ts'
import { letYoungMemoryGrow } from './young-memory.ts'

/** Longest time from the end of the drain to exit. */
const CLOSE_MS = 10_000

const urlOf = (app: FastifyInstance): string => {
  const address: AddressInfo | string | null = app.server.address()
  if (address === null || typeof address === 'string') return String(address)
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}

/** Resolves with the signal that asks to stop. */
async function asked (): Promise<NodeJS.Signals> {
  return await new Promise(resolve => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => { resolve(signal) })
  })
}

/** Tenants anew from environment and file; a configuration with mistakes changes nothing. */
async function reload (app: App, env: Io['env']): Promise<void> {
  try {
    await app.reload(readConfig(env).tenants)
    app.api.log.info('tenants reloaded')
  } catch (error) {
    if (error instanceof ConfigError) app.api.log.error({ mistakes: error.mistakes }, 'not reloaded')
    else app.api.log.error({ err: error }, 'not reloaded')
  }
}

export const serve: Command = {
  usage: 'serve',
  text: 'Run the service (the default)',
  run: async (_args, io) => {
    const config = readConfig(io.env)
    // Whoever reads the log may end before we do; that is no reason to end too.
    process.stdout.on('error', () => {})
    const app = await buildApp(config)
    // Before anybody hears that we are ready: whoever does may ask us to stop at once.
    const stopping = asked()
    process.on('SIGHUP', () => {
      void reload(app, io.env)
    })
    await app.operations.listen({ host: config.operationsHost, port: config.operationsPort })
    await app.api.listen({ host: config.host, port: config.port })
    app.start()
    letYoungMemoryGrow()
    app.api.log.info({ url: urlOf(app.api), operations: urlOf(app.operations) }, 'ready')

    const signal = await Promise.race([stopping, app.leaseLost])
    app.drain()
    app.api.log.info({ signal }, 'draining')
    // Requests are still routed here for a moment after readiness went red; a person at a keyboard waits for nothing.
    if (signal === 'SIGTERM') await after(config.drainSeconds * 1000)
    unlessEnded(CLOSE_MS, () => process.exit(1))
    await app.close()
    return 0
  }
}
