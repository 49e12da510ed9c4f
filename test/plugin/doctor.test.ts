// The doctor on the consoles of the examples and on broken ones: it says what every route asks, and never listens.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'postern-doctor-'))
t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })

const KEY = `pk_t1_g1_${'x'.repeat(32)}`

interface Said {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

async function doctor (args: readonly string[], env: Record<string, string> = {}): Promise<Said> {
  const child = spawn(process.execPath, ['--import', 'tsx', join(root, 'plugin/src/cli/main.ts'), ...(args.length === 0 ? [] : ['doctor', ...args])], {
    cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe']
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (data: Buffer) => { out += String(data) })
  child.stderr.on('data', (data: Buffer) => { err += String(data) })
  const code = await new Promise<number | null>(resolve => { child.on('close', resolve) })
  return { code, out, err }
}

/** A console as somebody would write it: `more` options of the plugin, and routes. */
function entry (name: string, more: string, routes: string, end: string): string {
  const file = join(folder, `${name}.mjs`)
  const plugin = pathToFileURL(join(root, 'plugin/src/index.ts')).href
  const fastify = pathToFileURL(join(root, 'node_modules/fastify/fastify.js')).href
  writeFileSync(file, `import fastify from ${JSON.stringify(fastify)}
import postern from ${JSON.stringify(plugin)}
async function make () {
  const app = fastify()
  await app.register(postern, { service: 'http://127.0.0.1:9', tenantKey: '${KEY}', publicOrigin: 'http://localhost:3000', credentials: { cookies: ['sid'] }, identify: () => null, ${more} })
  ${routes}
  return app
}
${end}
`)
  return file
}

const GOOD = "app.get('/health', { config: { postern: { public: true } } }, () => 'ok'); app.post('/settings', { config: { postern: { stepUp: { maxAge: 60 } } } }, () => 'ok')"

t.test('the smallest console is found as it starts itself, and does not listen', async t => {
  const { code, out } = await doctor(['examples/minimal/server.ts'], { TENANT_KEY: KEY, PASSWORD: 'a-password' })
  t.match(out, /^mode: enforce\n/)
  t.match(out, /POST \/login +public/)
  t.match(out, /POST \/email +step-up \(at most 300 s old\)/)
  t.match(out, /GET \/ +gated/)
  t.notMatch(out, /is open for ada/, 'what follows the listening never ran')
  t.equal(code, 0, out)
})

t.test('a console that takes its configuration from an argument', async t => {
  const config = join(folder, 'console.json')
  writeFileSync(join(folder, 'users.json'), '[]')
  writeFileSync(config, JSON.stringify({
    port: 1, publicOrigin: 'http://localhost:3000', sessionSecret: 's'.repeat(40), users: join(folder, 'users.json'), service: 'http://127.0.0.1:9', tenantKey: KEY
  }))
  const { code, out } = await doctor(['examples/mounted-console/main.ts', config])
  t.match(out, /POST \/account\/password +step-up/)
  t.match(out, /POST \/logout +public/)
  t.equal(code, 0, out)
})

t.test('an exported instance, an exported function, and a start of its own are all found', async t => {
  for (const [name, end] of Object.entries({
    instance: 'export const app = await make()',
    build: 'export { make as build }',
    otherwise: 'export default make',
    listens: "await (await make()).listen({ port: 3999 }); throw new Error('it listened')"
  })) {
    const { code, out } = await doctor([entry(name, '', GOOD, end)])
    t.match(out, /GET \/health +public/, name)
    t.match(out, /POST \/settings +step-up \(at most 60 s old\)/, name)
    t.equal(code, 0, out)
  }
})

t.test('what looks wrong is said, and the command ends with 1', async t => {
  const wrong: Record<string, [string, string, RegExp]> = {
    settings: ['', "app.post('/settings/password', () => 'ok')", /POST \/settings\/password +gated +! looks like settings/],
    cookies: ["insecureCookies: true, publicOrigin: 'http://console.lan'", GOOD, /! .*insecureCookies/],
    observing: ["mode: 'observe'", GOOD, /mode: observe[\s\S]*! .*nothing is refused/],
    off: ['mode: { off: { until: new Date(Date.now() + 3_600_000).toISOString() } }', GOOD, /mode: off[\s\S]*! .*nobody is asked/],
    unnamed: ['credentials: undefined', GOOD, /! .*names no cookie or header/],
    refused: ["publicOrigin: 'http://console.lan'", GOOD, /does not start: .*insecureCookies/]
  }
  for (const [name, [more, routes, sentence]] of Object.entries(wrong)) {
    const { code, out } = await doctor([entry(name, more, routes, 'export const app = await make()')])
    t.match(out, sentence, name)
    t.equal(code, 1, name)
  }
})

t.test('a file without a console, one that is not there, and no file', async t => {
  const empty = join(folder, 'empty.mjs')
  writeFileSync(empty, 'export const nothing = 1\n')
  t.match(await doctor([empty]), { code: 1, out: /no Fastify instance with Postern/ })
  t.match(await doctor([join(folder, 'missing.mjs')]), { code: 1, out: /does not start/ })
  t.match(await doctor([]), { code: 2 })
})
