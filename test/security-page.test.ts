// docs/security.md held against the code: its figures, its limits, its calls, and the tests that it names.

import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { defaultLimits, LIMITS, waitAfter } from '../service/src/domain/policy.ts'

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
const page = read('docs/security.md')

t.test('the arithmetic of guessing is that of the default limits', async t => {
  const limits = defaultLimits
  const one = (2 * limits.totpWindowSteps + 1) / 1e6
  const guesses = Math.min(limits.lockInARow, limits.lockIn30Days)
  const chance = (tries: number): number => 1 - (1 - one) ** tries
  const waits = Array.from({ length: guesses - 1 }, (_, index) => waitAfter(index + 1, limits))
  const hours = waits.reduce((sum, wait) => sum + wait, 0) / 3_600_000
  const yearly = Math.ceil((limits.lockIn30Days - 1) * 365 / 30)
  const figures = [
    ['one guess at a TOTP code', `${(one * 100).toFixed(6)} %`],
    ['one guess at an e-mailed code', `${(1e-6 * 100).toFixed(6)} %`],
    ['until TOTP and e-mail codes lock', String(guesses)],
    ['guessed a TOTP code by then', `${(chance(guesses) * 100).toFixed(4)} %`],
    ['stretch these guesses over', `${hours.toFixed(1)} hours`],
    ['guesses a year without ever locking', String(yearly)],
    ['chance a year to guess', `${(chance(yearly) * 100).toFixed(3)} %`],
    ['one guess at a backup code', (6 / 2 ** 80).toExponential(2)]
  ] as const
  for (const [question, figure] of figures) {
    const row = page.split('\n').find(line => line.startsWith('|') && line.includes(question))
    t.equal(row?.split('|').at(-2)?.trim(), figure, question)
  }
})

t.test('every limit of attempts, waits, locks and mails stands there with its default, and no other', async t => {
  const rows = [...page.matchAll(/^\| `(\w+)` \| (\d+ \w+) \|/gm)].map(([, name = '', value = '']) => [name, value])
  const other = new Set(['totpWindowSteps', 'totpExpiresDays', 'loginDays', 'stepUpSeconds', 'enrolmentCodeHours'])
  t.same(Object.fromEntries(rows), Object.fromEntries(Object.entries(LIMITS)
    .filter(([name]) => !other.has(name)).map(([name, row]) => [name, `${row.value} ${row.unit}`])))
})

t.test('every call that takes a code stands there, and no other', async t => {
  const { paths } = JSON.parse(read('docs/openapi.json')) as { paths: Record<string, Record<string, { requestBody?: unknown }>> }
  const taking = Object.entries(paths).flatMap(([path, calls]) => Object.entries(calls)
    .filter(([, { requestBody }]) => JSON.stringify(requestBody ?? null).includes('"code":'))
    .map(([method]) => `${method.toUpperCase()} ${path}`))
  const named = [...page.matchAll(/^- `([A-Z]+ \/v1[^`]*)`/gm)].map(([, call]) => call)
  t.ok(named.length > 3)
  t.same(named.sort(), taking.sort())
})

t.test('every row from B-01 to B-63 stands there once, and every test that it names exists', async t => {
  const rows = [...page.matchAll(/^\| (B-\d\d) \|/gm)].map(([, row]) => row)
  t.same(rows, Array.from({ length: 63 }, (_, index) => `B-${String(index + 1).padStart(2, '0')}`))
  const named = [...page.matchAll(/`(test\/[\w/.-]+\.test\.ts)`: "(.+?)"(?= \||\.| looks|;)/g)]
  t.equal(named.length, [...page.matchAll(/`test\/[\w/.-]+`: "/g)].length, 'each is read')
  t.ok(named.length > 35, String(named.length))
  for (const [, file = '', name = ''] of named) {
    const text = existsSync(new URL(`../${file}`, import.meta.url)) ? read(file).replaceAll("\\'", "'") : ''
    t.ok(["'", '"', '`'].some(quote => text.includes(name + quote)), `${file}: ${name}`)
  }
})
