// The demo as a person meets it: real processes, a real Chromium, an authenticator that only knows the QR picture,
// and a list of every secret that came by.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import jsqr from 'jsqr'
import { Kysely } from 'kysely'
import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Locator, type Page } from 'playwright-core'
import { PNG } from 'pngjs'
import { build, isStale } from '../../scripts/build.js'
import { startDemo, type DemoFacts, type Person } from '../../scripts/demo.ts'
import { sqliteDialect } from '../../service/src/adapters/sqlite.ts'
import type { Schema } from '../../service/src/adapters/schema.ts'
import type { Teardown } from './service.ts'
import { tool } from './tools.ts'

/** How long anything that should happen may take on a busy machine. */
const PATIENCE_MS = 10_000
const STEP_SECONDS = 30
const DAY_MS = 86_400_000

const CHROMIUM = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'
]

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export interface Mail {
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
  readonly html: string
}

/** An authenticator app: it has the key from the picture and asks `oathtool` for codes. */
export interface Phone {
  readonly uri: string
  readonly key: string
  /** A code that was not shown before, for now or the next step; makes room for more where both are used up. */
  readonly code: () => Promise<string>
  /** The code that a clock shows which is this much ahead (or behind, if negative). */
  readonly codeAt: (aheadSeconds: number) => string
}

export interface World {
  readonly facts: DemoFacts
  /** A fresh browser, as if on another machine. */
  readonly visit: (t: Teardown, name: string, options?: BrowserContextOptions) => Promise<Visitor>
  /** Waits for the newest mail to an address with this in its subject or text that was not handed out before. */
  readonly mail: (address: string, words: RegExp) => Promise<Mail>
  readonly mails: () => Promise<readonly Mail[]>
  /** As if the key had been confirmed so many days ago. */
  readonly ageTotp: (name: string, days: number) => Promise<void>
  readonly keep: (kind: string, ...secrets: readonly string[]) => void
  /** Everything written anywhere, and every secret of the run that is found in it. */
  readonly leaks: () => Promise<Leaks>
  /** What browsers complained of: refused by the content policy, not found, thrown by a script. */
  readonly complaints: readonly string[]
}

export interface Leaks {
  /** `place: read` or `place: empty`. */
  readonly searched: readonly string[]
  /** How many secrets were looked for. */
  readonly secrets: number
  /** `kind in place`; never the secret. */
  readonly found: readonly string[]
}

export interface Visitor {
  readonly name: string
  readonly email: string
  readonly page: Page
  readonly context: BrowserContext
  /** Another tab of the same browser. */
  readonly tab: () => Promise<Page>
  readonly go: (path: string) => Promise<void>
  /** Types name and password on the log-in page; ends wherever the console sends. */
  readonly logIn: () => Promise<void>
  readonly logOut: () => Promise<void>
  /** Presses a button or follows a link, and waits for the page behind it. */
  readonly press: (name: string | RegExp | Locator) => Promise<void>
  /** Types a code on the page that asks for one, and sends it. */
  readonly enter: (code: string, button?: string | RegExp) => Promise<void>
  readonly heading: () => Promise<string>
  /** What the page says happened: its alert or status line. */
  readonly said: () => Promise<string>
  readonly path: () => string
  /** What axe finds wrong with the page for people who cannot see or point, as `rule: element`. */
  readonly barriers: () => Promise<readonly string[]>
  /** Reads the QR picture as it is drawn on the page. */
  readonly scan: (page?: Page) => Promise<Phone>
  /** The codes listed on the page. */
  readonly readCodes: () => Promise<readonly string[]>
  /** From the console's account page to enabled 2FA, and on past the backup codes. */
  readonly enable: () => Promise<{ readonly phone: Phone, readonly codes: readonly string[] }>
}

