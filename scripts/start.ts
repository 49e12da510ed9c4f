// `npm start`: the whole demo in one command. `--port <number>` for the console, `--data <folder>` for its data.

import { parseArgs } from 'node:util'
import { build, isStale } from './build.js'
import { startDemo } from './demo.ts'

const began = performance.now()

function options (): { readonly port: number, readonly data: string } {
  const { values } = parseArgs({ options: { port: { type: 'string', default: '0' }, data: { type: 'string', default: 'data' } } })
  const port = /^\d{1,5}$/.test(values.port) ? Number(values.port) : Number.NaN
  if (!(port >= 0 && port <= 65535)) throw new Error('--port must be a number from 0 to 65535')
  return { port, data: values.data }
}

function fail (error: unknown): never {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}

let interrupted = false
try {
  const { port, data } = options()
  if (isStale()) {
    process.stdout.write('Building…\n')
    await build()
  }

  let stopped: Promise<void> | undefined
  const interrupt = (): void => { interrupted = true }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)

  let end: (code: number) => void = () => {}
  const demo = await startDemo({
    data,
    port,
    onDeath: sentence => {
      if (stopped !== undefined) return
      process.stderr.write(`\n${sentence}\n`)
      end(1)
    }
  })
  end = code => { stopped ??= demo.stop().then(() => { process.exit(code) }, fail) }
  const quit = (): void => { end(0) }
  process.on('SIGINT', quit)
  process.on('SIGTERM', quit)

  const { facts, changed } = demo
  process.stdout.write(`
  Postern is running (${((performance.now() - began) / 1000).toFixed(1)} s).

  Console   ${facts.console}
  Mailbox   ${facts.mailbox}

${facts.users.map(user => `  ${user.name.padEnd(8)}  ${changed.has(user.name) ? '(password changed since)' : user.password}`).join('\n')}

  The same for scripts: ${data}/demo.json. Ctrl-C ends it; the data stay in ${data}/.

`)
  if (interrupted) quit()
} catch (error) {
  // Ctrl-C in a terminal reaches the parts too, also while they start.
  if (interrupted) process.exit(0)
  fail(error)
}
