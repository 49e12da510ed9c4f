// `fastify-postern try`: from an empty folder and a console that is running to "refused without a code".

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'
import { startRustdeskServer } from '../../examples/rustdesk-server/server.ts'
import { tryConsole } from '../../plugin/src/cli/try.ts'
import { readConfig } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { readConfig as readServiceConfig } from '../../service/src/config.ts'
import { gatewayProcess, startUpstream } from '../helpers/gateway.ts'
import { environmentOf, noHelm, template } from '../helpers/helm.ts'
import { dataFolder, serve } from '../helpers/processes.ts'
import { by, totpCode, type Teardown } from '../helpers/service.ts'
import { startKingmo888, startLantongxue, startLejianwen } from '../helpers/web-consoles.ts'

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

/** A file of settings, read as systemd and Docker read it. */
function settingsOf (path: string): Record<string, string> {
  return Object.fromEntries(readFileSync(path, 'utf8').trim().split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
}

/** Sets alice's second factor up, as the pages do. */
async function enrolAlice (service: string, gate: string): Promise<void> {
  const call = async (path: string, body: unknown) => await (await fetch(`${service}/v1/subjects/${Buffer.from('alice').toString('base64url')}/totp${path}`, {
    method: 'POST', headers: { authorization: `Bearer ${gate}`, 'content-type': 'application/json' }, body: JSON.stringify(body)
  })).json() as Record<string, string>
  const { id = '', key = '' } = await call('', { by: by('alice') })
  await call(`/${id}/confirm`, { by: by('alice'), code: totpCode(key, Date.now()) })
}

t.test('a RustDesk-style server is recognised, and a user with a factor is refused without a code', { timeout: 120_000 }, async t => {
  const users = new Map([['alice', 'garden-kettle-42']])
  const server = await startRustdeskServer(0, users)
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
  await enrolAlice(service, gate)
  t.match(await login(), { access_token: '', tfa_type: 'tfa_check' }, 'the password alone brings no token')
  const refused = await fetch(`${origin}/api/currentUser`, { method: 'POST', headers: { authorization: `Bearer ${String(token)}` } })
  t.equal(refused.status, 401, 'nor does the token of before open anything')
  const seconds = (performance.now() - began) / 1000
  t.same([...users], [['alice', 'garden-kettle-42']], 'no row of the server changed')
  t.same([...new Set(server.heard)].filter(one => !one.startsWith('GET ')).sort(), ['POST /api/currentUser', 'POST /api/login'], 'and nothing was asked for that could')
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
  const env = settingsOf(join(folder, 'postern-try/postern-gateway.env'))
  t.match(env, { POSTERN_GATEWAY_PRESET: 'generic', POSTERN_GATEWAY_GENERIC_COOKIE: 'app_session', POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me', POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.id' })
  t.doesNotThrow(() => readConfig(env, PRESETS), 'the gateway takes what was written')
  const far = tried(t, ['http://console.example'], folder)
  t.equal(await far.ended, 1)
  t.match(far.text(), /must be reached by HTTPS/)
  const nothing = tried(t, ['http://127.0.0.1:1'], folder)
  t.equal(await nothing.ended, 1)
  t.match(nothing.text(), /nothing answers at/)
})

for (const [preset, start] of [['lejianwen', startLejianwen], ['kingmo888', startKingmo888], ['lantongxue', startLantongxue]] as const) {
  t.test(`${preset} is recognised by calls that change nothing, and not one of them carries a login`, { timeout: 120_000 }, async t => {
    const console = await start(t)
    const folder = dataFolder(t)
    const run = tried(t, [console.url, '--write', 'env'], folder)
    t.equal(await run.ended, 0, run.text())
    t.match(run.text(), `preset ${preset}\n`)
    const env = settingsOf(join(folder, 'postern-try/postern-gateway.env'))
    t.equal(env['POSTERN_GATEWAY_PRESET'], preset)
    t.doesNotThrow(() => readConfig(env, PRESETS), 'the gateway takes what was written')
    t.equal(console.tokens.size, 0, 'nobody was logged in')
    t.ok(console.hits.length > 0)
    t.same(console.hits.flatMap(({ headers }) => [headers.authorization ?? [], headers.cookie ?? []].flat()), [])
    t.same(console.paths().filter(path => !path.startsWith('GET ')), [], 'it was only read')
  })
}

t.test('a person is asked for what cannot be found out, with what was found as the answer of an empty line', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/whoami') response.writeHead(403).end()
    else response.writeHead(request.url === '/' ? 200 : 404, { 'content-type': 'text/html' }).end('a console')
  })
  const ask = async (...answers: readonly (string | undefined)[]) => {
    const [asked, printed, left]: [string[], string[], (string | undefined)[]] = [[], [], [...answers]]
    const folder = join(dataFolder(t), 'kept')
    const given = { preset: undefined, cookie: undefined, who: undefined, subject: undefined }
    await tryConsole({
      url: upstream.url,
      folder,
      given,
      write: 'env',
      env: {},
      print: line => { printed.push(line) },
      ask: async question => { asked.push(question); return left.shift() }
    })
    return { asked, printed, env: settingsOf(join(folder, 'postern-gateway.env')), folder }
  }
  const { asked, printed, env } = await ask(' app_sid ', '', 'user.id')
  t.equal(printed[0], 'preset generic')
  t.match(asked, [/^the session cookie: $/, /who is logged in.*\[GET \/whoami\]: $/, /user's id.*\[id\]: $/])
  t.match(env, { POSTERN_GATEWAY_GENERIC_COOKIE: 'app_sid', POSTERN_GATEWAY_GENERIC_WHO: 'GET /whoami', POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.id' })
  await t.rejects(ask(undefined), /not one that is known: name --cookie \(the session cookie\)/, 'where nobody answers it says which word is missing')
})

t.test('the files of --write env start a service and a gateway that refuse a password without a code', { timeout: 120_000 }, async t => {
  const console = await startLejianwen(t)
  const folder = dataFolder(t)
  t.equal(await tried(t, [console.url, '--write', 'env'], folder).ended, 0)
  const kept = (name: string): Record<string, string> => settingsOf(join(folder, 'postern-try', name))
  const service = await serve(t, { ...kept('postern.env'), POSTERN_DATABASE: `sqlite:${join(folder, 'postern.db')}`, POSTERN_PORT: '0', POSTERN_OPERATIONS_PORT: '0' })
  const env = kept('postern-gateway.env')
  const gateway = await gatewayProcess(t, [], { ...env, POSTERN_GATEWAY_SERVICE: service.url, POSTERN_GATEWAY_PORT: '0', POSTERN_GATEWAY_OPERATIONS_PORT: '0' }).ready
  const login = async (path: string) => await (await fetch(gateway.url + path, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ username: 'alice', password: 'alice-password', id: '1', uuid: 'u' })
  })).json() as Record<string, unknown>
  t.match(await login('/api/login'), { type: 'access_token', access_token: /^\w{32}$/ }, 'before there is a factor')
  await enrolAlice(service.url, env['POSTERN_GATEWAY_TENANT_KEY'] ?? '')
  t.match(await login('/api/login'), { access_token: '', tfa_type: 'tfa_check' })
  t.match(await login('/api/admin/login'), { code: 403, data: null })
})

