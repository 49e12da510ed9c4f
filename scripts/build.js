// Builds both packages: the service as a bundle, the plugin file by file for whoever mounts it, one style sheet for
// both. Plain JavaScript, because `prepare` runs it where the development dependencies may be absent.

import { spawn } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const PACKAGES = ['service', 'plugin']

/** Where the compiler is, or undefined where only runtime dependencies are installed. */
function compiler () {
  try {
    return createRequire(import.meta.url).resolve('typescript/bin/tsc')
  } catch {
    return undefined
  }
}

/** Newest modification time of the files below a folder; 0 where there is none. */
function newest (folder) {
  if (!existsSync(folder)) return 0
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .reduce((time, entry) => Math.max(time, statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs), 0)
}

/** Is something missing in dist/, or older than its source? */
export function isStale () {
  return PACKAGES.some(name => {
    const built = join(root, name, 'dist', name === 'service' ? 'main.js' : 'index.js')
    return !existsSync(built) || newest(join(root, name, 'src')) > newest(join(root, name, 'dist'))
  })
}

function compile (tsc, name) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [tsc, '-p', join(root, name, 'tsconfig.build.json')], { stdio: 'inherit' })
    child.on('error', reject)
    child.on('exit', code => {
      if (code === 0) resolve()
      else reject(new Error(`The ${name} does not compile`))
    })
  })
}

/** Builds both packages; throws where one does not compile. */
export async function build () {
  const tsc = compiler()
  if (tsc === undefined) throw new Error('TypeScript is not installed: run npm ci first')
  const { bundle } = await import('./bundle.js')
  await Promise.all([bundle(root, 'service'), compile(tsc, 'plugin')])
  // The plugin's own pages must look like the service's, also while the service is away.
  const sheet = join(root, 'service/browser/style.css')
  if (existsSync(sheet)) copyFileSync(sheet, join(root, 'plugin/browser/style.css'))
  // npm links the command `postern` to this file and runs it as it is.
  chmodSync(join(root, 'service/dist/main.js'), 0o755)
  chmodSync(join(root, 'plugin/dist/gateway.js'), 0o755)
  chmodSync(join(root, 'plugin/dist/cli/main.js'), 0o755)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (process.argv.includes('--if-possible') && compiler() === undefined) {
    process.stdout.write('Not built: the development dependencies are not installed.\n')
  } else {
    await build().catch(error => {
      process.stderr.write(`${error.message}\n`)
      process.exitCode = 1
    })
  }
}
