// What npm would publish: both packages packed, installed in an empty folder, and used there as their README says.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { startRustdeskServer } from '../examples/rustdesk-server/server.ts'
import { dataFolder, settingsIn } from './helpers/processes.ts'
import { freePort } from './helpers/redis.ts'

t.setTimeout(600_000)

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const run = promisify(execFile)

interface Packed {
  readonly name: string
  readonly filename: string
  readonly size: number
  readonly files: readonly { readonly path: string }[]
}

/** This machine's environment, without the product's settings and what `npm test` says of this project. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) =>
  !/^(POSTERN_|npm_(package|lifecycle|config_local_prefix|config_workspace)|INIT_CWD)/.test(name)))

const folder = dataFolder(t)
const packed: Packed[] = []
const modules = join(folder, 'node_modules')
const { dependencies = {}, devDependencies = {} } = JSON.parse(read('package.json')) as
  { dependencies?: Record<string, string>, devDependencies?: Record<string, string> }
const { devDependencies: needed = {} } = JSON.parse(read('service/package.json')) as { devDependencies?: Record<string, string> }
const pinned = (name: string): string => `${name}@${({ ...dependencies, ...devDependencies, ...needed })[name] ?? ''}`

/** Starts a program of the folder and answers the line of its log that says `ready`. */
async function start (command: string, args: readonly string[], settings: Readonly<Record<string, string>>) {
  const child = spawn(command, [...args], { cwd: folder, env: { ...env, ...settings }, stdio: ['ignore', 'pipe', 'pipe'] })
  const exit = once(child, 'exit')
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await exit
  })
  const said: string[] = []
  child.stderr.on('data', data => said.push(String(data)))
  const lines = createInterface({ input: child.stdout })
  const ready = await new Promise<{ readonly url: string, readonly operations: string }>((resolve, reject) => {
    lines.on('line', line => {
      said.push(line)
      if (line.includes('"msg":"ready"')) resolve(JSON.parse(line) as { url: string, operations: string })
    })
    lines.on('close', () => { reject(new Error(`it ended: ${said.join('\n')}`)) })
  })
  return {
    ...ready,
    stop: async (): Promise<unknown> => {
      child.kill('SIGTERM')
      return (await exit)[0]
    }
  }
}

t.test('the packages hold what runs, its licence and its README, and nothing else', async t => {
  const { stdout } = await run('npm', ['pack', '-w', 'postern', '-w', 'fastify-postern', '--json', '--pack-destination', folder],
    { cwd: root, env, maxBuffer: 16 << 20 })
  const made: unknown = JSON.parse(stdout)
  packed.push(...Object.values(made as Record<string, Packed>))
  t.same(packed.map(({ name }) => name).sort(), ['fastify-postern', 'postern'])
  for (const { name, files, size } of packed) {
    const paths = files.map(({ path }) => path)
    for (const path of ['LICENSE', 'README.md', 'package.json']) t.ok(paths.includes(path), `${name} has ${path}`)
    t.same(paths.filter(path => /(^|\/)(src|test|node_modules|data)\/|\.test\.|\.env|\.db|(?<!\.d)\.ts$/.test(path)), [], name)
    // The service brings the packages that it needs.
    t.ok(size < (name === 'postern' ? 1_000_000 : 500_000), `${name} is ${size} bytes`)
    t.equal(read(`${name === 'postern' ? 'service' : 'plugin'}/LICENSE`), read('LICENSE'), 'one licence')
  }
})

t.test('they install in an empty folder without running a script of any package', async t => {
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module' }))
  await run('npm', [
    'install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund',
    ...packed.map(({ filename }) => `./${filename}`),
    ...['fastify', '@fastify/cookie', '@fastify/formbody', '@fastify/session', '@types/node'].map(pinned)
  ], { cwd: folder, env, maxBuffer: 16 << 20 })
  const { packages } = JSON.parse(readFileSync(join(modules, '.package-lock.json'), 'utf8')) as
    { packages: Record<string, { readonly dev?: boolean, readonly license?: string }> }
  t.notOk(Object.keys(packages).some(path => /node_modules\/(typescript|tsx|tap|eslint)$/.test(path)), 'no development dependency')
  t.same(Object.keys(packages).filter(path => path.endsWith('node_modules/fastify')), ['node_modules/fastify'], 'one Fastify')
})

