// Starts what is measured, each in a process of its own, and ends it all.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Teardown } from '../test/helpers/service.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

export interface Started {
  readonly url: string
  readonly pid: number
}

/** Cleaning up, last first. */
export function createCleaning (): Teardown & { readonly clean: () => Promise<void> } {
  const work: (() => unknown)[] = []
  return {
    teardown: one => { work.push(one) },
    clean: async () => {
      for (let one = work.pop(); one !== undefined; one = work.pop()) await one()
    }
  }
}

/**
 * A server of this folder, by plain node (TypeScript is transformed once, when it is loaded); resolves when it printed
 * its address.
 */
export async function startServer (
  t: Teardown,
  file: string,
  settings: Readonly<Record<string, string>> = {},
  flags: readonly string[] = []
): Promise<Started> {
  const transform = file.endsWith('.ts') ? ['--import', 'tsx'] : []
  const child = spawn(process.execPath, [...flags, ...transform, fileURLToPath(new URL(file, import.meta.url))], {
    cwd: root, env: { ...process.env, ...settings }, stdio: ['ignore', 'pipe', 'inherit']
  })
  const ended = new Promise<void>(resolve => { child.on('close', () => { resolve() }) })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let said = ''
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on('data', data => {
      if (said.length < 10_000) said += String(data)
      const address = /listening (http:\S+)\n/.exec(said)?.[1]
      if (address !== undefined) resolve(address)
    })
    child.on('close', () => { reject(new Error(`${file} ended: ${said}`)) })
  })
  return { url, pid: child.pid ?? 0 }
}
