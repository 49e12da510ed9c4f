// README and docs held against the code: what they name exists, and what exists is named.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { SETTINGS } from '../service/src/config.ts'
import { SETTINGS as GATEWAY_SETTINGS } from '../plugin/src/gateway/settings.ts'
import { PRESETS } from '../plugin/src/presets/index.ts'
import { PROBLEMS } from '../service/src/domain/problems.ts'
import { generated } from '../scripts/docs.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

const SKIPPED = new Set(['node_modules', '.git', '.tap', 'dist', 'data', 'coverage'])

function markdown (folder = root): readonly string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    if (SKIPPED.has(entry.name)) return []
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return markdown(path)
    return entry.name.endsWith('.md') ? [relative(root, path)] : []
  })
}

const pages = markdown()

t.test('generated pages are in step with the code', async t => {
  for (const [path, text] of Object.entries(await generated())) t.equal(read(path), text, path)
})

t.test('every link to a file leads somewhere', async t => {
  t.ok(pages.includes('README.md'))
  for (const page of pages) {
    for (const [, target = ''] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      const [file = '', anchor] = target.split('#')
      if (/^[a-z]+:/.test(target)) continue
      const path = file === '' ? page : join(dirname(page), file)
      t.ok(existsSync(join(root, path)), `${page} links to ${target}`)
      if (anchor === undefined || !path.endsWith('.md')) continue
      const anchors = [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
        heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').trim().replaceAll(' ', '-'))
      t.ok(anchors.includes(anchor), `${page} links to ${target}`)
    }
  }
})

t.test('every npm script that a page names exists, and every script is named somewhere', async t => {
  const scripts = Object.keys(JSON.parse(read('package.json')).scripts as Record<string, string>)
  const named = new Set<string>()
  for (const page of pages) {
    for (const [, name = ''] of read(page).matchAll(/\bnpm run (?:-s )?([a-z][a-z:-]*)/g)) {
      named.add(name)
      t.ok(scripts.includes(name), `${page} names npm run ${name}`)
    }
  }
  t.same(scripts.filter(name => !['start', 'test', 'prepare'].includes(name) && !named.has(name)), [])
})

t.test('every setting that a page names exists', async t => {
  const known = new Set([...Object.keys(SETTINGS).map(name => `POSTERN_${name.toUpperCase()}`), 'POSTERN_CONFIG', 'POSTERN_TENANTS', 'POSTERN_GATEWAY_CONFIG', 'POSTERN_GATEWAY_',
    ...[GATEWAY_SETTINGS, ...[...PRESETS.values()].map(({ settings }) => settings)].flatMap(Object.keys).map(name => `POSTERN_GATEWAY_${name.toUpperCase()}`)])
  for (const page of pages) {
    for (const [name] of read(page).matchAll(/\bPOSTERN_[A-Z_]+\b/g)) {
      t.ok(known.has(name) || name.startsWith('POSTERN_TEST_') || name === 'POSTERN_DENIED', `${page} names ${name}`)
    }
  }
})

t.test('every problem code that the interface or the plugin sends to callers is documented', async t => {
  const documented = new Set(pages.filter(page => page.startsWith('docs/')).flatMap(page =>
    [...read(page).matchAll(/`([a-z_]+)`/g)].map(([, code = '']) => code)))
  t.same(Object.keys(PROBLEMS).filter(code => !documented.has(code)), [])
  const sent = readdirSync(join(root, 'plugin/src'), { recursive: true, encoding: 'utf8' })
    .filter(file => file.endsWith('.ts')).flatMap(file =>
      [...read(`plugin/src/${file}`).matchAll(/(?:refuse\(\d+, |script\(request, reply, \d+, |problem\(request, reply, [\w.]+, )'([a-z_]+)'/g)]
        .map(([, code = '']) => code))
  t.ok(sent.length > 5)
  t.same([...new Set(sent)].filter(code => !documented.has(code)), [])
})

t.test('every option of the plugin is documented, and nothing else is called one', async t => {
  const source = read('plugin/src/options.ts')
  const body = source.slice(source.indexOf('interface PosternOptions'), source.indexOf('export type Mode'))
  const options = [...body.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, name = '']) => name)
  t.ok(options.length > 10)
  const named = [...read('docs/plugin.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, name = '']) => name)
  t.same(options.filter(name => !named.includes(name)), [])
})

t.test('every call of the interface has a summary, answers and problem documents', async t => {
  const { paths } = JSON.parse(read('docs/openapi.json')) as {
    paths: Record<string, Record<string, { summary?: string, responses?: Record<string, unknown> }>>
  }
  t.ok(Object.keys(paths).length > 10)
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, call] of Object.entries(methods)) {
      t.ok(call.summary, `${method} ${path}`)
      t.ok(Object.keys(call.responses ?? {}).some(status => status.startsWith('2')), `${method} ${path}`)
    }
  }
})

t.test('no page and no source speaks of the machine it was written on', async t => {
  for (const page of [...pages, 'package-lock.json']) t.notMatch(read(page), /(^|[^\w.-])\/(work|tmp|root)\/|"resolved": *"http/, page)
})