/** Starts the demo with these people beside its own, and one browser; ended with the test. */
export async function startWorld (t: Teardown, people: readonly Person[]): Promise<World> {
  if (isStale()) await build()
  const data = mkdtempSync(join(tmpdir(), 'postern-journeys-'))
  t.teardown(() => { rmSync(data, { recursive: true, force: true }) })
  let death: string | undefined
  const [demo, browser] = await Promise.all([
    startDemo({ data, port: 0, people, onDeath: sentence => { death = sentence } }),
    chromium.launch({ executablePath: tool('chromium'), args: CHROMIUM })
  ])
  const { facts } = demo
  const database = new Kysely<Schema>({ dialect: sqliteDialect(facts.database) })
  t.teardown(async () => {
    await browser.close()
    await database.destroy()
    await demo.stop()
    if (death !== undefined) throw new Error(death)
  })

  const secrets = new Map<string, string>()
  const keep: World['keep'] = (kind, ...all) => { for (const one of all) secrets.set(one, kind) }
  for (const { password } of facts.users) keep('password', password)
  keep('tenant key', facts.tenant_key, facts.admin_key)
  for (const { email } of facts.users) if (email !== null) keep('address', email)
  const urls = new Set<string>()
  const complaints: string[] = []
  const read = new Set<string>()
  const users = JSON.parse(readFileSync(join(data, 'users.json'), 'utf8')) as readonly { id: string, name: string }[]
  const idOf = (name: string): string => users.find(user => user.name === name)?.id ?? `nobody called ${name}`

  const mails: World['mails'] = async () => {
    const answer = await fetch(`${facts.mailbox}/messages`)
    return (await answer.json()) as readonly (Mail & { id: string })[]
  }

  const createPhone = (subject: string, uri: string): Phone => {
    const url = new URL(uri)
    const key = url.searchParams.get('secret') ?? ''
    keep('TOTP key', key, ...encodings(key))
    let last = 0
    const codeOf = (step: number): string => {
      const now = `--now=@${step * STEP_SECONDS}`
      const code = execFileSync(tool('oathtool'), ['--totp', '-b', now, key], { encoding: 'utf8' }).trim()
      keep('code', code)
      return code
    }
    const step = (aheadSeconds = 0): number => Math.floor((Date.now() / 1000 + aheadSeconds) / STEP_SECONDS)
    return {
      uri,
      key,
      codeAt: ahead => codeOf(step(ahead)),
      code: async () => {
        if (last > step()) {
          // Both steps in reach are used up: as if the last one had been used a minute ago.
          await database.updateTable('authenticators').set({ counter: step() - 2 })
            .where('subject', '=', subject).where('factor', '=', 'totp').execute()
          last = 0
        }
        last = Math.max(last + 1, step())
        return codeOf(last)
      }
    }
  }

  return {
    facts,
    mails,
    complaints,
    keep,
    visit: async (t, name, options = {}) => {
      const phone = (uri: string): Phone => createPhone(idOf(name), uri)
      return await visit({ t, name, options, browser, facts, urls, complaints, keep, createPhone: phone })
    },
    mail: async (address, words) => await until(`a mail to ${address} with ${String(words)}`, async () => {
      const found = ((await mails()) as readonly (Mail & { id: string })[]).find(one =>
        one.to.includes(address) && !read.has(one.id) && (words.test(one.subject) || words.test(one.text)))
      if (found !== undefined) read.add(found.id)
      return found
    }),
    ageTotp: async (name, days) => {
      const { numUpdatedRows } = await database.updateTable('authenticators').set({ confirmed_at: Date.now() - days * DAY_MS })
        .where('subject', '=', idOf(name)).where('factor', '=', 'totp').executeTakeFirstOrThrow()
      if (numUpdatedRows !== 1n) throw new Error(`${name} has no TOTP key`)
    },
    leaks: async () => {
      const places = new Map<string, string>([['addresses of pages', [...urls].join('\n')]])
      for (const file of readdirSync(data)) {
        if (/\.log$|^postern\.db/.test(file)) places.set(file, readFileSync(join(data, file), 'latin1'))
      }
      const letters = (await mails()).map(mail => [mail.subject, mail.text, mail.html].join('\n')).join('\n')
      const found: string[] = []
      for (const [secret, kind] of secrets) {
        // Six digits stand in times and ports too: a code is one where no other digit or letter touches it.
        const log = kind === 'code' ? new RegExp(`(?<![\\w.])${secret}(?!\\w)`) : undefined
        const binary = kind === 'code' ? new RegExp(`(?<!\\d)${secret}(?!\\d)`) : undefined
        for (const [place, text] of places) {
          const pattern = place.startsWith('postern.db') ? binary : log
          if (pattern === undefined ? text.includes(secret) : pattern.test(text)) found.push(`${kind} in ${place}`)
        }
        // Mails may hold the codes that they are for, and nothing else.
        if (!/^(?:code|address)$/.test(kind) && letters.includes(secret)) found.push(`${kind} in a mail`)
      }
      return { searched: [...places].map(([place, text]) => `${place}: ${text.length > 0 ? 'read' : 'empty'}`), secrets: secrets.size, found }
    }
  }
}

interface Visit {
  readonly t: Teardown
  readonly name: string
  readonly options: BrowserContextOptions
  readonly browser: Browser
  readonly facts: DemoFacts
  readonly urls: Set<string>
  readonly complaints: string[]
  readonly keep: World['keep']
  readonly createPhone: (uri: string) => Phone
}

