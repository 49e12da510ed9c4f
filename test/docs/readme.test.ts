// The README's example, started as it stands against the real service, and what the README says of it.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { FastifyServerOptions } from 'fastify'
import t from 'tap'
import { buildServer, type MinimalOptions } from '../../examples/minimal/server.ts'
import { createBrowser } from '../helpers/form-browser.ts'
import { dataFolder } from '../helpers/processes.ts'
import { by, startService, type Service, type Teardown } from '../helpers/service.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

/** Runs commands as a person types them, and answers what they print; one that fails fails the test. */
async function shell (script: string, env: NodeJS.ProcessEnv): Promise<string> {
  return (await promisify(execFile)('bash', ['-euc', script], { cwd: root, env })).stdout
}

const PASSWORD = 'correct-horse-58'
const EMAIL = 'ada@console.example'
const EXAMPLE = /^ *\/\/ --8<-- \[start:readme\]\n(.*?)^ *\/\/ --8<-- \[end:readme\]$/ms

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** The example on a socket, in front of a service. */
async function listen (t: Teardown, service: string, tenantKey: string) {
  const port = await freePort()
  const publicOrigin = `http://localhost:${port}`
  const user = { id: 'ada', password: PASSWORD, email: EMAIL }
  const app = await buildServer({ service, tenantKey, publicOrigin, users: new Map([['ada', user]]) })
  await app.listen({ host: '127.0.0.1', port })
  t.teardown(async () => { await app.close() })
  return { user, browser: createBrowser(publicOrigin, `http://127.0.0.1:${port}`) }
}

/** The service on a socket, with a clock that the test moves, and the example in front of it. */
async function startExample (t: Teardown) {
  const service = await startService(t)
  await service.app.api.listen({ host: '127.0.0.1', port: 0 })
  const { port } = service.app.api.server.address() as AddressInfo
  return { service, ...await listen(t, `http://127.0.0.1:${port}`, service.keys.gate.key) }
}

async function enrol (service: Service): Promise<string> {
  const { key } = await service.enrol(by('ada', 'another browser'), { about: { email: EMAIL } })
  service.nextStep()
  return key
}

t.test('the README shows the code of examples/minimal, and the registration takes under ten lines', async t => {
  const [, region = ''] = EXAMPLE.exec(read('examples/minimal/server.ts')) ?? []
  const shown = region.replace(/^ {2}/gm, '').trimEnd()
  t.ok(shown.includes('app.register(postern'))
  t.ok(read('README.md').includes('```ts\n' + shown + '\n```'), 'README.md holds the marked region')
  const [registration = ''] = /^await app\.register\(postern.*?^\}\)$/ms.exec(shown) ?? []
  t.ok(registration.split('\n').length > 1 && registration.split('\n').length < 10)
})

t.test('the commands of the quick start make keys and start a service that the example can ask', async t => {
  const quickStart = read('README.md').split('## Quick start')[1] ?? ''
  const [make = '', serve = ''] = [...quickStart.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block)
  const made = await shell(`${make}env`, { PATH: process.env['PATH'] })
  const [, key = ''] = /^key: +(\S+)$/m.exec(made) ?? []
  const [, entry = ''] = /^entry: (.+)$/m.exec(made) ?? []
  t.ok(serve.includes('<the entry>'))

  const settings = Object.fromEntries(made.split('\n').filter(line => /^POSTERN_/.test(line)).map(line => {
    const equals = line.indexOf('=')
    return [line.slice(0, equals), line.slice(equals + 1)]
  }))
  t.same(Object.keys(settings).sort(), ['POSTERN_ENCRYPTION_KEYS', 'POSTERN_SERVER_KEY'])
  const child = spawn('bash', ['-ec', serve.replace('<the entry>', entry).replace(/^node /m, 'exec node ')], {
    cwd: root,
    env: {
      PATH: process.env['PATH'],
      ...settings,
      POSTERN_DATABASE: `sqlite:${join(dataFolder(t), 'postern.db')}`,
      POSTERN_PORT: '0',
      POSTERN_OPERATIONS_PORT: '0'
    },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const exit = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGINT')
    await exit
  })
  let url = ''
  for await (const line of createInterface({ input: child.stdout })) {
    const logged = JSON.parse(line) as { readonly msg: string, readonly url: string }
    if (logged.msg !== 'ready') continue
    url = logged.url
    break
  }

  const { browser } = await listen(t, url, key)
  await browser.logIn('ada', PASSWORD)
  const inside = await browser.script('/')
  t.equal(inside.status, 200)
  t.match(JSON.parse(inside.text), { '2fa': { status: 'not_required' } })
  const settingsPage = await browser.go('/2fa/settings')
  t.equal(settingsPage.status, 200)
  t.match(settingsPage.text, 'Shop console')
})

