// The parts of a demo: child processes whose logs go to one folder, on free loopback ports.

import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

export function keep (folder: string, name: string, text: string): void {
  writeFileSync(join(folder, name), text, { mode: 0o600 })
}

export function sha256 (text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** This process's environment without settings of a service that somebody runs from the same shell. */
function inherited (): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('POSTERN_')))
}

/** So many free ports, the first one as wished; all are held at once, so that no two are the same. */
export async function freePorts (count: number, first: number): Promise<readonly number[]> {
  const servers = await Promise.all(Array.from({ length: count }, async (_, i) => {
    const port = i === 0 ? first : 0
    const server = createServer()
    server.listen(port, '127.0.0.1')
    try {
      await once(server, 'listening')
    } catch {
      throw new Error(`Port ${port} is in use. Choose another: npm start -- --port <number>`)
    }
    return server
  }))
  const ports = servers.map(server => (server.address() as AddressInfo).port)
  await Promise.all(servers.map(server => new Promise(resolve => { server.close(resolve) })))
  return ports
}

/** Parts with their logs in a folder; `onDeath` is called if one ends by itself. */
export function startParts (folder: string, onDeath: (sentence: string) => void) {
  let stopping = false
  const died = (sentence: string): void => {
    if (!stopping) onDeath(sentence)
  }
  const parts: Part[] = []
  return {
    part: (name: string, args: readonly string[], env: Record<string, string>): Part => {
      const one = startPart({ name, args, env: { ...inherited(), ...env }, log: join(folder, `${name}.log`), died })
      parts.push(one)
      return one
    },
    stop: async (): Promise<void> => {
      stopping = true
      await Promise.all(parts.map(one => one.stop()))
    }
  }
}

export interface Part {
  /** Resolves when it listens. */
  readonly ready: Promise<void>
  readonly stop: () => Promise<void>
}

interface PartOptions {
  readonly name: string
  readonly args: readonly string[]
  readonly env: Record<string, string | undefined>
  readonly log: string
  readonly died: (sentence: string) => void
}

const READY_MS = 30_000
const STOP_MS = 8_000

/** A child process whose log line `ready` says that it listens. Its output goes to a file. */
function startPart ({ name, args, env, log, died }: PartOptions): Part {
  const file = createWriteStream(log, { flags: 'a', mode: 0o600 })
  const child: ChildProcess = spawn(process.execPath, [...args], { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const said: string[] = []
  const exit = new Promise<string>(resolve => {
    child.once('error', error => { resolve(error.message) })
    child.once('exit', (code, signal) => { resolve(signal ?? `exit code ${code}`) })
  })
  const ready = new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => { reject(new Error(`The ${name} did not start in ${READY_MS / 1000} seconds; see ${log}`)) }, READY_MS)
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue
      createInterface({ input: stream }).on('line', line => {
        file.write(line + '\n')
        said.push(line)
        if (said.length > 20) said.shift()
        if (line.startsWith('{') && line.includes('"msg":"ready"')) {
          clearTimeout(late)
          resolve()
        }
      })
    }
    exit.then(how => {
      clearTimeout(late)
      const sentence = `The ${name} ended (${how}); its log is ${log}. It said last:\n${said.map(line => `  ${line}`).join('\n')}`
      reject(new Error(sentence))
      died(sentence)
      file.end()
    }, reject)
  })
  ready.catch(() => {})
  return {
    ready,
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      // SIGINT and not SIGTERM: nobody routes traffic here, so there is nothing to drain.
      child.kill('SIGINT')
      const force = setTimeout(() => { child.kill('SIGKILL') }, STOP_MS)
      await exit
      clearTimeout(force)
    }
  }
}