t.test('the file of --write compose names files that were written, and settings that both parts take', { timeout: 120_000 }, async t => {
  const console = await startLantongxue(t)
  const folder = dataFolder(t)
  t.equal(await tried(t, [console.url, '--write', 'compose'], folder).ended, 0)
  const inFolder = (name: string): string => join(folder, 'postern-try', name)
  const { services, volumes } = parse(readFileSync(inFolder('compose.yaml'), 'utf8')) as {
    services: Record<string, { image: string, env_file: string, volumes?: string[], ports?: string[] }>
    volumes: Record<string, unknown>
  }
  for (const { env_file: file } of Object.values(services)) t.ok(existsSync(inFolder(file)), file)
  const dockerfile = readFileSync(new URL('../../Dockerfile', import.meta.url), 'utf8')
  for (const { image } of Object.values(services)) t.match(dockerfile, `-t ${image} .`, `${image} is an image that the Dockerfile makes`)
  const { postern, gateway } = services
  const service = readServiceConfig({ ...settingsOf(inFolder(postern?.env_file ?? '')), POSTERN_DATABASE: 'sqlite:/data/postern.db' })
  t.same(service.tenants.map(({ id }) => id), ['console'])
  t.same(postern?.volumes, [`${Object.keys(volumes)[0] ?? ''}:/data`], 'where the image keeps its database')
  const config = readConfig(settingsOf(inFolder(gateway?.env_file ?? '')), PRESETS)
  t.match(config, { upstream: console.url, preset: { name: 'lantongxue' }, service: 'http://postern:7070' }, 'the service by its name')
  t.match(gateway, { ports: [`127.0.0.1:8080:${config.port}`], depends_on: { postern: { condition: 'service_healthy' } } })
})

t.test('the values of --write helm render with the chart, and both parts take what they are given', { timeout: 300_000 }, async t => {
  if (noHelm !== undefined) return t.comment(noHelm)
  const console = await startKingmo888(t)
  const folder = dataFolder(t)
  t.equal(await tried(t, [console.url, '--write', 'helm'], folder).ended, 0)
  const inFolder = (name: string): string => join(folder, 'postern-try', name)
  const rendered = await template([inFolder('values.yaml')])
  // Every key of a Secret is a file that was written.
  const env = (name: string): Record<string, string> => environmentOf(rendered, name, key => readFileSync(inFolder(key), 'utf8'))
  const service = readServiceConfig(env('shop-postern'))
  t.match(service.tenants, [{ id: 'console' }])
  const { POSTERN_GATEWAY_TENANT_KEY: key = '', ...gateway } = env('shop-postern-gateway')
  t.match(readConfig({ ...gateway, POSTERN_GATEWAY_TENANT_KEY: key }, PRESETS), { upstream: console.url, preset: { name: 'kingmo888' }, service: 'http://shop-postern:7070' })
  const { gate } = JSON.parse(readFileSync(inFolder('keys.json'), 'utf8')) as { gate: string }
  t.equal(key, gate)
})
