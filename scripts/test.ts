// `npm test`: finds or installs what the tests need, builds, runs them, and says plainly what passed, failed and was
// skipped.

import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Parser } from 'tap-parser'
import { printedTable as attacks } from '../test/helpers/attack.ts'
import { printedTable as faults } from '../test/helpers/fault-table.ts'
import { findTool, TOOLS, type ToolName } from '../test/helpers/tools.ts'
import { build, isStale } from './build.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const allowSkip = process.env.POSTERN_TEST_ALLOW_SKIP === '1'

function run (command: string, args: readonly string[]): boolean {
  process.stdout.write(`$ ${command} ${args.join(' ')}\n`)
  return spawnSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] }).status === 0
}

const has = (command: string, ...args: readonly string[]): boolean =>
  spawnSync(command, args, { stdio: 'ignore' }).status === 0

/** Installs packages where this user may without being asked anything. */
function install (names: readonly ToolName[]): void {
  if (has('apt-get', '--version')) {
    const sudo = process.getuid?.() === 0 ? [] : has('sudo', '-n', 'true') ? ['sudo', '-n'] : undefined
    if (sudo === undefined) return
    const [command = 'apt-get', ...rest] = [...sudo, 'apt-get']
    run(command, [...rest, 'update', '-qq'])
    run(command, [...rest, 'install', '-y', '-qq', '--no-install-recommends', ...names.map(name => TOOLS[name].apt)])
  } else if (has('brew', '--version')) {
    for (const name of names) run('brew', ['install', ...TOOLS[name].brew])
  }
}

/** Throws one sentence that names what is missing. */
function needTools (): void {
  const names = Object.keys(TOOLS) as ToolName[]
  const missing = (): ToolName[] => names.filter(name => findTool(name) === undefined)
  const before = missing()
  if (before.length > 0) install(before)
  const after = missing()
  if (after.length === 0) return
  const list = after.map(name => `${name} (package ${TOOLS[name].apt})`).join(', ')
  const sentence = `The tests need what is not installed and could not be: ${list}.`
  if (!allowSkip) throw new Error(`${sentence} Install it, or set POSTERN_TEST_ALLOW_SKIP=1 to run without.`)
  process.stderr.write(`${sentence} What needs it is skipped.\n`)
}

interface Tally {
  passed: number
  failed: number
  readonly skipped: string[]
}

interface Result {
  readonly ok: boolean
  readonly fullname: string
  readonly name: string
  readonly skip: boolean | string
  readonly todo: boolean | string
  readonly diag: unknown
}

/** Runs tap and counts each assertion; a failure is printed where it happens, with what was expected. */
async function runTap (args: readonly string[], env: NodeJS.ProcessEnv): Promise<Tally & { readonly code: number }> {
  const tap = createRequire(import.meta.url)
    .resolve('tap/package.json')
    .replace('package.json', 'dist/esm/run.mjs')
  const child = spawn(
    process.execPath,
    [tap, 'run', '--reporter=tap', '--disable-coverage', '--allow-incomplete-coverage', ...args],
    {
      cwd: root,
      env,
      stdio: ['ignore', 'pipe', 'inherit']
    }
  )
  const tally: Tally = { passed: 0, failed: 0, skipped: [] }
  const parser = new Parser()
  const named = ({ fullname, name }: Result): string => `${fullname} > ${name}`
  parser.on('result', (result: Result) => {
    if (result.skip !== false || result.todo !== false) {
      tally.skipped.push(
        `${named(result)}: ${String(result.skip === false ? `todo ${String(result.todo)}` : result.skip)}`
      )
    } else if (result.ok) {
      tally.passed += 1
    } else {
      tally.failed += 1
      process.stdout.write(`\nnot ok: ${named(result)}\n${JSON.stringify(result.diag, null, 2)}\n\n`)
    }
  })
  parser.on('bailout', (reason: string) => {
    process.stdout.write(`Bail out: ${reason}\n`)
  })
  parser.on('assert', (file: Result & { readonly time?: number }) => {
    process.stdout.write(
      `${file.ok ? 'ok    ' : 'not ok'} ${file.name}${file.time === undefined ? '' : ` (${(file.time / 1000).toFixed(1)} s)`}\n`
    )
  })
  child.stdout.pipe(parser)
  const exit = new Promise<number>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => {
      resolve(code ?? 1)
    })
  })
  await new Promise(resolve => {
    parser.on('complete', resolve)
  })
  return { ...tally, code: await exit }
}

/** Everything: tools, build, tests, the line that CI reads. True where the run counts as passed. */
export async function test (args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<boolean> {
  needTools()
  if (isStale()) await build()
  const folder = mkdtempSync(join(tmpdir(), 'postern-run-'))
  const table = join(folder, 'tables.jsonl')
  const { passed, failed, skipped, code } = await runTap(args, { ...env, POSTERN_TEST_TABLE: table })
  const handed = existsSync(table)
    ? readFileSync(table, 'utf8').trim().split('\n').map(line => JSON.parse(line) as { table: string, row: never })
    : []
  for (const [name, printed] of [['attacks', attacks], ['faults', faults]] as const) {
    const rows = handed.filter(one => one.table === name).map(one => one.row)
    if (rows.length > 0) process.stdout.write(`\nTable of ${name}:\n${printed(rows)}\n`)
  }
  rmSync(folder, { recursive: true, force: true })
  if (skipped.length > 0) {
    process.stdout.write(`\nSkipped:\n${skipped.map(one => `  ${one}`).join('\n')}\n`)
    if (!allowSkip) process.stdout.write('A skipped test fails the run; POSTERN_TEST_ALLOW_SKIP=1 allows it.\n')
  }
  const good = code === 0 && failed === 0 && passed > 0 && (skipped.length === 0 || allowSkip)
  if (code !== 0 && failed === 0) process.stdout.write(`\nThe tests ended with exit code ${code}.\n`)
  process.stdout.write(`\n${passed} passed, ${failed} failed, ${skipped.length} skipped\n`)
  return good
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { positionals } = parseArgs({ allowPositionals: true })
  try {
    if (!(await test(positionals))) process.exitCode = 1
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
