// npm run bench [-- <part>…] [--quick]: measures, prints, and keeps what it measured in docs/performance.md. With
// --quick it takes a minute, keeps nothing, and says which ratios fell.

import { parseArgs } from 'node:util'
import { build, isStale } from '../scripts/build.js'
import { gate } from './gate.ts'
import { gateway } from './gateway.ts'
import { PLAN, QUICK, type Plan } from './harness.ts'
import { memory } from './memory.ts'
import { fallen, keep, printed, type Part } from './report.ts'
import { createCleaning } from './servers.ts'
import { scale } from './scale.ts'
import { verify } from './verify.ts'
import type { Teardown } from '../test/helpers/service.ts'

/** A part measures one promise. `quick` leaves out what takes long and compares with nothing. */
export type Measure = (t: Teardown, plan: Plan, quick: boolean) => Promise<Part>

const PARTS: Readonly<Record<string, Measure>> = { verify, gate, gateway, memory, scale }
/** Those whose ratios can be compared with what stands in the page. */
const COMPARED = ['verify', 'gate', 'gateway']

const { values: { quick }, positionals } = parseArgs({ allowPositionals: true, options: { quick: { type: 'boolean', default: false } } })
const unknown = positionals.filter(name => !Object.hasOwn(PARTS, name))
if (unknown.length > 0) {
  process.stderr.write(`There is no part ${unknown.join(', ')}; there are ${Object.keys(PARTS).join(', ')}.\n`)
  process.exit(2)
}

// What is measured runs as in production, and inherits this.
process.env.NODE_ENV = 'production'
if (isStale()) await build()

const cleaning = createCleaning()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => { void cleaning.clean().finally(() => process.exit(1)) })
}
try {
  for (const [name, measure] of Object.entries(PARTS)) {
    const wanted = positionals.length > 0 ? positionals : quick ? COMPARED : Object.keys(PARTS)
    if (!wanted.includes(name)) continue
    const began = performance.now()
    const part = await measure(cleaning, quick ? QUICK : PLAN, quick)
    await cleaning.clean()
    const took = ((performance.now() - began) / 1000).toFixed(0)
    process.stdout.write(`\n## ${name} (${took} s)\n\n${printed(part)}\n`)
    if (quick) for (const sentence of fallen(name, part)) process.stdout.write(`\nFELL: ${sentence}\n`)
    else keep(name, part, new Date())
  }
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack ?? error.message : String(error)}\n`)
  process.exitCode = 1
} finally {
  await cleaning.clean()
}
