// The service with the packages that it needs in a few files: it is ready in a third of the time that a thousand files
// took, and holds 20 MB less. What is not needed at once stays in files of its own. Which packages are in it, with
// their licences, stands beside it in bundled.json.

import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'
import { npmPackage } from './npm-packages.js'

/** What packages of the older kind expect to find. */
const COMMONJS = [
  "import { createRequire as createRequireOfBundle } from 'node:module'",
  "import { fileURLToPath as pathOfUrl } from 'node:url'",
  'const require = createRequireOfBundle(import.meta.url)',
  'const __filename = pathOfUrl(import.meta.url)',
  "const __dirname = pathOfUrl(new URL('.', import.meta.url))"
].join(';')

/** Native code, which a bundle cannot hold: the driver for Node 20, and one that `pg` can do without. */
const BESIDE = ['@photostructure/sqlite', 'pg-native']

/**
 * What packages ask for at their start and the service never calls: read and run, it was a fifth of a start. Who calls
 * one is told so.
 */
const UNCALLED = [
  // Given by src/http/compilers.ts, which loads them when a route is first asked.
  { by: /\/fastify\/lib\/schema-controller\.js$/, packages: ['@fastify/ajv-compiler', '@fastify/fast-json-stringify-compiler'] },
  { by: /\/fastify\/lib\/server\.js$/, packages: ['node:http2'] },
  { by: /\/prom-client\/index\.js$/, packages: ['./lib/pushgateway', './lib/cluster'] }
]

const withoutUncalled = {
  name: 'without-uncalled',
  setup (build) {
    build.onResolve({ filter: /./, namespace: 'file' }, ({ path, importer }) =>
      UNCALLED.some(({ by, packages }) => packages.includes(path) && by.test(importer))
        ? { path, namespace: 'uncalled' }
        : undefined)
    build.onLoad({ filter: /./, namespace: 'uncalled' }, ({ path }) => ({
      contents: `module.exports = new Proxy(() => {}, {
        get: (_, name) => { throw new Error('${path} is not in the bundle: ' + String(name)) },
        apply: () => { throw new Error('${path} is not in the bundle') }
      })`
    }))
  }
}

/** Bundles `src/main.ts` of a package into its dist/. */
export async function bundle (root, name) {
  const dist = join(root, name, 'dist')
  rmSync(dist, { recursive: true, force: true })
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [join(name, 'src/main.ts')],
    outdir: dist,
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    external: BESIDE,
    plugins: [withoutUncalled],
    banner: { js: COMMONJS },
    legalComments: 'none',
    // Names stay, for whoever reads a stack.
    minifyWhitespace: true,
    metafile: true,
    logLevel: 'warning'
  })
  const folders = new Set(Object.keys(metafile.inputs).flatMap(path => {
    const found = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)
    return found === null ? [] : [found[0]]
  }))
  const packages = [...folders].flatMap(folder => npmPackage(join(root, folder)))
  packages.sort((a, b) => a.purl < b.purl ? -1 : 1)
  writeFileSync(join(dist, 'bundled.json'), `${JSON.stringify(packages, null, 1)}\n`)
}
