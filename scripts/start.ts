// `npm start`: the whole demo in one command; `npm start -- gateway`: the gateway's. `--port <number>` is what browsers
// and clients open, `--data <folder>` where the data are.

import { parseArgs } from 'node:util'
import { build, isStale } from './build.js'
import { startDemo } from './demo.ts'
import { startGatewayDemo } from './demo-gateway.ts'

const began = performance.now()

function options (): { readonly port: number, readonly data: string, readonly gateway: boolean } {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { port: { type: 'string', default: '0' }, data: { type: 'string', default: 'data' } } })
  const port = /^\d{1,5}$/.test(values.port) ? Number(values.port) : Number.NaN
  if (!(port >= 0 && port <= 65535)) throw new Error('--port must be a number from 0 to 65535')
  const [what, ...more] = positionals
  if (more.length > 0 || (what !== undefined && what !== 'gateway')) throw new Error('npm start shows the demo, npm start -- gateway that of the gateway')
  return { port, data: values.data, gateway: what !== undefined }
}

function fail (error: unknown): never {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}

interface Showing {
  readonly stop: () => Promise<void>
  /** Printed once everything runs. */
  readonly text: string
}

interface Wish {
  readonly data: string
  readonly port: number
  readonly onDeath: (sentence: string) => void
}

const seconds = (): string => `${((performance.now() - began) / 1000).toFixed(1)} s`

async function consoleDemo ({ data, port, onDeath }: Wish): Promise<Showing> {
  const { facts, changed, stop } = await startDemo({ data, port, onDeath })
  const text = `
  Postern is running (${seconds()}).

  Console   ${facts.console}
  Mailbox   ${facts.mailbox}

${facts.users.map(user => `  ${user.name.padEnd(8)}  ${changed.has(user.name) ? '(password changed since)' : user.password}`).join('\n')}

  The same for scripts: ${data}/demo.json. Ctrl-C ends it; the data stay in ${data}/.

`
  return { stop, text }
}

async function gatewayDemo ({ data, port, onDeath }: Wish): Promise<Showing> {
  let step = 0
  const { gateway, server, service, mailbox, stop } = await startGatewayDemo({
    data, port, onDeath, say: line => { process.stdout.write(`  ${++step}. ${line}\n`) }
  })
  const text = `
  The gateway is running (${seconds()}).

  Gateway   ${gateway}   for clients
  Server    ${server}   behind it; knows nothing of 2FA, and would be reachable from the gateway only
  Service   ${service}
  Mailbox   ${mailbox}

  Ctrl-C ends it; keys, data and logs stay in ${data}/.

`
  return { stop, text }
}

let interrupted = false
try {
  const { port, data, gateway } = options()
  if (isStale()) {
    process.stdout.write('Building…\n')
    await build()
  }

  let stopped: Promise<void> | undefined
  const interrupt = (): void => { interrupted = true }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)

  let end: (code: number) => void = () => {}
  const onDeath = (sentence: string): void => {
    if (stopped !== undefined) return
    process.stderr.write(`\n${sentence}\n`)
    end(1)
  }
  const { stop, text } = await (gateway ? gatewayDemo : consoleDemo)({ data, port, onDeath })
  end = code => { stopped ??= stop().then(() => { process.exit(code) }, fail) }
  const quit = (): void => { end(0) }
  process.on('SIGINT', quit)
  process.on('SIGTERM', quit)

  process.stdout.write(text)
  if (interrupted) quit()
} catch (error) {
  // Ctrl-C in a terminal reaches the parts too, also while they start.
  if (interrupted) process.exit(0)
  fail(error)
}
