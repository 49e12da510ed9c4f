// `fastify-postern try`: from an empty folder and a console that is running to "refused without a code".

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startRustdeskServer } from '../../examples/rustdesk-server/server.ts'
import { readConfig } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { startUpstream } from '../helpers/gateway.ts'
import { dataFolder } from '../helpers/processes.ts'
import { by, totpCode, type Teardown } from '../helpers/service.ts'

const MAIN = fileURLToPath(new URL('../../plugin/dist/cli/main.js', import.meta.url))

function tried (t: Teardown, args: readonly string[], folder: string) {
  const child = spawn(process.execPath, [MAIN, 'try', ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  const said: string[] = []
  const ended = new Promise<number | null>(resolve => { child.on('close', code => { resolve(code) }) })
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGINT')
    await ended
  })
  const ready = new Promise<string>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', data => {
        said.push(String(data))
        const origin = /^(http:\S+) is the console with 2FA/m.exec(said.join(''))?.[1]
        if (origin !== undefined) resolve(origin)
      })
    }
    void ended.then(() => { reject(new Error(said.join(''))) })
  })
  ready.catch(() => {})
  return { child, ready, ended, text: () => said.join('') }
}

t.test('a RustDesk-style server is recognised, and a user with a factor is refused without a code', { timeout: 120_000 }, async t => {
  const server = await startRustdeskServer(0, new Map([['alice', 'garden-kettle-42']]))
  t.teardown(server.close)
  const began = performance.now()
  const folder = dataFolder(t)
  const run = tried(t, [server.url], folder)
  const origin = await run.ready
  t.match(run.text(), 'preset rustdesk')
  const login = async () => await (await fetch(`${origin}/api/login`, { method: 'POST', body: JSON.stringify({ username: 'alice', password: 'garden-kettle-42', id: '1', uuid: 'MQ==', type: 'account' }) })).json() as Record<string, unknown>
  const { access_token: token } = await login()
  t.match(token, /^\w{32}$/)
  // She sets it up on the pages, with her token taken over as the settings page does.
  const session = await fetch(`${origin}/2fa/session`, { method: 'POST', headers: { authorization: `Bearer ${String(token)}`, origin } })
  t.equal(session.status, 200)
  const cookie = session.headers.getSetCookie().map(one => one.split(';')[0]).join('; ')
  const page = await fetch(`${origin}/2fa/settings`, { headers: { cookie, accept: 'text/html', 'sec-fetch-mode': 'navigate' } })
  t.equal(page.status, 200)
  t.match(await page.text(), /Enable 2FA/)
  const service = /^(http:\S+) is the service/m.exec(run.text())?.[1] ?? ''
  const { gate } = JSON.parse(readFileSync(join(folder, 'postern-try/keys.json'), 'utf8')) as { gate: string }
  const call = async (path: string, body: unknown) => await (await fetch(`${service}/v1/subjects/${Buffer.from('alice').toString('base64url')}/totp${path}`, {
    method: 'POST', headers: { authorization: `Bearer ${gate}`, 'content-type': 'application/json' }, body: JSON.stringify(body)
  })).json() as Record<string, string>
  const { id = '', key = '' } = await call('', { by: by('alice') })
  await call(`/${id}/confirm`, { by: by('alice'), code: totpCode(key, Date.now()) })
  t.match(await login(), { access_token: '', tfa_type: 'tfa_check' }, 'the password alone brings no token')
  const refused = await fetch(`${origin}/api/currentUser`, { method: 'POST', headers: { authorization: `Bearer ${String(token)}` } })
  t.equal(refused.status, 401, 'nor does the token of before open anything')
  const seconds = (performance.now() - began) / 1000
  process.stderr.write(`try: ${seconds.toFixed(1)} s from an empty folder to refused without a code\n`)
  run.child.kill('SIGINT')
  t.equal(await run.ended, 0)
})

t.test('a console that is not known is asked about; what is missing is named; plain HTTP is for this machine only', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/api/me') response.writeHead(401, { 'content-type': 'application/json' }).end('{}')
    else response.writeHead(request.url === '/' ? 200 : 404, { 'set-cookie': 'app_session=x; Path=/' }).end('console')
  })
  const folder = dataFolder(t)
  const written = tried(t, [upstream.url, '--subject', 'user.id', '--write', 'env'], folder)
  t.equal(await written.ended, 0)
  const env = Object.fromEntries(readFileSync(join(folder, 'postern-try/postern-gateway.env'), 'utf8').trim().split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
  t.match(env, { POSTERN_GATEWAY_PRESET: 'generic', POSTERN_GATEWAY_GENERIC_COOKIE: 'app_session', POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me', POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.id' })
  t.doesNotThrow(() => readConfig(env, PRESETS), 'the gateway takes what was written')
  for (const way of ['compose', 'helm']) t.equal(await tried(t, [upstream.url, '--write', way], folder).ended, 0, way)
  const far = tried(t, ['http://console.example'], folder)
  t.equal(await far.ended, 1)
  t.match(far.text(), /must be reached by HTTPS/)
  const nothing = tried(t, ['http://127.0.0.1:1'], folder)
  t.equal(await nothing.ended, 1)
  t.match(nothing.text(), /nothing answers at/)
})
