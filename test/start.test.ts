// What `npm start` runs, as in a terminal: what it prints and writes, the port that it was told, and Ctrl-C.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { DemoFacts } from '../scripts/demo.ts'
import { dataFolder } from './helpers/processes.ts'
import { until } from './helpers/redis-shapes.ts'
import { freePort } from './helpers/redis.ts'
import type { Teardown } from './helpers/service.ts'

t.setTimeout(300_000)

const root = fileURLToPath(new URL('..', import.meta.url))
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
/** The promise is 3 seconds on a machine that does nothing else; here many tests run at once. */
const READY_SECONDS = 60

/** Is a process of the group still there? */
function runs (group: number): boolean {
  try {
    return process.kill(group, 0)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false
    throw error
  }
}

/** Runs it in a process group of its own, as a shell does; without npm, whose shell hides the exit code on Ctrl-C. */
function npmStart (t: Teardown, ...options: readonly string[]) {
  const [, ...args] = (scripts['start'] ?? '').split(' ')
  const child = spawn(process.execPath, [...args, ...options], {
    cwd: root, detached: true, stdio: ['ignore', 'pipe', 'pipe']
  })
  const group = -(child.pid ?? Number.NaN)
  const said: string[] = []
  for (const stream of [child.stdout, child.stderr]) stream.on('data', data => said.push(String(data)))
  const ended = once(child, 'close')
  t.teardown(() => {
    try {
      process.kill(group, 'SIGKILL')
    } catch {
      // It has ended, as it should.
    }
  })
  return {
    said: () => said.join(''),
    ended: async () => (await ended)[0] as number | null,
    /** Seconds until it was ready, by its own word. */
    ready: async (): Promise<number> => await new Promise((resolve, reject) => {
      const look = (): void => {
        const found = /Postern is running \(([\d.]+) s\)[\s\S]*Ctrl-C ends it/.exec(said.join(''))
        if (found !== null) resolve(Number(found[1]))
      }
      child.stdout.on('data', look)
      child.on('close', () => { reject(new Error(said.join(''))) })
    }),
    /** Ctrl-C goes to everything that was started. */
    interrupt: () => process.kill(group, 'SIGINT'),
    running: () => runs(group),
    /** Resolves when nothing of it runs any more; who ended last is reaped a moment after its parent told. */
    gone: async () => await until('nothing to be left running', async () => !runs(group))
  }
}

t.test('it is ready soon, where it was told to be, with everything for scripts in demo.json, and Ctrl-C leaves nothing behind', async t => {
  const data = join(dataFolder(t), 'data')
  const port = await freePort()
  const first = npmStart(t, '--port', String(port), '--data', data)
  const seconds = [await first.ready()]
  const factsOf = (): DemoFacts => JSON.parse(readFileSync(join(data, 'demo.json'), 'utf8')) as DemoFacts
  const facts = factsOf()
  t.same(Object.keys(facts).sort(), [
    'admin_key', 'console', 'database', 'mailbox', 'operations', 'service', 'tenant', 'tenant_key', 'users'
  ])
  t.equal(new URL(facts.console).port, String(port))
  for (const line of [facts.console, facts.mailbox, ...facts.users.flatMap(user => [user.name, user.password])]) {
    t.ok(first.said().includes(line), `it prints ${line}`)
  }
  for (const url of [facts.console, facts.mailbox, `${facts.operations}/readyz`]) t.equal((await fetch(url)).status, 200, url)
  const asked = async (key: string) => (await fetch(`${facts.service}/v1/events`, { headers: { authorization: `Bearer ${key}` } })).status
  t.same([await asked(facts.admin_key), await asked(facts.tenant_key)], [200, 403], 'both keys are known for what they are')
  t.ok(existsSync(facts.database))
  t.equal(statSync(join(data, 'demo.json')).mode & 0o077, 0, 'nobody else reads the keys')
  t.ok(first.running())
  first.interrupt()
  t.equal(await first.ended(), 0)
  t.ok(await first.gone(), 'no process is left')
  await t.rejects(fetch(facts.service), 'nothing listens')

  const second = npmStart(t, '--data', data)
  seconds.push(await second.ready())
  const again = factsOf()
  t.same([again.tenant_key, again.admin_key, again.users], [facts.tenant_key, facts.admin_key, facts.users], 'keys and people stay')
  t.equal((await fetch(again.console)).status, 200, 'on a free port where none is named')
  second.interrupt()
  t.equal(await second.ended(), 0)
  t.ok(await second.gone())
  t.comment(`ready after ${seconds.join(' and ')} s`)
  for (const one of seconds) t.ok(one > 0 && one < READY_SECONDS, `${one} s`)
})

t.test('a port that is none, and one that is taken, end it with one sentence that says so', async t => {
  const data = join(dataFolder(t), 'data')
  const wrong = npmStart(t, '--port', 'eighty', '--data', data)
  t.equal(await wrong.ended(), 1)
  t.match(wrong.said(), '--port must be a number from 0 to 65535')
  t.notOk(existsSync(data), 'nothing was made')
  const running = npmStart(t, '--data', data)
  await running.ready()
  const { console } = JSON.parse(readFileSync(join(data, 'demo.json'), 'utf8')) as DemoFacts
  const taken = npmStart(t, '--port', new URL(console).port, '--data', join(dataFolder(t), 'data'))
  t.equal(await taken.ended(), 1)
  t.match(taken.said(), /Port \d+ is in use\. Choose another: npm start -- --port <number>/)
  running.interrupt()
  t.equal(await running.ended(), 0)
})
