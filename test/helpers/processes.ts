// Starts the built service as its users do: a child process with settings in its environment.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tenantKey, type Teardown } from './service.ts'

const MAIN = fileURLToPath(new URL('../../service/dist/main.js', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

/** The environment of this process without the product's settings, with these instead. */
function environment (settings: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('POSTERN_'))
  return { ...Object.fromEntries(kept), ...settings }
}

/**
 * A built program with these arguments and settings, as its users start it: what the test runner loads into every
 * process would make each start take seconds, and be half of its memory.
 */
export function built (main: string, args: readonly string[], settings: Readonly<Record<string, string>>) {
  return spawn('env', ['-u', 'NODE_OPTIONS', process.execPath, main, ...args], {
    env: environment(settings), stdio: ['ignore', 'pipe', 'pipe']
  })
}

/** Runs a command of the command line to its end. */
export async function postern (
  args: readonly string[],
  settings: Readonly<Record<string, string>> = {}
): Promise<Ended> {
  const child = built(MAIN, args, settings)
  const out: string[] = []
  const err: string[] = []
  child.stdout.on('data', data => out.push(String(data)))
  child.stderr.on('data', data => err.push(String(data)))
  return await new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => { resolve({ code, signal, out: out.join(''), err: err.join('') }) })
  })
}

/** A folder for data that is gone with the test. */
export function dataFolder (t: Teardown): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-test-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  return folder
}

/** Settings of a service with one tenant on an SQLite file, on free ports. */
export function settingsIn (
  folder: string,
  more: Readonly<Record<string, string>> = {},
  tenant: Readonly<Record<string, unknown>> = {}
) {
  const gate = tenantKey('t1', 'g1')
  const admin = tenantKey('t1', 'a1')
  const settings: Readonly<Record<string, string>> = {
    POSTERN_PORT: '0',
    POSTERN_OPERATIONS_PORT: '0',
    POSTERN_DATABASE: `sqlite:${join(folder, 'postern.db')}`,
    POSTERN_ENCRYPTION_KEYS: `k1:${randomBytes(32).toString('base64')}`,
    POSTERN_SERVER_KEY: `s1:${randomBytes(32).toString('base64')}`,
    POSTERN_DRAIN_SECONDS: '0',
    POSTERN_TENANTS: JSON.stringify([{
      id: 't1',
      name: 'Console One',
      keys: [{ id: 'g1', scope: 'gate', sha256: gate.sha256 }, { id: 'a1', scope: 'admin', sha256: admin.sha256 }],
      ...tenant
    }]),
    ...more
  }
  return { settings, gate: gate.key, admin: admin.key }
}

/** A running service; resolves when it listens. */
export async function serve (t: Teardown, settings: Readonly<Record<string, string>>) {
  const child = built(MAIN, ['serve'], settings)
  const output: string[] = []
  const ended = new Promise<Ended>(resolve => {
    child.on('close', (code, signal) => { resolve({ code, signal, out: output.join(''), err: '' }) })
  })
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await ended
  })
  const ready = await new Promise<{ url: string, operations: string }>((resolve, reject) => {
    const heard = (data: Buffer): void => {
      output.push(data.toString())
      const line = output.join('').split('\n').find(one => one.includes('"msg":"ready"'))
      if (line !== undefined) resolve(JSON.parse(line) as { url: string, operations: string })
    }
    child.stdout.on('data', heard)
    child.stderr.on('data', heard)
    child.on('close', () => { reject(new Error(`the service ended: ${output.join('')}`)) })
  })
  return {
    ...ready,
    pid: child.pid ?? 0,
    ended,
    output,
    stop: (signal: NodeJS.Signals = 'SIGTERM') => child.kill(signal),
    /** Nobody reads what it says any more, or somebody does again. */
    read: (on: boolean) => { if (on) child.stdout.resume(); else child.stdout.pause() }
  }
}
