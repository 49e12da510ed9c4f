// `npm run check`: what a change must pass beside the tests. Runs all of it and fails where one part fails.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

const PARTS = [
  ['types', process.execPath, ['node_modules/typescript/bin/tsc', '--noEmit']],
  ['lint', process.execPath, ['node_modules/eslint/bin/eslint.js', '--max-warnings=0', '--cache', '--cache-location', 'node_modules/.cache/eslint/', '.']],
  ['generated pages in step', process.execPath, ['--import', 'tsx', 'scripts/docs.ts', '--check']]
] as const

const failed: string[] = []
for (const [name, command, args] of PARTS) {
  const began = performance.now()
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) failed.push(name)
  process.stdout.write(`${status === 0 ? 'ok    ' : 'not ok'} ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)\n`)
}
if (failed.length > 0) {
  process.stderr.write(`Not passed: ${failed.join(', ')}\n`)
  process.exitCode = 1
}