t.test('without a factor a login is enough, as before', async t => {
  const { browser } = await startExample(t)
  t.equal((await browser.go('/')).location, '/login')
  t.equal((await browser.logIn('ada', PASSWORD)).status, 303)
  const inside = await browser.script('/')
  t.equal(inside.status, 200)
  t.match(JSON.parse(inside.text), { user: 'ada', '2fa': { status: 'not_required', totp: 'not_enabled' } })
})

t.test('with a factor a logged-in session is denied before the verification and passes after it', async t => {
  const { service, browser } = await startExample(t)
  const key = await enrol(service)
  await browser.logIn('ada', PASSWORD)

  const script = await browser.script('/')
  t.equal(script.status, 401)
  t.match(JSON.parse(script.text), { code: 'login_required', verify_url: '/2fa/verify' })

  const document = await browser.go('/')
  t.equal(document.status, 303)
  t.match(document.location, /^\/2fa\/verify\/[\w-]+$/)

  const wrong = await browser.answer(document.location, '000000')
  t.equal(wrong.status, 403)
  t.match(wrong.text, '4 tries left')
  t.equal((await browser.script('/')).status, 401)

  const right = await browser.answer(document.location, service.code(key))
  t.equal(right.status, 303)
  t.equal(right.location, '/')
  const inside = await browser.script('/')
  t.equal(inside.status, 200)
  t.match(JSON.parse(inside.text), { '2fa': { status: 'verified', totp: 'enabled' } })
})

t.test('a step-up route asks a verified session for a fresh code and takes it with the form', async t => {
  const { service, user, browser } = await startExample(t)
  const key = await enrol(service)
  await browser.logIn('ada', PASSWORD)
  const document = await browser.go('/')
  await browser.answer(document.location, service.code(key))

  const asked = await browser.go('/email', { email: 'ada@new.example' })
  t.equal(asked.status, 401)
  t.match(asked.headers['www-authenticate'], /error="insufficient_user_authentication".*max_age=300/)
  t.match(asked.text, 'change your e-mail address')
  t.match(asked.text, 'value="ada@new.example"', 'the form is carried in the page')
  t.equal(user.email, EMAIL, 'nothing is saved yet')

  const problem = await browser.script('/email', { email: 'ada@new.example' })
  t.equal(problem.status, 401)
  t.match(JSON.parse(problem.text), { code: 'step_up_required', max_age: 300, methods: ['totp', 'backup_code'] })

  service.nextStep()
  const saved = await browser.go('/email', { email: 'ada@new.example', '2fa-code': service.code(key) })
  t.equal(saved.status, 303)
  t.equal(user.email, 'ada@new.example')
})

t.test('after log-out the next login is asked for a code again', async t => {
  const { service, browser } = await startExample(t)
  const key = await enrol(service)
  await browser.logIn('ada', PASSWORD)
  await browser.answer((await browser.go('/')).location, service.code(key))
  t.equal((await browser.script('/')).status, 200)
  t.equal((await browser.go('/logout', {})).location, '/login')
  await browser.logIn('ada', PASSWORD)
  t.equal((await browser.script('/')).status, 401)
})

t.test('a wrong option stops the start with one sentence that says what to do', async t => {
  const right: MinimalOptions = {
    service: 'http://127.0.0.1:7070',
    tenantKey: `pk_shop_g1_${'x'.repeat(43)}`,
    publicOrigin: 'http://localhost:3000',
    users: new Map()
  }
  const started = async (wrong: Partial<MinimalOptions>, server?: FastifyServerOptions): Promise<string> => {
    const app = await buildServer({ ...right, ...wrong }, server).catch((error: unknown) => error)
    if (app instanceof Error) return app.message
    throw new Error('the example started')
  }
  const sentences = {
    '"tenantKey" is missing; make one with "postern tenants key"': await started({ tenantKey: '' }),
    '"service" must be the URL of the 2FA service, as http://127.0.0.1:7070': await started({ service: 'localhost:7070' }),
    'the server has "trustProxy: true", which lets any client choose its address': await started({}, { trustProxy: true })
  }
  for (const [sentence, message] of Object.entries(sentences)) {
    t.ok(message.startsWith(`postern cannot start: ${sentence}`), message)
    t.match(message, /^[^\n]+\.$/)
    t.notOk(message.includes(right.tenantKey), 'no key in the message')
  }
})
