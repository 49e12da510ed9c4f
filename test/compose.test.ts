// examples/compose as docker compose would run it, without docker: the file says nothing that Compose does not know,
// and the real programs, started with exactly its commands and environments, let somebody in with a code.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import { parse } from 'yaml'
import { createBrowser } from './helpers/form-browser.ts'
import { startPostgres } from './helpers/postgres.ts'
import { dataFolder, postern, serve } from './helpers/processes.ts'
import { freePort, startRedis } from './helpers/redis.ts'
import { by, totpCode } from './helpers/service.ts'

t.setTimeout(300_000)

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = join(root, 'examples/compose')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

// The keys of the Compose specification that the file uses, with what it allows them to be.
const closed = { additionalProperties: false }
const duration = Type.String({ pattern: '^([0-9]+(h|m|s|ms|us))+$' })
const words = Type.Array(Type.String())
const Service = Type.Object({
  build: Type.Optional(Type.Object({
    context: Type.String(), dockerfile: Type.Optional(Type.String()), target: Type.Optional(Type.String())
  }, closed)),
  image: Type.Optional(Type.String()),
  command: Type.Optional(words),
  env_file: Type.Optional(Type.String()),
  depends_on: Type.Optional(Type.Record(Type.String(), Type.Object({
    condition: Type.Enum(['service_started', 'service_healthy', 'service_completed_successfully'])
  }, closed))),
  networks: Type.Optional(words),
  volumes: Type.Optional(Type.Array(Type.String({ pattern: '^[^:]+:/[^:]*(:ro|:rw)?$' }))),
  ports: Type.Optional(Type.Array(Type.String({ pattern: '^(\\d+\\.\\d+\\.\\d+\\.\\d+:)?\\d+:\\d+$' }))),
  healthcheck: Type.Optional(Type.Object({
    test: words, interval: Type.Optional(duration), retries: Type.Optional(Type.Integer())
  }, closed)),
  read_only: Type.Optional(Type.Boolean()),
  cap_drop: Type.Optional(words),
  security_opt: Type.Optional(words),
  stop_grace_period: Type.Optional(duration),
  restart: Type.Optional(Type.Enum(['no', 'always', 'on-failure', 'unless-stopped']))
}, closed)
const Compose = Type.Object({
  name: Type.String({ pattern: '^[a-z0-9][a-z0-9_-]*$' }),
  services: Type.Record(Type.String(), Service),
  networks: Type.Record(Type.String(), Type.Object({ internal: Type.Optional(Type.Boolean()) }, closed)),
  volumes: Type.Record(Type.String(), Type.Object({}, closed))
}, closed)

const text = readFileSync(join(folder, 'compose.yaml'), 'utf8')
const compose = parse(text) as Static<typeof Compose>

/** The lines of a stage of a Dockerfile; of the last one where none is named. */
function stage (dockerfile: string, target?: string): string {
  const stages = dockerfile.split(/^(?=FROM )/m).slice(1)
  const found = target === undefined ? stages.at(-1) : stages.find(one => one.split('\n', 1)[0]?.endsWith(` AS ${target}`))
  if (found === undefined) throw new Error(`the Dockerfile has no stage ${String(target)}`)
  return found.replaceAll('\\\n', ' ')
}
const stageOf = ({ build }: Static<typeof Service>): string =>
  stage(read(build?.dockerfile ?? 'Dockerfile'), build?.target)

