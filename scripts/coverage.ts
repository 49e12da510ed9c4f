// `npm run coverage`: the tests under c8, with the branch coverage of service/ and plugin/ held to 90 %. No exclusions.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

const { status } = spawnSync(process.execPath, [
  'node_modules/c8/bin/c8.js', '--all', '--exclude=!**', '--include=service/src/**/*.ts', '--include=plugin/src/**/*.ts',
  '--exclude-after-remap', '--reporter=text', '--reporter=lcovonly', '--check-coverage', '--branches=90', '--lines=0',
  '--functions=0', '--statements=0', '--', process.execPath, '--import', 'tsx', 'scripts/test.ts', ...process.argv.slice(2)
], { cwd: root, stdio: 'inherit' })
process.exitCode = status ?? 1
