// The image of the service: built from the Dockerfile by buildah, and run the way a cluster runs it.

import { createRequire } from 'node:module'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { buildImage, canBuild, runImage, type Image } from '../helpers/image.ts'
import { settingsIn } from '../helpers/processes.ts'
import { freePort } from '../helpers/redis.ts'

t.setTimeout(900_000)

const root = fileURLToPath(new URL('../..', import.meta.url))
const MEGABYTE = 1_000_000
/** Settings in which the image's own places stay, and which listens on loopback only. */
const settings = (more: Readonly<Record<string, string>> = {}): Record<string, string> => {
  const { POSTERN_DATABASE: _, ...rest } = settingsIn('/data').settings
  return { ...rest, POSTERN_HOST: '127.0.0.1', POSTERN_OPERATIONS_HOST: '127.0.0.1', ...more }
}

interface Component {
  readonly name: string
  readonly version: string
  readonly purl: string
  readonly licenses: readonly unknown[]
}

/** What somebody who got into the container could use, and what a service does not need. */
const UNWANTED = ['usr/local/bin/npm', 'usr/local/bin/npx', 'usr/local/bin/corepack', 'usr/local/lib/node_modules', 'app/service/src', 'app/package-lock.json']

/** Every package below a folder of modules, nested ones too. */
function packages (modules: string): readonly string[] {
  if (!existsSync(modules)) return []
  return readdirSync(modules, { withFileTypes: true }).filter(({ name }) => !name.startsWith('.')).flatMap(entry => {
    if (!entry.isDirectory()) return []
    const path = join(modules, entry.name)
    return entry.name.startsWith('@')
      ? readdirSync(path).flatMap(one => [`${entry.name}/${one}`, ...packages(join(path, one, 'node_modules'))])
      : [entry.name, ...packages(join(path, 'node_modules'))]
  })
}

async function until<T> (what: string, look: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + 60_000
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`did not happen within a minute: ${what}`)
    await new Promise(resolve => { setTimeout(resolve, 50) })
  }
}

