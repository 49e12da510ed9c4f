// Every state of the pages, walked through once: a test looks at each for barriers, a script takes its picture.

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Kysely } from 'kysely'
import type { Schema } from '../../service/src/adapters/schema.ts'
import { sqliteDialect } from '../../service/src/adapters/sqlite.ts'
import type { BrowserContextOptions } from 'playwright-core'
import { until, type Phone, type Visitor, type World } from './browser.ts'
import type { Teardown } from './service.ts'

export const PEOPLE = [
  { name: 'nora', password: 'silver-canal-58', email: 'nora@console.example', displayName: 'Nora Lindqvist' },
  { name: 'omar', password: 'amber-window-31', email: 'omar@console.example', displayName: 'Omar Haddad' },
  { name: 'pia', password: 'copper-violin-74', email: 'pia@console.example', displayName: 'Pia Ferrari' },
  {
    name: 'wolfeschlegelsteinhausenbergerdorff',
    password: 'longest-name-12',
    email: `${'wolfeschlegelsteinhausen'.repeat(2)}@subdomain.of.a.rather.long.console.example`,
    displayName: 'Hubert Blaine Wolfeschlegelsteinhausenbergerdorff senior'
  }
]

const NARROW: BrowserContextOptions = { viewport: { width: 320, height: 640 }, isMobile: true, hasTouch: true }
// 1280 px at 400 % is a page 320 px wide.
const ZOOMED: BrowserContextOptions = { viewport: { width: 320, height: 256 }, deviceScaleFactor: 4 }
const DARK: BrowserContextOptions = { colorScheme: 'dark' }
const NO_SCRIPT: BrowserContextOptions = { javaScriptEnabled: false }
const CHINESE: BrowserContextOptions = { locale: 'zh-CN' }

export type See = (name: string, visitor: Visitor) => Promise<void>

/** Goes through all states; `see` is called on each, with the page as a person sees it. */
export async function walkThroughStates (t: Teardown, world: World, see: See): Promise<void> {
  const database = new Kysely<Schema>({ dialect: sqliteDialect(world.facts.database) })
  t.teardown(async () => { await database.destroy() })

  const phone = await settings(t, world, see)
  await verification(t, world, see, database)
  await mailed(t, world, see, phone)
  await unreachable(t, world, see, database)
}

async function settings (t: Teardown, world: World, see: See): Promise<Phone> {
  const nora = await world.visit(t, 'nora')
  await nora.logIn()
  await nora.go('/2fa/settings')
  await see('settings-not-enabled', nora)
  await nora.press('Enable 2FA')
  await see('enable', nora)
  const phone = await nora.scan()
  await nora.enter(wrong(phone.codeAt(0)))
  await see('enable-wrong', nora)
  await nora.go('/2fa/settings/totp')
  await nora.enter(phone.codeAt(-240))
  await see('enable-clock-behind', nora)
  await nora.go('/2fa/settings/totp')
  await nora.enter(await phone.code())
  await see('backup-codes', nora)
  await nora.readCodes()
  await nora.page.getByLabel('I have kept these codes').check()
  await nora.press('Continue')
  await see('settings-enabled', nora)
  await world.ageTotp('nora', 181)
  await nora.go('/2fa/settings')
  await see('settings-expired', nora)

  for (const [name, options] of Object.entries({ narrow: NARROW, dark: DARK, 'no-script': NO_SCRIPT })) {
    const pia = await world.visit(t, 'pia', options)
    await pia.logIn()
    await pia.go('/2fa/settings')
    await see(`settings-not-enabled-${name}`, pia)
    await pia.press('Enable 2FA')
    await see(`enable-${name}`, pia)
  }
  const long = await world.visit(t, 'wolfeschlegelsteinhausenbergerdorff', NARROW)
  await long.logIn()
  await long.go('/2fa/settings')
  await see('settings-long-names-narrow', long)
  await long.press('Enable 2FA')
  await see('enable-long-names-narrow', long)
  const wei = await world.visit(t, 'wei', CHINESE)
  await wei.logIn()
  await wei.go('/2fa/settings')
  await see('settings-chinese', wei)
  await wei.page.locator('form[action$="/settings/totp"] button').click()
  await wei.page.getByRole('dialog').waitFor()
  await see('enable-chinese', wei)
  return phone
}

