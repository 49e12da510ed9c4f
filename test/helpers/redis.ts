// A real redis-server on a free port, ended with the test.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Teardown } from './service.ts'

/** A port that is free now. */
export async function freePort (): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer()
      .once('error', reject)
      .listen(0, '127.0.0.1', () => {
        const address = server.address()
        server.close(() => {
          resolve(typeof address === 'object' && address !== null ? address.port : 0)
        })
      })
  })
}

/** The program, or an error that names what to install. */
export function program (name: string, ...places: readonly string[]): string {
  const found = [...(process.env.PATH ?? '').split(':').map(folder => join(folder, name)), ...places].find(path =>
    existsSync(path)
  )
  if (found === undefined) { throw new Error(`${name} is missing: install it (Debian: apt-get install redis-server postgresql)`) }
  return found
}

export async function startRedis (t: Teardown, ...options: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-redis-'))
  const port = await freePort()
  const child = spawn(
    program('redis-server'),
    // A sentinel takes its file first, and nothing that is for data.
    options[0]?.endsWith('.conf') === true
      ? [...options, '--port', String(port), '--bind', '127.0.0.1', '--dir', folder]
      : ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder, ...options],
    { stdio: 'ignore' }
  )
  const exited = new Promise<void>(resolve => {
    child.once('exit', () => {
      resolve()
    })
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
    rmSync(folder, { recursive: true, force: true })
  })
  const redis = new Redis({
    port,
    host: '127.0.0.1',
    lazyConnect: false,
    retryStrategy: () => 20,
    maxRetriesPerRequest: null
  })
  redis.on('error', () => {})
  await redis.ping()
  redis.disconnect()
  return { port, url: `redis://127.0.0.1:${port}`, pid: child.pid ?? 0 }
}
