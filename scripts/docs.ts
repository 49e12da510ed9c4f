// `npm run docs`: writes the pages that come from the code. `--check` only says which are out of step, and fails.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { chartReadme, chartSchema } from './chart.ts'
import { buildApp } from '../service/src/app.ts'
import { readConfig, SETTINGS } from '../service/src/config.ts'
import { LIMITS } from '../service/src/domain/policy.ts'
import { PROBLEMS } from '../service/src/domain/problems.ts'
import { PROBLEMS as GATE_PROBLEMS } from '../plugin/src/problems.ts'
import { SETTINGS as GATEWAY_SETTINGS } from '../plugin/src/gateway/settings.ts'
import { PRESETS } from '../plugin/src/presets/index.ts'
import { snakeCase, TENANT_SETTINGS, TENANT_WORDS } from '../service/src/tenants.ts'

const root = new URL('..', import.meta.url)

type Row = readonly (string | number)[]

function table (head: Row, rows: readonly Row[]): string {
  const line = (cells: Row): string => `| ${cells.map(cell => String(cell).replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

const page = (...parts: readonly string[]): string =>
  ['<!-- Made by `npm run docs`; change the code, not this page. -->', ...parts].join('\n\n') + '\n'

function problems (): string {
  return page(
    '# Problems',
    'Every error of the interface is an RFC 9457 problem document (`application/problem+json`) with `type`, `title`, `status` and a stable `code`. ' +
    'Codes never change meaning. Beside the code may stand `attempts_left`, `retry_after` (seconds), `next_in` (seconds until the next code), ' +
    '`clock_off` (seconds by which the phone is ahead), `detail` and `errors`; a 429 and a 503 carry `Retry-After`.',
    table(['code', 'status', 'meaning'], Object.entries(PROBLEMS).map(([code, { status, title }]) => [`\`${code}\``, status, title])),
    '## Problems of the gate',
    'What the plugin answers to scripts in the console\'s place. A denial has status 401 (or 403 where `deniedStatus` says so) and carries `verify_url`, ' +
    'a step-up also `challenge`, `methods`, `csrf` and `max_age`.',
    table(['code', 'meaning'], Object.entries(GATE_PROBLEMS).map(([code, title]) => [`\`${code}\``, title]))
  )
}

interface SettingRow {
  readonly type: string
  readonly default?: string
  readonly required?: boolean
  readonly oneOf?: readonly string[]
  readonly min?: number
  readonly max?: number
  readonly text: string
}

function gatewaySettings (): string {
  const rows = (settings: Readonly<Record<string, SettingRow>>): string =>
    table(['setting', 'default', 'range', 'what it is for'], Object.entries(settings).map(([name, row]) =>
      [`\`POSTERN_GATEWAY_${name.toUpperCase()}\``, fallback(row), range(row), row.text]))
  return page(
    '# Settings of the gateway',
    'Settings come from the environment and from one JSON file, named by `POSTERN_GATEWAY_CONFIG`, of the form `{ "port": 8080, "public_patterns": [ … ] }`. ' +
    'In the file a setting is named in lower case without `POSTERN_GATEWAY_`; the environment wins. Lists are separated by commas.',
    rows(GATEWAY_SETTINGS),
    ...[...PRESETS.values()].flatMap(({ name, text, settings: own }) => [
      `## Preset ${name}`,
      `For ${text}.`,
      ...(Object.keys(own).length === 0 ? [] : [rows(own)])
    ])
  )
}

const range = ({ oneOf, min, max, type }: SettingRow): string =>
  oneOf !== undefined ? oneOf.map(word => `\`${word}\``).join(', ') : min !== undefined ? `${min} to ${max}` : type === 'flag' ? '`true`, `false`' : type
const fallback = (row: SettingRow): string =>
  row.required === true ? 'required' : row.default === undefined ? 'unset' : `\`${row.default}\``

function settings (): string {
  return page(
    '# Settings of the service',
    'Settings come from the environment and from one JSON file, named by `POSTERN_CONFIG`, of the form `{ "settings": { "port": 7070 }, "tenants": [ … ] }`. ' +
    'In the file a setting is named in lower case without `POSTERN_`; the environment wins. All mistakes are named together at start, and an unknown setting is one.',
    table(['setting', 'default', 'range', 'what it is for'], Object.entries(SETTINGS).map(([name, row]: [string, SettingRow]) =>
      [`\`POSTERN_${name.toUpperCase()}\``, fallback(row), range(row), row.text])),
    '`POSTERN_TENANTS` holds the list of tenants as JSON, in place of the file\'s.',
    '## A tenant',
    table(['setting', 'default', 'what it is for'], [
      ...Object.entries(TENANT_SETTINGS).map(([name, row]) => [`\`${name}\``, row.default, row.text]),
      ...Object.entries(TENANT_WORDS).map(([name, row]) => [`\`${name}\``, `\`${row.default}\``, `${row.text} One of ${row.words.map(word => `\`${word}\``).join(', ')}.`])
    ]),
    '## Limits of a tenant',
    'Each may be set within its safe range, under `limits`.',
    table(['limit', 'default', 'range', 'what it is for'], Object.entries(LIMITS).map(([name, row]) =>
      [`\`${snakeCase(name)}\``, `${row.value} ${row.unit}`, `${row.min} to ${row.max}`, row.text]))
  )
}

async function openapi (): Promise<string> {
  const key = (byte: number): string => Buffer.from(Array.from({ length: 32 }, (_, i) => (byte + i) % 256)).toString('base64')
  const app = await buildApp(readConfig({
    POSTERN_DATABASE: 'sqlite::memory:',
    POSTERN_ENCRYPTION_KEYS: `k1:${key(1)}`,
    POSTERN_SERVER_KEY: `s1:${key(2)}`,
    POSTERN_LOG_LEVEL: 'silent',
    POSTERN_TENANTS: JSON.stringify([{ id: 'docs', name: 'Docs', keys: [{ id: 'g1', scope: 'gate', sha256: '0'.repeat(64) }] }])
  }))
  await app.operations.ready()
  await app.api.ready()
  const { body } = await app.operations.inject('/openapi.json')
  await app.close()
  return JSON.stringify(JSON.parse(body), null, 2) + '\n'
}

/** Every generated page by its path. */
export async function generated (): Promise<Readonly<Record<string, string>>> {
  return {
    'docs/problems.md': problems(),
    'docs/settings.md': settings(),
    'docs/gateway-settings.md': gatewaySettings(),
    'docs/openapi.json': await openapi(),
    'helm/postern/values.schema.json': chartSchema(),
    'helm/postern/README.md': chartReadme()
  }
}

function onDisk (path: string): string | undefined {
  try {
    return readFileSync(new URL(path, root), 'utf8')
  } catch {
    return undefined
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const pages = Object.entries(await generated())
  const stale = pages.filter(([path, text]) => onDisk(path) !== text)
  if (process.argv.includes('--check')) {
    for (const [path] of stale) process.stderr.write(`${path} is not in step with the code: run npm run docs\n`)
    process.exitCode = stale.length === 0 ? 0 : 1
  } else {
    for (const [path, text] of stale) {
      writeFileSync(new URL(path, root), text)
      process.stdout.write(`wrote ${path}\n`)
    }
  }
}
