// `npm run screenshots [<folder>]`: pictures of the pages in each of their states; docs/screenshots unless given.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startWorld } from '../test/helpers/browser.ts'
import { PEOPLE, walkThroughStates } from '../test/helpers/states.ts'

/** What the README shows; the other states are pictured only where a folder is given. */
const SHOWN = new Set([
  'verify', 'enable', 'backup-codes', 'settings-not-enabled', 'settings-enabled', 'settings-expired', 'verify-dark', 'verify-chinese'
])

const { positionals: [given] } = parseArgs({ allowPositionals: true })
const folder = given ?? 'docs/screenshots'
mkdirSync(folder, { recursive: true })

const ends: (() => unknown)[] = []
const t = { teardown: (end: () => unknown) => { ends.unshift(end) } }
try {
  await walkThroughStates(t, await startWorld(t, PEOPLE), async (name, { page }) => {
    if (given === undefined && !SHOWN.has(name)) return
    await page.screenshot({ path: join(folder, `${name}.png`), animations: 'disabled', fullPage: true })
    process.stdout.write(`${name}\n`)
  })
} finally {
  for (const end of ends) await end()
}