if (!canBuild) {
  t.comment('An image is built and run by root on Linux only; here the Dockerfile is not tried.')
} else {
  let image: Image

  t.test('the Dockerfile builds to less than 200 MB compressed', async t_ => {
    image = await buildImage(t, 'service')
    const inMegabytes = (bytes: number): string => `${(bytes / MEGABYTE).toFixed(1)} MB`
    // On standard error: the runner of the tests reads standard output.
    process.stderr.write(`image of the service: ${inMegabytes(image.compressed)} compressed, ${inMegabytes(image.unpacked)} unpacked\n`)
    t_.ok(image.compressed > 20 * MEGABYTE, 'it was really measured')
    t_.ok(image.compressed < 200 * MEGABYTE, inMegabytes(image.compressed))
  })

  t.test('it says who runs it, how to look at it and where its data are', async t => {
    const { config } = image
    t.equal(config.User, '10001:10001', 'a number: a name cannot be checked by Kubernetes')
    t.same(config.Entrypoint, ['postern'])
    t.same(config.Cmd, ['serve'])
    t.equal(config.StopSignal ?? 'SIGTERM', 'SIGTERM')
    t.same(Object.keys(config.Volumes ?? {}), ['/data'])
    t.match(config.Healthcheck?.Test.join(' '), '/readyz')
    t.ok(config.Env.includes('NODE_ENV=production'))
    t.same(config.Env.filter(line => /KEY|SECRET|PASSWORD|TOKEN/i.test(line)), [], 'no secret is baked in')
  })

  t.test('it holds what runs in production, and an inventory that names all of it with its licence', async t => {
    for (const path of UNWANTED) t.notOk(existsSync(join(image.files, path)), path)
    t.notOk(existsSync(join(image.files, 'app/node_modules')), 'the service is a bundle')
    const bundled = JSON.parse(readFileSync(join(image.files, 'app/service/dist/bundled.json'), 'utf8')) as readonly Component[]
    const held = bundled.map(({ name }) => name)
    const { dependencies, devDependencies } = createRequire(import.meta.url)(join(root, 'service/package.json')) as
      { dependencies: Record<string, string>, devDependencies: Record<string, string> }
    t.same(Object.keys(dependencies), ['@photostructure/sqlite'], 'Node 24 has it built in')
    t.same(Object.keys(devDependencies).filter(name => !held.includes(name)), ['@fastify/type-provider-typebox', 'typebox'], 'types leave nothing behind')
    t.same(held.filter(name => ['typescript', 'tsx', 'tap', 'eslint', 'esbuild'].includes(name)), [], 'no development dependency')

    const { components, bomFormat } = JSON.parse(readFileSync(join(image.files, 'app/sbom.cdx.json'), 'utf8')) as
      { components: readonly Component[], bomFormat: string }
    t.equal(bomFormat, 'CycloneDX')
    const named = new Set(components.filter(({ purl }) => purl.startsWith('pkg:npm/')).map(({ name }) => name))
    t.same(held.filter(name => !named.has(name)), [])
    t.same([...named].filter(name => !held.includes(name)), [])
    t.same(components.filter(({ purl, licenses }) => purl.startsWith('pkg:npm/') && licenses.length === 0), [])
    t.match(components.find(({ purl }) => purl.startsWith('pkg:generic/node@'))?.version, /^24\./)
    t.ok(components.some(({ purl }) => purl.startsWith('pkg:deb/')), 'the system\'s packages too')
    const licences = readFileSync(join(image.files, 'app/licences.txt'), 'utf8')
    for (const name of held) t.match(licences, `\n${name} `)
    const expressions = new Set(components.filter(({ purl }) => purl.startsWith('pkg:npm/')).map(({ licenses }) => JSON.stringify(licenses)))
    t.same([...expressions].filter(one => !/MIT|ISC|BSD|Apache-2\.0|BlueOak|CC0|Unlicense/.test(one)), [], 'nothing with terms for who passes it on')
  })

  t.test('as a user without rights, on a read-only root, it answers /readyz and its own health check', async t => {
    const port = await freePort()
    const running = runImage(t, image, ['postern', 'serve'],
      settings({ POSTERN_OPERATIONS_PORT: String(port), POSTERN_DRAIN_SECONDS: '15' }))
    const { url, operations } = await running.ready()
    const ready = await fetch(`${operations}/readyz`)
    t.equal(ready.status, 200)
    t.match(await ready.json(), { status: 'ready', checks: { records: 'ok' } })

    const status = await running.status()
    t.match(status, /^Uid:\t10001\t10001\t10001\t10001$/m)
    t.match(status, /^Gid:\t10001\t10001\t10001\t10001$/m)
    t.match(status, /^CapEff:\t0+$/m)
    t.match(status, /^NoNewPrivs:\t1$/m)
    t.match(status, /^NSpid:.*\t1$/m, 'PID 1, so no init passes signals on')
    t.match(status, / \/ ro[, ]/, 'the root is read-only')

    const [, ...health] = image.config.Healthcheck?.Test ?? []
    const look = async (onPort: number): Promise<number | null> =>
      (await runImage(t, image, health, { POSTERN_OPERATIONS_PORT: String(onPort) }).ended).code
    t.equal(await look(port), 0)
    t.equal(await look(1), 1, 'and says so where nothing answers')

    await running.signal('TERM')
    const draining = await until('readiness goes red', async () => {
      const answer = await fetch(`${operations}/readyz`)
      return answer.status === 503 ? await answer.json() as unknown : undefined
    })
    t.match(draining, { status: 'draining' })
    t.equal((await fetch(`${url}/v1/challenges`, { method: 'POST' })).status, 401, 'requests are still answered')
    const { code, output } = await running.ended
    t.equal(code, 0)
    t.match(output, '"signal":"SIGTERM"')
  })

  t.test('the command line is the entry point: each command runs in a container of its own', async t => {
    const [entry = ''] = image.config.Entrypoint
    const ended = async (args: readonly string[], env = settings()) =>
      await runImage(t, image, [entry, ...args], env).ended
    t.match(await ended(['--help']), { code: 0, output: /postern serve/ })
    t.match(await ended(['migrate']), { code: 0, output: /schema is up to date/ })
    t.match(await ended(['keys', 'new', 'k1'], {}), { code: 0, output: /^k1:/ })
    t.match(await ended(['serve'], {}), { code: 1, output: /POSTERN_ENCRYPTION_KEYS is missing/ })
    t.match(await ended(['serve'], settings({ POSTERN_DATABASE: 'sqlite:/app/postern.db' })), { code: 1 }, 'nothing is written outside /data')
  })

  t.test('the gateway from the same file: its own entry, less than 200 MB, ready on a read-only root, and its doctor', async t => {
    const gateway = await buildImage(t, 'gateway')
    const inMegabytes = `${(gateway.compressed / MEGABYTE).toFixed(1)} MB`
    process.stderr.write(`image of the gateway: ${inMegabytes} compressed\n`)
    t.ok(gateway.compressed < 200 * MEGABYTE, inMegabytes)
    t.equal(gateway.config.User, '10001:10001')
    t.same(gateway.config.Entrypoint, ['postern-gateway'])
    const wanted = ['fastify', 'fastify-plugin', 'undici']
    const held = ['app/node_modules', 'app/plugin/node_modules'].flatMap(folder => packages(join(gateway.files, folder)))
    t.same(wanted.filter(name => !held.includes(name)), [])
    t.same(held.filter(name => ['kysely', 'ioredis', 'nodemailer', 'typescript'].includes(name)), [], 'nothing of the service')
    for (const path of [...UNWANTED, 'app/plugin/src']) t.notOk(existsSync(join(gateway.files, path)), path)
    const port = await freePort()
    const env = {
      POSTERN_GATEWAY_HOST: '127.0.0.1',
      POSTERN_GATEWAY_OPERATIONS_HOST: '127.0.0.1',
      POSTERN_GATEWAY_PORT: '0',
      POSTERN_GATEWAY_OPERATIONS_PORT: String(port),
      POSTERN_GATEWAY_UPSTREAM: 'http://127.0.0.1:1',
      POSTERN_GATEWAY_SERVICE: 'http://127.0.0.1:1',
      POSTERN_GATEWAY_TENANT_KEY: `pk_t1_g1_${'A'.repeat(43)}`,
      POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
      POSTERN_GATEWAY_PRESET: 'rustdesk',
      POSTERN_GATEWAY_DRAIN_SECONDS: '0'
    }
    const running = runImage(t, gateway, ['postern-gateway', 'serve'], env)
    const { url, operations } = await running.ready()
    t.match(await (await fetch(`${operations}/readyz`)).json(), { status: 'ok', preset: 'rustdesk' })
    t.equal((await fetch(`${url}/2fa/own/style.css`)).status, 200, 'its own pages are there')
    const [, ...health] = gateway.config.Healthcheck?.Test ?? []
    t.equal((await runImage(t, gateway, health, env).ended).code, 0)
    t.match(await runImage(t, gateway, ['postern-gateway', 'doctor'], env).ended, { code: 1, output: /failed {2}console: nothing answers/ })
    await running.signal('TERM')
    t.equal((await running.ended).code, 0)
  })
}
