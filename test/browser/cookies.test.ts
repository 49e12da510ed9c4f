// Browsers and the cookies that the gate needs: plain HTTP under a name on a LAN, cookies that are dropped, and a
// console whose login is no cookie at all. In Chromium, which treats `console.lan` as it would on a LAN.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium, type BrowserContext, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { buildServer } from '../../examples/token-console/server.ts'
import { bindingName, startConsole } from '../helpers/console.ts'
import { served } from '../helpers/gateway.ts'
import { freePort } from '../helpers/redis.ts'
import { by, startService, type Service } from '../helpers/service.ts'
import { tool } from '../helpers/tools.ts'

const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--host-resolver-rules=MAP console.lan 127.0.0.1']
const LAN = 'console.lan'
const PATIENCE_MS = 30_000

const browser = await chromium.launch({ executablePath: tool('chromium'), args: ARGS })
t.teardown(async () => { await browser.close() })

async function visitor (t: Test, context?: BrowserContext): Promise<Page> {
  const made = context ?? await browser.newContext({ locale: 'en-US' })
  made.setDefaultTimeout(PATIENCE_MS)
  t.teardown(async () => { await made.close() })
  return await made.newPage()
}

/** A key of a subject who enrolled elsewhere, and its next code. */
async function enrolled (service: Service, subject: string): Promise<() => string> {
  const { key } = await service.enrol(by(subject), { about: { email: `${subject}@console.example` } })
  return () => {
    service.nextStep()
    return service.code(key)
  }
}

async function enter (page: Page, code: string): Promise<void> {
  await page.getByRole('textbox').fill(code)
  await page.getByRole('button', { name: /Verify/ }).click()
}

/** A console that logs whoever asks in by a cookie, on `host`; browsers are told that it is at `origin`. */
async function lanConsole (t: Test, publicOrigin: (port: number) => string, insecureCookies: boolean) {
  const service = await startService(t)
  const port = await freePort()
  const log: string[] = []
  const console = await startConsole(t, {
    service: { url: await served(service), tenantKey: service.keys.gate.key },
    server: { logger: { level: 'warn', stream: { write: (line: string) => { log.push(line) } } } },
    postern: { publicOrigin: publicOrigin(port), insecureCookies, timeoutMs: 10_000 },
    listen: false,
    after: app => {
      app.get<{ Params: { sid: string } }>('/login/:sid', { config: { postern: { public: true } } }, async (request, reply) =>
        await reply.header('set-cookie', `sid=${request.params.sid}; Path=/; HttpOnly; SameSite=Lax`).send('logged in'))
    }
  })
  await console.app.listen({ host: '127.0.0.1', port })
  return { service, console, log, at: `http://${LAN}:${port}` }
}

t.test('plain HTTP under a name on a LAN: refused at start, and with insecureCookies it works and warns', async t => {
  await t.rejects(lanConsole(t, port => `http://${LAN}:${port}`, false), /plain HTTP off loopback, where browsers drop Secure cookies/)
  const { service, console, log, at } = await lanConsole(t, port => `http://${LAN}:${port}`, true)
  t.match(log.join(''), /insecureCookies.* is on: anybody on the network can read the browser binding/)
  const code = await enrolled(service, 'ann')
  const page = await visitor(t)
  await page.goto(`${at}/login/ann.1`)
  await page.goto(`${at}/protected?x=1`)
  t.match(page.url(), /\/2fa\/verify\/[\w-]+$/)
  t.same(console.routes(), [])
  await enter(page, code())
  await page.waitForURL(`${at}/protected?x=1`)
  t.match(await page.locator('body').innerText(), /"status":"verified"/)
  const mine = (await page.context().cookies()).find(cookie => cookie.name === bindingName('t1', true))
  t.match(mine, { secure: false, httpOnly: true, sameSite: 'Lax' })
  await page.goto(`${at}/2fa/settings`)
  t.match(await page.locator('body').innerText(), /not encrypted|HTTPS/, 'the settings page says so')
  await page.goto(`${at}/settings`)
  await enter(page, code())
  await page.waitForURL(`${at}/settings`)
  t.same(console.routes(), ['protected', 'sensitive'])
})

t.test('a browser that drops the binding is told so, and is not sent round in circles', async t => {
  // As if HTTPS ended nowhere: the console believes in Secure cookies, and the browser is on plain HTTP.
  const { service, console, at } = await lanConsole(t, () => 'https://console.example', false)
  await enrolled(service, 'ann')
  const page = await visitor(t)
  const documents: string[] = []
  page.on('request', request => { if (request.isNavigationRequest()) documents.push(new URL(request.url()).pathname) })
  await page.goto(`${at}/login/ann.1`)
  await page.goto(`${at}/protected`)
  t.match(await page.locator('h1').innerText(), /cookie/i)
  t.same(documents.map(path => path.replace(/verify\/.*/, 'verify/…')), ['/login/ann.1', '/protected', '/2fa/verify/…'], 'one redirect')
  t.same((await page.context().cookies()).map(({ name }) => name), ['sid'])
  t.same(console.routes(), [])
})