t.test('types resolve with moduleResolution nodenext and bundler, without skipping any library', async t => {
  writeFileSync(join(folder, 'use.ts'), `
    import fastify from 'fastify'
    import postern, { type Identity, type PosternOptions, type PosternState, type RouteRule, printedReport } from 'fastify-postern'
    const identity: Identity = { subject: 'ada', session: 's', kind: 'cookie', email: null }
    const options: PosternOptions = { service: '', tenantKey: '', publicOrigin: '', identify: () => identity, credentials: { cookies: ['s'] } }
    const app = fastify()
    await app.register(postern, options)
    const rule = { config: { postern: { stepUp: { maxAge: 0, action: 'Rename it' } } } }
    app.get('/', { config: { postern: { public: true } } }, async request => request.postern.status)
    app.post('/save', { config: { postern: { stepUp: true } } }, async request => request.postern.stepUp?.age)
    app.post('/rename', rule, async (request, reply) => {
      await reply.posternStepUp({ maxAge: 60 })
      await reply.posternLogout()
      const state: PosternState = request.postern
      return state
    })
    app.route({ method: 'PUT', url: '/all', config: { postern: { stepUp: { maxAge: 300 } } }, handler: async request => request.postern })
    // @ts-expect-error -- a misspelt key
    const open: RouteRule = { pubic: true }
    // @ts-expect-error -- a misspelt key
    app.post('/2', { config: { postern: { stepup: true } satisfies RouteRule } }, async () => '')
    // @ts-expect-error -- it is named maxAge
    app.post('/3', { config: { postern: { stepUp: { maxAgeSeconds: 60 } } satisfies RouteRule } }, async () => open)
    // @ts-expect-error -- a number of seconds
    app.post('/4', { config: { postern: { stepUp: { maxAge: '60' } } } }, async () => '')
    // @ts-expect-error -- a word, not any text
    app.get('/5', async request => request.postern.status === 'verifed')
    // @ts-expect-error -- there is no such thing to know
    app.get('/6', async request => request.postern.subject)
    // @ts-expect-error -- it takes an object
    app.get('/7', async (_request, reply) => await reply.posternStepUp(60))
    export const report: string = printedReport(app.posternReport())
    // @ts-expect-error -- an option that does not exist
    await app.register(postern, { ...options, colour: 'red' })
  `)
  for (const [moduleResolution, module] of [['nodenext', 'nodenext'], ['bundler', 'esnext']] as const) {
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({
      compilerOptions: {
        target: 'es2023', lib: ['es2023'], types: ['node'], strict: true, exactOptionalPropertyTypes: true, noEmit: true, skipLibCheck: false, module, moduleResolution
      },
      files: ['use.ts']
    }))
    const said = await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder], { cwd: folder })
      .then(() => '', ({ stdout }: { stdout: string }) => stdout)
    t.equal(said, '', moduleResolution)
  }
})