async function visit (
  { t, name, options, browser, facts, urls, complaints, keep, createPhone }: Visit
): Promise<Visitor> {
  const user = facts.users.find(one => one.name === name)
  if (user === undefined) throw new Error(`the demo has nobody called ${name}`)
  const context = await browser.newContext({ baseURL: facts.console, locale: 'en-US', ...options })
  context.setDefaultTimeout(PATIENCE_MS)
  context.on('weberror', error => { complaints.push(`${name}: ${String(error.error())}`) })
  context.on('console', message => {
    // A refusal has a status of its own, which the browser remarks upon.
    if (message.type() !== 'error' || /status of 4\d\d/.test(message.text())) return
    complaints.push(`${name}: ${message.text()}`)
  })
  context.on('request', request => { urls.add(request.url()) })
  /** Session ids and bindings, as the browser has them now. */
  const keepCookies = async (): Promise<void> => {
    for (const cookie of await context.cookies()) {
      if (cookie.name === 'postern-lang') continue
      const value = decodeURIComponent(cookie.value)
      keep('cookie', value)
      if (cookie.name === 'console-session') keep('session id', value.split('.')[0] ?? value)
    }
  }
  t.teardown(async () => {
    await keepCookies()
    await context.close()
  })
  const page = await context.newPage()
  const moved = async (act: () => Promise<void>): Promise<void> => {
    const behind = page.waitForEvent('domcontentloaded')
    behind.catch(() => {})
    try {
      await act()
      await behind
    } catch (error) {
      const text = await page.locator('body').innerText().catch(() => '')
      throw new Error(`${String(error)}\n${page.url()} says:\n${text}`)
    }
    await keepCookies()
  }
  const button = (what: string | RegExp): Locator =>
    page.getByRole('button', { name: what, exact: true }).or(page.getByRole('link', { name: what, exact: true }))

  const self: Visitor = {
    name,
    email: user.email ?? '',
    page,
    context,
    tab: async () => await context.newPage(),
    go: async path => { await moved(async () => { await page.goto(path) }) },
    logIn: async () => {
      await self.go('/login')
      await page.getByLabel('Name').fill(name)
      await page.getByLabel('Password').fill(user.password)
      await self.press('Log in')
    },
    logOut: async () => {
      await self.go('/account')
      await self.press('Log out')
    },
    press: async what => {
      await moved(async () => { await (typeof what === 'object' && 'click' in what ? what : button(what)).click() })
    },
    enter: async (code, submit = /^(?:Verify|Verify and continue|Confirm and enable|Confirm and renew|Switch on)$/) => {
      if (code.replace(/\W/g, '').length === 6) keep('code', code.replace(/\W/g, ''))
      await page.getByRole('textbox').and(page.locator('[autocomplete=one-time-code]')).fill(code)
      await self.press(submit)
    },
    heading: async () => await page.getByRole('heading', { level: 1 }).innerText(),
    said: async () => (await page.getByRole('alert').or(page.getByRole('status')).first().innerText()).trim(),
    path: () => page.url().slice(facts.console.length),
    barriers: async () => {
      await page.evaluate(axe)
      const { violations } = await page.evaluate<{ violations: { id: string, nodes: { html: string }[] }[] }>('axe.run()')
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`))
    },
    scan: async (seen = page) => {
      const picture = PNG.sync.read(await seen.getByRole('dialog').getByRole('img').first().screenshot())
      const found = jsqr.default(new Uint8ClampedArray(picture.data), picture.width, picture.height)
      if (found === null) throw new Error('the picture cannot be read as a QR code')
      return createPhone(found.data)
    },
    readCodes: async () => {
      const codes = await page.getByRole('list').getByRole('code').or(page.locator('#codes code')).allInnerTexts()
      keep('backup code', ...codes, ...codes.map(code => code.replaceAll('-', '')))
      return codes
    },
    enable: async () => {
      await self.go('/2fa/settings')
      await self.press('Enable 2FA')
      const phone = await self.scan()
      await self.enter(await phone.code())
      const codes = await self.readCodes()
      await page.getByLabel('I have kept these codes').check()
      await self.press('Continue')
      return { phone, codes }
    }
  }
  return self
}

/** The key as bytes could be written: hex and base64, in both alphabets. */
function encodings (base32: string): readonly string[] {
  let bits = ''
  for (const letter of base32) bits += 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')
  const bytes = Buffer.from(bits.match(/.{8}/g)?.map(byte => Number.parseInt(byte, 2)) ?? [])
  return [bytes.toString('hex'), bytes.toString('base64'), bytes.toString('base64url'), bytes.toString('latin1')]
}

/** Asks again until there is an answer; fails with what was waited for. */
export async function until<T> (what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const end = performance.now() + PATIENCE_MS
  for (;;) {
    const answer = await ask()
    if (answer !== undefined) return answer
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`)
    await new Promise(resolve => { setTimeout(resolve, 50) })
  }
}
