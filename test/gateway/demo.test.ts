// `npm start -- gateway`, as somebody runs it who wants to see what the gateway does.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { dataFolder } from '../helpers/processes.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

t.test('one command shows a server without 2FA, the gateway in front of it, and a client that logs in with a code', {
  timeout: 180_000
}, async t => {
  const child = spawn(process.execPath, ['--import', 'tsx', 'scripts/start.ts', 'gateway', '--data', dataFolder(t)], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  const said: string[] = []
  const ended = new Promise<number | null>(resolve => { child.on('close', code => { resolve(code) }) })
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGINT')
    await ended
  })
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', data => {
        said.push(String(data))
        if (said.join('').includes('Ctrl-C ends it')) resolve()
      })
    }
    void ended.then(() => { reject(new Error(said.join(''))) })
  })
  const text = said.join('')
  for (const step of ['1. alice logs in without', '3. the token of before is refused: 401', 'asks for a code (tfa_check)', '5. a wrong code: 400', '6. the right code', '7. POST /api/ab with the token: 200']) t.match(text, step)
  const url = (name: string): string => new RegExp(`^ +${name} +(http\\S+)`, 'm').exec(text)?.[1] ?? `no ${name}`
  const login = async (where: string) => await (await fetch(`${where}/api/login`, {
    method: 'POST', body: JSON.stringify({ username: 'alice', password: 'garden-kettle-42', id: '1', uuid: 'MQ==', type: 'account' })
  })).json() as Record<string, unknown>
  t.match(await login(url('Gateway')), { tfa_type: 'tfa_check', access_token: '' }, 'it goes on running, and asks')
  t.match(await login(url('Server')), { type: 'access_token', access_token: /^\w{32}$/ }, 'the server itself does not')
  t.equal((await fetch(`${url('Mailbox')}/messages`)).status, 200)
  child.kill('SIGINT')
  t.equal(await ended, 0)
})