/** A file of settings as Compose reads it; a value that it would change is a mistake. */
function environmentIn (path: string): Record<string, string> {
  return Object.fromEntries(readFileSync(path, 'utf8').trim().split('\n').map(line => {
    const [, name = '', value = ''] = /^(\w+)=(.*)$/.exec(line) ?? []
    if (name === '' || /\$| #|^["']|^\s|\s$/.test(value)) throw new Error(`${path}: Compose would not read ${name} as it stands`)
    return [name, value]
  }))
}

/** What setup.ts makes, in a folder of its own. */
async function setUp (): Promise<{ data: string, password: string, again: () => Promise<unknown> }> {
  const data = join(dataFolder(t), 'data')
  const run = async () => await promisify(execFile)(process.execPath, ['--import', 'tsx', join(folder, 'setup.ts'), data], { cwd: root })
  const { stdout } = await run()
  return { data, password: /as ada with the password (\S+)/.exec(stdout)?.[1] ?? '', again: run }
}

t.test('the file holds keys that Compose knows, and every name in it leads somewhere', async t => {
  t.same([...Value.Errors(Compose, compose)].map(({ instancePath, message }) => `${instancePath} ${message}`), [])
  t.notOk(Value.Check(Compose, { ...compose, services: { postern: { imagee: 'x' } } }), 'a misspelt key is found')
  const { data } = await setUp()
  const ignored = read('.gitignore').split('\n')
  t.ok(ignored.includes('data/') || ignored.includes('**/data/') || ignored.includes('data'), 'what setup.ts makes is never committed')
  for (const [name, service] of Object.entries(compose.services)) {
    t.not(service.build === undefined, service.image === undefined, `${name} is either built or an image`)
    if (service.build !== undefined) {
      t.equal(join(folder, service.build.context), join(root, '.'), name)
      t.ok(stageOf(service).startsWith('FROM '), name)
    }
    if (service.env_file !== undefined) t.ok(existsSync(join(data, service.env_file.replace(/^data\//, ''))), `setup.ts makes ${service.env_file}`)
    for (const network of service.networks ?? []) t.ok(Object.hasOwn(compose.networks, network), network)
    for (const volume of service.volumes ?? []) {
      const [from = ''] = volume.split(':')
      t.ok(from.startsWith('./data/') ? existsSync(join(data, from.replace('./data/', ''))) : Object.hasOwn(compose.volumes, from), volume)
    }
    for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
      const needed = compose.services[other]
      if (needed === undefined) t.fail(`${name} needs ${other}, which is not there`)
      else if (condition === 'service_healthy') t.ok(needed.healthcheck !== undefined || /^HEALTHCHECK /m.test(stageOf(needed)), `${other} says whether it is healthy`)
      else if (condition === 'service_completed_successfully') t.equal(needed.restart, undefined, `${other} ends`)
    }
    t.ok((service.ports ?? []).every(port => port.startsWith('127.0.0.1:')), `${name} is published on loopback alone`)
  }
  t.same(Object.entries(compose.services).filter(([, { ports }]) => ports !== undefined).map(([name]) => name), ['console'])
  t.same([compose.services['postern']?.networks, compose.networks['inside']], [['inside'], { internal: true }], 'the service has no way out')
})

t.test('nothing secret stands in the file; what setup.ts makes is for its owner alone, and never made twice', async t => {
  t.notMatch(text, /environment:|password|secret[_:=]|[A-Za-z0-9+/_-]{32,}|pk_/i)
  const { data, again } = await setUp()
  t.equal(statSync(data).mode & 0o077, 0)
  for (const name of ['postern.env', 'postgres.env']) t.equal(statSync(join(data, name)).mode & 0o077, 0, name)
  t.equal(statSync(join(data, 'console')).mode & 0o777, 0o777, 'the console\'s container writes there')
  const before = readFileSync(join(data, 'postern.env'), 'utf8')
  await t.rejects(again(), /is there already\. Its keys open the database/)
  t.equal(readFileSync(join(data, 'postern.env'), 'utf8'), before)
})

t.test('started in its order with its commands and environments, it lets somebody in with a code', async t => {
  const { data, password } = await setUp()
  const { POSTGRES_USER: user = '', POSTGRES_DB: name = '', POSTGRES_PASSWORD: secret = '' } = environmentIn(join(data, 'postgres.env'))
  const database = await startPostgres(t)
  writeFileSync(join(database.data, 'pg_hba.conf'), 'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n')
  await database.query('select pg_reload_conf()')
  await database.query(`create role ${user} login password '${secret}'`)
  await database.query(`create database ${name} owner ${user}`)
  const redis = await startRedis(t, ...compose.services['redis']?.command?.slice(1) ?? [])

  // What the image says, then what the file says; addresses are those of this machine.
  const image = Object.fromEntries([...(/^ENV (.*)$/m.exec(stageOf(compose.services['postern'] ?? {}))?.[1] ?? '').matchAll(/(\w+)=(\S+)/g)].map(([, key = '', value = '']) => [key, value]))
  t.match(image, { POSTERN_HOST: '0.0.0.0' }, 'other containers reach it')
  const given = environmentIn(join(data, compose.services['postern']?.env_file?.replace('data/', '') ?? ''))
  const settings = Object.fromEntries(Object.entries({ ...image, ...given }).map(([key, value]) => [key, value
    .replace('@postgres:5432/', `@127.0.0.1:${database.port}/`).replace('//redis:6379', redis.url.slice('redis:'.length)).replace('0.0.0.0', '127.0.0.1')]))
  t.ok(settings['POSTERN_DATABASE']?.includes(`:${database.port}/`) === true && settings['POSTERN_REDIS'] === redis.url, 'the names of the file\'s own services')
  const free = { ...settings, POSTERN_PORT: '0', POSTERN_OPERATIONS_PORT: '0' }
  t.match(await postern(compose.services['migrate']?.command ?? [], free), { code: 0, out: /schema is up to date/ })
  const service = await serve(t, free)
  t.equal((await fetch(`${service.operations}/readyz`)).status, 200)
  const found = await postern(['doctor'], free)
  t.match(found, { code: 0, out: /passed {2}redis: answers, and its policy drops nothing/ }, found.out)

  // The console, by the command of its image.
  const file = join(data, 'console/console.json')
  const config = JSON.parse(readFileSync(file, 'utf8')) as { port: number, publicOrigin: string, service: string, users: string, tenantKey: string }
  t.equal(config.service, `http://postern:${/^EXPOSE (\d+)/m.exec(stageOf(compose.services['postern'] ?? {}))?.[1] ?? ''}`, 'the port that the image names')
  t.same(compose.services['console']?.ports, [`127.0.0.1:${new URL(config.publicOrigin).port}:${config.port}`], 'browsers find it where it says it is')
  const port = await freePort()
  const inContainer = (path: string): string => path.replace(/^\/console\//, `${join(data, 'console')}/`)
  writeFileSync(file, JSON.stringify({ ...config, host: '127.0.0.1', port, service: service.url, users: inContainer(config.users) }))
  const [, ...command] = (JSON.parse(/^CMD (.*)$/m.exec(stageOf(compose.services['console'] ?? {}))?.[1] ?? '[]') as string[]).map(inContainer)
  const console = spawn(process.execPath, command, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(console, 'close')
  t.teardown(async () => {
    console.kill('SIGKILL')
    await ended
  })
  const said: string[] = []
  await new Promise<void>((resolve, reject) => {
    console.stdout.on('data', part => {
      said.push(String(part))
      if (said.join('').includes('"msg":"ready"')) resolve()
    })
    void ended.then(() => { reject(new Error(said.join(''))) })
  })

  const first = createBrowser(config.publicOrigin, `http://127.0.0.1:${port}`)
  t.match(await first.logIn('ada', password), { status: 303, location: '/' })
  t.equal((await first.go('/')).status, 200, 'without 2FA the password is enough')
  t.equal((await first.go('/2fa/settings')).status, 200, 'the pages of the service come through the console')
  const totp = async (path: string, body: object): Promise<Record<string, string>> => {
    const answer = await fetch(`${service.url}/v1/subjects/${Buffer.from('user-1001').toString('base64url')}/totp${path}`, {
      method: 'POST', headers: { authorization: `Bearer ${config.tenantKey}`, 'content-type': 'application/json' }, body: JSON.stringify(body)
    })
    return await answer.json() as Record<string, string>
  }
  const { id = '', key = '' } = await totp('', { by: by('user-1001') })
  await totp(`/${id}/confirm`, { by: by('user-1001'), code: totpCode(key, Date.now()) })

  const second = createBrowser(config.publicOrigin, `http://127.0.0.1:${port}`)
  t.match(await second.logIn('ada', password), { status: 303, location: '/' })
  const { status, location } = await second.go('/')
  t.equal(status, 303)
  t.match(location, /^\/2fa\//, 'now it asks for a code')
  // The code of this step is used up; that of the next one is good already.
  t.match((await second.answer(location, totpCode(key, Date.now() + 30_000))).text, '<h1>You are in</h1>')
  t.equal((await second.go('/')).status, 200, 'with it she is in')
})
