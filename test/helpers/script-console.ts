// A console whose pages talk to it by script, under a strict policy, with postern.js as its only change; in front of
// the real service. Everybody starts verified, with a step-up that is too old.

import { build } from 'esbuild'
import type { FastifyRequest } from 'fastify'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { browserName, sessionName } from '../../plugin/src/binding.ts'
import { binding, bindingName, identifyBySid, startConsole } from './console.ts'
import { freePort } from './redis.ts'
import { startService, type Service, type Teardown, type WireBy } from './service.ts'
import { tool } from './tools.ts'

const POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'none'; base-uri 'none'; require-trusted-types-for 'script'"

const PLAIN = `<!doctype html><html lang="en"><title>Console</title><h1>Console</h1><button id="save">Save</button>
<script src="/2fa/postern.js"></script>`
const REACT = '<!doctype html><html lang="en"><title>React console</title><div id="root"></div><script src="/react.js" defer></script>'

/** A React app as a bundler makes it: the module is imported, and errors are the app's own. */
const APP = `
import { createElement as h, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { installPostern } from 'fastify-postern/browser'
installPostern()
function App () {
  const [said, say] = useState('nothing yet')
  const save = async () => {
    say('saving')
    const answer = await fetch('/settings', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name: 'Ann' }) })
    say(answer.ok ? 'saved' : 'refused with ' + answer.status)
  }
  return h('main', { onKeyDown: () => { document.title = 'a key was seen' } },
    h('h1', null, 'React console'), h('button', { onClick: save }, 'Save'), h('p', { id: 'said' }, said))
}
createRoot(document.getElementById('root')).render(h(App))
`

export interface ScriptConsole {
  readonly service: Service
  readonly browser: Browser
  readonly console: Awaited<ReturnType<typeof startConsole>>
  readonly origin: string
  /** What a browser complained of. */
  readonly complaints: string[]
  /** A verified session in a fresh browser, on a page. */
  readonly visit: (t: Teardown, path: string, options?: VisitOptions) => Promise<Visit>
}

export interface VisitOptions extends BrowserContextOptions {
  /** The factor of the subject; `totp` unless named. */
  readonly factor?: 'totp' | 'email'
  /** Logged in by a token in script instead of a cookie. */
  readonly bearer?: boolean
}

export interface Visit {
  readonly by: WireBy
  readonly sid: string
  readonly page: Page
  /** A code that was not used yet. */
  readonly code: () => string
  readonly enter: (code: string) => Promise<void>
  readonly said: () => Promise<string>
  /** Runs an expression in the page without waiting; `await result()` waits for it. */
  readonly start: (expression: string) => { readonly result: () => Promise<unknown> }
  readonly makeStale: () => void
}

export async function startScriptConsole (t: Teardown): Promise<ScriptConsole> {
  const [service, port, bundle] = await Promise.all([
    startService(t, { tenant: { limits: { lock_in_a_row: 10, lock_in30_days: 10 } } }),
    freePort(),
    build({ stdin: { contents: APP, resolveDir: process.cwd() }, bundle: true, write: false, format: 'iife', define: { 'process.env.NODE_ENV': '"production"' }, logLevel: 'silent' })
  ])
  await service.app.api.listen({ host: '127.0.0.1', port: 0 })
  const address = service.app.api.server.address()
  const origin = `http://localhost:${port}`
  const open = { config: { postern: { public: true } } }
  const console = await startConsole(t, {
    listen: false,
    service: { url: `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`, tenantKey: service.keys.gate.key },
    postern: {
      publicOrigin: origin,
      timeoutMs: 10_000,
      identify: request => {
        const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1]
        return token === undefined ? identifyBySid(request) : { subject: token.split('.')[0] ?? '', session: token, kind: 'bearer' }
      }
    },
    after: (app, hit) => {
      app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request: FastifyRequest, body: Buffer, done) => { done(null, body.toString('latin1')) })
      for (const [path, page] of [['/plain', PLAIN], ['/react', REACT]] as const) {
        app.get(path, open, async (_request, reply) => await reply.header('content-security-policy', POLICY).type('text/html').send(page))
      }
      app.get('/react.js', open, async (_request, reply) => await reply.type('text/javascript').send(bundle.outputFiles[0]?.text))
      app.put('/settings', { config: { postern: { stepUp: { action: 'change your name' } } } }, hit('sensitive'))
      // Never answers, once it is let in.
      app.post('/slow', { config: { postern: { stepUp: true } } }, async (request, reply) => {
        hit('slow')(request)
        reply.hijack()
      })
      app.get('/moved', async (_request, reply) => await reply.redirect('/settings', 307))
      app.post('/moved', async (request, reply) => {
        hit('moving')(request)
        return await reply.redirect('/settings', 307)
      })
    }
  })
  await console.app.listen({ host: '127.0.0.1', port })
  const browser = await chromium.launch({ executablePath: tool('chromium'), args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage'] })
  t.teardown(async () => { await browser.close() })
  const complaints: string[] = []
  let people = 0

  return {
    service,
    browser,
    console,
    origin,
    complaints,
    visit: async (t, path, { factor = 'totp', bearer = false, ...options } = {}) => {
      const subject = `ann${++people}`
      const sid = `${subject}.1`
      const bound = binding(subject)
      const by = { subject, session: sessionName(bearer ? 'bearer' : 'cookie', sid), browser: browserName(bound) }
      const { key } = factor === 'totp' ? await service.enrol(by) : { key: '' }
      if (factor === 'email') await service.enrolEmail(by, `${subject}@console.example`)
      const makeStale = (): void => { service.advance(1_000_000) }
      makeStale()
      const context = await browser.newContext({ baseURL: origin, locale: 'en-US', ...options })
      context.setDefaultTimeout(15_000)
      t.teardown(async () => { await context.close() })
      context.on('weberror', error => { complaints.push(String(error.error())) })
      context.on('console', message => { if (message.type() === 'error' && !/status of 4\d\d/.test(message.text())) complaints.push(message.text()) })
      await context.addCookies([
        ...(bearer ? [] : [{ name: 'sid', value: sid, url: origin }]),
        { name: bindingName(), value: bound, domain: 'localhost', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' }
      ])
      const page = await context.newPage()
      // Waits of a minute pass when a test says so.
      await page.clock.install()
      await page.goto(path)
      const dialog = page.getByRole('dialog')
      return {
        by,
        sid,
        page,
        makeStale,
        code: () => {
          service.nextStep()
          return service.code(key)
        },
        enter: async code => {
          await dialog.getByRole('textbox').fill(code)
          await dialog.getByRole('button', { name: /Verify|验证并继续/ }).click()
        },
        said: async () => (await dialog.getByRole('alert').innerText()).trim(),
        start: expression => {
          const result = page.evaluate<unknown>(expression)
          result.catch(() => {})
          return { result: async () => await result }
        }
      }
    }
  }
}