async function verification (t: Teardown, world: World, see: See, database: Kysely<Schema>): Promise<void> {
  const omar = await world.visit(t, 'omar')
  await omar.logIn()
  const { phone } = await omar.enable()
  await omar.logOut()
  await omar.logIn()
  await see('verify', omar)
  await omar.page.locator('#code').fill('123 45')
  await see('verify-typing', omar)
  for (const [name, options] of Object.entries({
    narrow: NARROW, zoomed: ZOOMED, dark: DARK, chinese: CHINESE, 'no-script': NO_SCRIPT
  })) {
    const again = await world.visit(t, 'omar', options)
    await again.logIn()
    await see(`verify-${name}`, again)
  }
  await omar.enter('12')
  await see('verify-malformed', omar)
  await omar.enter(wrong(phone.codeAt(0)))
  await see('verify-wrong', omar)
  for (let i = 0; i < 3; i++) await omar.enter(wrong(phone.codeAt(0)))
  await see('verify-last-try', omar)
  await omar.enter(wrong(phone.codeAt(0)))
  await see('verify-no-tries', omar)
  await omar.go('/')
  await see('verify-waiting', omar)
  const subject = subjectOf(world, 'omar')
  await database.updateTable('subjects').set({ locked_at: Date.now() }).where('subject', '=', subject).execute()
  const locked = await world.visit(t, 'omar')
  await locked.logIn()
  await see('verify-locked', locked)
  await locked.go('/2fa/verify/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA')
  await see('verify-expired', locked)
}

async function mailed (t: Teardown, world: World, see: See, phone: Phone): Promise<void> {
  const pia = await world.visit(t, 'pia')
  await pia.logIn()
  await pia.go('/2fa/settings')
  await pia.press('Send test code')
  await see('email-test-code', pia)
  const { text } = await world.mail(pia.email, /^\s*\d{6}\s*$/m)
  await pia.enter(/^\s*(\d{6})\s*$/m.exec(text)?.[1] ?? '')
  await see('settings-email', pia)
  await pia.logOut()
  await pia.logIn()
  await until('the page that asks for the mailed code', async () => /verify/.test(pia.path()) ? true : undefined)
  await see('verify-email', pia)
  const nora = await world.visit(t, 'nora')
  await nora.logIn()
  await nora.enter(await phone.code())
  await nora.go('/2fa/settings')
  await see('settings-email-unused', nora)
}

/** Six digits that are not the code. */
function wrong (code: string): string {
  return String((Number(code) + 1) % 1_000_000).padStart(6, '0')
}

/** The console's own id of a user, by which the service knows him. */
function subjectOf ({ facts }: World, name: string): string {
  const users = JSON.parse(readFileSync(join(dirname(facts.database), 'users.json'), 'utf8')) as readonly {
    readonly id: string
    readonly name: string
  }[]
  const user = users.find(one => one.name === name)
  if (user === undefined) throw new Error(`the demo has nobody called ${name}`)
  return user.id
}

/** Last, because a gate that met silence asks nobody for a moment. */
async function unreachable (t: Teardown, world: World, see: See, database: Kysely<Schema>): Promise<void> {
  const { pid } = await database.selectFrom('lease').select('pid').executeTakeFirstOrThrow()
  process.kill(pid, 'SIGSTOP')
  try {
    const nobody = await world.visit(t, 'omar')
    await nobody.logIn()
    await see('service-unreachable', nobody)
  } finally {
    process.kill(pid, 'SIGCONT')
  }
}