t.test('try says how to get the service where it is not installed, and finds it beside itself and in the person\'s folder', async t => {
  const console = await startRustdeskServer(0, new Map())
  t.teardown(console.close)
  const alone = dataFolder(t)
  const plugin = packed.find(({ name }) => name === 'fastify-postern')?.filename ?? ''
  writeFileSync(join(alone, 'package.json'), JSON.stringify({ private: true }))
  await run('npm', ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', join(folder, plugin)], { cwd: alone, env, maxBuffer: 16 << 20 })
  t.notOk(existsSync(join(alone, 'node_modules/postern')), 'the service is optional')
  const command = 'node_modules/.bin/fastify-postern'
  await t.rejects(run(join(alone, command), ['try', console.url], { cwd: alone, env }), {
    code: 1, stderr: `fastify-postern: the service is not installed; run: npx -p fastify-postern -p postern fastify-postern try ${console.url}\nor install it in this folder first: npm install postern\n`
  })
  t.notOk(existsSync(join(alone, 'postern-try')), 'nothing is left behind')
  for (const [from, cwd] of [[folder, alone], [alone, folder]] as const) {
    const child = spawn(join(from, command), ['try', console.url, '--data', join(alone, `data of ${basename(from)}`)], { cwd, env, stdio: ['ignore', 'pipe', 'inherit'] })
    const exit = once(child, 'exit')
    t.teardown(() => { child.kill('SIGKILL') })
    const said: string[] = []
    for await (const line of createInterface({ input: child.stdout })) {
      said.push(line)
      if (line.startsWith('Keys and data')) child.kill('SIGINT')
    }
    t.match(said.join('\n'), /^preset rustdesk\n.*is the console with 2FA/)
    t.same(await exit, [0, null])
  }
})

t.test('the packed service starts, the README\'s example starts in front of it, and both end when asked', async t => {
  const port = await freePort()
  const { settings, gate } = settingsIn(folder)
  const service = await start(join(modules, '.bin/postern'), ['serve'], settings)
  t.equal((await fetch(`${service.operations}/readyz`)).status, 200)

  // The example as the README shows it, compiled as its user would, and run by Node alone.
  copyFileSync(join(root, 'examples/minimal/server.ts'), join(folder, 'server.ts'))
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({
    compilerOptions: { target: 'es2023', lib: ['es2023'], types: ['node'], strict: true, module: 'nodenext', noEmitOnError: true, rootDir: '.' },
    files: ['server.ts']
  }))
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder], { cwd: folder })
  const origin = `http://localhost:${port}`
  writeFileSync(join(folder, 'main.js'), `
    import { buildServer } from './server.js'
    const { SERVICE: service, KEY: tenantKey, ORIGIN: publicOrigin, PORT: port } = process.env
    const users = new Map([['ada', { id: 'ada', password: 'correct-horse-58', email: 'ada@console.example' }]])
    const app = await buildServer({ service, tenantKey, publicOrigin, users })
    await app.listen({ host: '127.0.0.1', port })
    console.log(JSON.stringify({ msg: 'ready', url: publicOrigin }))
    process.on('SIGTERM', () => { app.close().then(() => { process.exit(0) }) })
  `)
  const shop = await start(process.execPath, ['main.js'], { SERVICE: service.url, KEY: gate, ORIGIN: origin, PORT: String(port) })

  const login = await fetch(`${origin}/login`, {
    method: 'POST', redirect: 'manual', body: new URLSearchParams({ name: 'ada', password: 'correct-horse-58' })
  })
  t.equal(login.status, 303)
  const cookie = login.headers.getSetCookie().map(line => line.split(';')[0]).join('; ')
  const inside = await fetch(`${origin}/`, { headers: { cookie, accept: 'application/json' } })
  t.match(await inside.json(), { user: 'ada', '2fa': { status: 'not_required', totp: 'not_enabled' } })
  const settingsPage = await fetch(`${origin}/2fa/settings`, { headers: { cookie, accept: 'text/html' } })
  t.equal(settingsPage.status, 200)
  const page = await settingsPage.text()
  t.match(page, 'Console One')
  const assets = [...page.matchAll(/(?:href|src)="(\/2fa\/[^"]+\.(?:css|js)[^"]*)"/g)].map(([, path = '']) => path)
  t.ok(assets.length > 0, 'the page has a style sheet')
  for (const path of assets) t.equal((await fetch(origin + path, { headers: { cookie } })).status, 200, path)

  t.equal(await shop.stop(), 0)
  t.equal(await service.stop(), 0)
})