async function tokenConsole (t: Test) {
  const service = await startService(t)
  const port = await freePort()
  const publicOrigin = `http://localhost:${port}`
  const users = new Map([['ada', { id: 'ada', password: 'her-password', displayName: 'Ada' }]])
  const options = { service: await served(service), tenantKey: service.keys.gate.key, publicOrigin, users }
  const app = await buildServer(options, { forceCloseConnections: true })
  t.teardown(async () => { await app.close() })
  await app.listen({ host: '127.0.0.1', port })
  return { service, users, publicOrigin }
}

async function logIn (page: Page, at: string): Promise<void> {
  await page.goto(at)
  await page.getByLabel('Name').fill('ada')
  await page.getByLabel('Password').fill('her-password')
  await page.getByRole('button', { name: 'Log in' }).click()
}

t.test('a console that keeps its token in script: verified by the page cookie, back in the console, and asked again to save', async t => {
  const { service, users, publicOrigin } = await tokenConsole(t)
  const code = await enrolled(service, 'ada')
  const page = await visitor(t)
  const complaints: string[] = []
  page.on('pageerror', error => { complaints.push(String(error)) })
  page.on('console', message => { if (message.type() === 'error' && !/status of 4\d\d/.test(message.text())) complaints.push(message.text()) })
  const given: string[] = []
  page.on('request', request => { given.push(`${request.method()} ${new URL(request.url()).pathname} ${request.headers()['authorization'] === undefined ? 'without' : 'with'}`) })
  await logIn(page, publicOrigin)
  await page.waitForURL('**/2fa/verify/*')
  t.equal(given.filter(one => one === 'POST /2fa/session with').length, 1, 'the token is handed over once, in its own header')
  t.same(given.filter(one => one.startsWith('GET /2fa/') && one.endsWith('with')), [], 'and never goes to a page')
  t.notMatch(page.url(), await page.evaluate("sessionStorage.getItem('token')"))
  await enter(page, '000000')
  t.match(await page.getByRole('alert').innerText(), /not right/)
  await enter(page, code())
  await page.getByRole('heading', { name: 'Hello Ada' }).waitFor()
  t.equal(page.url(), `${publicOrigin}/`)
  t.same((await page.context().cookies()).map(({ name }) => name.replace(/[0-9a-f]{8}$/, '…')).sort(), ['__Host-postern-page-…', '__Host-postern-…'].sort())

  service.advance(1_000_000)
  await page.getByLabel('Display name').fill('Countess')
  await page.getByRole('button', { name: 'Save' }).click()
  const dialog = page.getByRole('dialog')
  t.match(await dialog.innerText(), /change your display name/)
  await dialog.getByRole('textbox').fill(code())
  await dialog.getByRole('button', { name: /Verify/ }).click()
  await page.getByText('Saved.').waitFor()
  t.equal(users.get('ada')?.displayName, 'Countess')

  await page.getByRole('link', { name: 'Two-factor verification' }).click()
  await page.getByRole('heading', { name: 'Authenticator app (2FA)' }).waitFor()
  const other = await visitor(t)
  await logIn(other, publicOrigin)
  await other.waitForURL('**/2fa/verify/*')
  t.equal(await other.getByRole('textbox').count(), 1, 'another browser is asked for itself')
  t.same(complaints, [])
})

t.test('with cookies switched off the page says so, and stops there', async t => {
  const { service, publicOrigin } = await tokenConsole(t)
  await enrolled(service, 'ada')
  const profile = t.testdir()
  mkdirSync(join(profile, 'Default'))
  // 2: block, for every site.
  writeFileSync(join(profile, 'Default', 'Preferences'), JSON.stringify({ profile: { default_content_setting_values: { cookies: 2 } } }))
  const context = await chromium.launchPersistentContext(profile, { executablePath: tool('chromium'), args: ARGS, locale: 'en-US' })
  const page = await visitor(t, context)
  const documents: string[] = []
  page.on('request', request => { if (request.isNavigationRequest()) documents.push(new URL(request.url()).pathname) })
  await page.goto(`${publicOrigin}/2fa/settings`)
  await page.getByText('Your browser did not keep the cookies').waitFor()
  t.same(documents, ['/2fa/settings'])
  t.same(await context.cookies(), [])
})
