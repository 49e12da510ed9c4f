// The arrows between the rooms: http → domain ← adapters, and only the composition root knows everybody.

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('..', import.meta.url))

interface Import { readonly file: string, readonly room: string, readonly what: string, readonly typeOnly: boolean }

/** The room of a file: the folder below src, or the file itself where it stands at the top. */
function roomOf (path: string): string {
  const [packageName = '', , first = '', second] = path.split('/')
  return second === undefined ? `${packageName}/${first}` : `${packageName}/${first}/`
}

function importsOf (packageName: string): readonly Import[] {
  const folder = join(root, packageName, 'src')
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && entry.name.endsWith('.ts'))
    .flatMap(entry => {
      const path = join(entry.parentPath ?? entry.path, entry.name)
      const file = relative(root, path)
      const text = readFileSync(path, 'utf8')
      return [...text.matchAll(/^(?:import|export)\s+(type\s)?[^'"]*?from '([^']+)'|import\('([^']+)'\)/gm)].map(match => {
        const to = match[2] ?? match[3] ?? ''
        const what = to.startsWith('.') ? relative(root, join(dirname(path), to)) : to
        return { file, room: roomOf(file), what, typeOnly: match[1] !== undefined }
      })
    })
}

const service = importsOf('service')
const plugin = importsOf('plugin')

const inside = (one: Import): boolean => one.what.startsWith('service/') || one.what.startsWith('plugin/')
const broken = (imports: readonly Import[], allowed: (one: Import) => boolean): readonly string[] =>
  imports.filter(one => !allowed(one)).map(({ file, what }) => `${file} imports ${what}`)

t.test('the imports are really read', async t => {
  t.ok(service.length > 150 && plugin.length > 80, `${service.length} and ${plugin.length}`)
  t.ok(service.some(({ room, what }) => room === 'service/http/' && what === 'service/src/domain/ports.ts'))
})

t.test('the domain imports nothing but itself, node:crypto and what writes a key URI', async t => {
  const outside = new Set(['node:crypto', '@otplib/uri'])
  t.same(broken(service.filter(({ room }) => room === 'service/domain/'), ({ what }) =>
    what.startsWith('service/src/domain/') || outside.has(what)), [])
})

/** Where files of the package lie, which is not where its code runs. */
const FOLDER = 'service/src/package-folder.ts'

t.test('routes and pages call the domain and never an adapter', async t => {
  const own = ['service/src/http/', 'service/src/domain/']
  t.same(broken(service.filter(({ room }) => room === 'service/http/'), one =>
    inside(one)
      ? own.some(folder => one.what.startsWith(folder)) || (one.what === 'service/src/tenants.ts' && one.typeOnly) || one.what === FOLDER
      : !['ioredis', 'kysely', 'pg', 'nodemailer'].includes(one.what)), [])
})

t.test('adapters know the ports and one another, and nothing of HTTP', async t => {
  t.same(broken(service.filter(({ room }) => room === 'service/adapters/'), one =>
    inside(one)
      ? one.what.startsWith('service/src/adapters/') || one.what.startsWith('service/src/domain/') || one.what === FOLDER ||
        (one.what === 'service/src/config.ts' && one.typeOnly)
      : one.what !== 'fastify' && !one.what.startsWith('@fastify/')), [])
})

t.test('only the composition root and the command line know both routes and adapters', async t => {
  const know = (folder: string): Set<string> =>
    new Set(service.filter(({ what }) => what.startsWith(`service/src/${folder}/`)).map(({ file }) => file)
      .filter(file => !file.startsWith(`service/src/${folder}/`)))
  const routes = know('http')
  t.same([...know('adapters')].filter(file => routes.has(file)), ['service/src/app.ts'])
})

t.test('the plugin knows the service by its HTTP interface only; only the gateway needs more than fastify-plugin', async t => {
  t.same(broken(plugin, one => inside(one)
    ? one.what.startsWith('plugin/src/')
    : one.what.startsWith('node:') || one.what === 'fastify-plugin' || (one.what === 'fastify' && one.typeOnly) ||
      (['fastify', 'undici'].includes(one.what) && ['plugin/gateway/', 'plugin/proxy/'].includes(one.room))), [])
})

t.test('no file imports itself in a circle', async t => {
  const graph = new Map<string, string[]>()
  for (const one of [...service, ...plugin]) {
    if (inside(one) && !one.typeOnly) graph.set(one.file, [...graph.get(one.file) ?? [], one.what])
  }
  const circles: string[] = []
  const done = new Set<string>()
  const walk = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) { circles.push([...path.slice(path.indexOf(file)), file].join(' → ')); return }
    if (done.has(file)) return
    for (const next of graph.get(file) ?? []) walk(next, [...path, file])
    done.add(file)
  }
  for (const file of graph.keys()) walk(file, [])
  t.same(circles, [])
})

t.test('every source file says at its top what it is for', async t => {
  const silent = [...new Set([...service, ...plugin].map(({ file }) => file))]
    .filter(file => !/^(#!.*\n)?\/\/ \S/.test(readFileSync(join(root, file), 'utf8')))
  t.same(silent, [])
})

t.test('what is loaded on first use is taken by its default export: a bundle has no other of an older package', async t => {
  const taken = [...new Set(service.map(({ file }) => file))].flatMap(file =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/const (.*) = await import\('[^.]/g)].map(([, names = '']) => `${file}: ${names}`))
  t.ok(taken.length > 4, `${taken.length} places`)
  t.same(taken.filter(one => !/: (?:\{ default: .*\}|\[ajv, stringify\])$/.test(one)), [])
})
