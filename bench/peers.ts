// What others do instead, with dependencies of its own: installed on first use, and no part of the product.

import { spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Teardown } from '../test/helpers/service.ts'
import { totpCode } from '../test/helpers/service.ts'
import { connectTo, json, WrongAnswer, type Answer } from './connection.ts'
import type { Thing } from './harness.ts'
import { startServer, type Started } from './servers.ts'
import { createWalk } from './subjects.ts'

const FOLDER = fileURLToPath(new URL('peers', import.meta.url))

function install (): void {
  const installed = join(FOLDER, 'node_modules/.package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs > statSync(join(FOLDER, 'package-lock.json')).mtimeMs) return
  process.stdout.write('Installing the peers…\n')
  const { status } = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: FOLDER, stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, NODE_ENV: '' }
  })
  if (status !== 0) throw new Error('the peers could not be installed')
}

export interface Person {
  readonly email: string
  readonly password: string
  readonly secret: string
}

const cookiesOf = ({ head }: Answer): string =>
  [...head.matchAll(/\r\nset-cookie: *([^;\r]*)/gi)].map(([, pair = '']) => pair).join('; ')

/** better-auth: a sign-in with e-mail and password, then the TOTP code. A code may be used again there. */
async function startBetterAuth (t: Teardown, database: string): Promise<Thing> {
  const { url, pid } = await startServer(t, 'peers/better-auth.js', { DATABASE: database })
  const line = await connectTo(url)
  const people = json<readonly Person[]>(await line.ask('GET', '/people'))
  line.close()
  const origin = `origin: ${url}\r\n`
  let turn = 0
  return {
    name: 'better-auth, sign-in with its two-factor plugin',
    url,
    pids: [pid],
    operation: async connection => {
      const { email, password, secret } = people[turn++ % people.length] as Person
      const signIn = await connection.ask('POST', '/api/auth/sign-in/email', origin, JSON.stringify({ email, password }))
      const { twoFactorRedirect } = json<{ twoFactorRedirect?: boolean }>(signIn)
      if (twoFactorRedirect !== true) throw new WrongAnswer(`a sign-in of ${email} asks for no code`)
      const headers = `${origin}cookie: ${cookiesOf(signIn)}\r\n`
      const body = JSON.stringify({ code: totpCode(secret, Date.now()) })
      const verified = json<{ token?: string }>(await connection.ask('POST', '/api/auth/two-factor/verify-totp', headers, body))
      if (typeof verified.token !== 'string') throw new WrongAnswer(JSON.stringify(verified))
    }
  }
}

/** Express, otplib and SQLite, as people write it themselves. */
async function startExpress (t: Teardown, database: string, subjects: number): Promise<Thing> {
  const settings = { DATABASE: database, SUBJECTS: String(subjects) }
  const { url, pid } = await startServer(t, 'peers/express-totp.js', settings)
  const next = createWalk(subjects)
  return {
    name: 'Express, otplib and SQLite',
    url,
    pids: [pid],
    operation: async connection => {
      const { i, code } = next()
      const opened = await connection.ask('POST', '/login', '', JSON.stringify({ user: `u${i}` }))
      const { challenge } = json<{ challenge: string }>(opened)
      const answer = await connection.ask('POST', '/verify', '', JSON.stringify({ challenge, code }))
      if (!json<{ verified: boolean }>(answer).verified) throw new WrongAnswer(answer.body.toString())
    }
  }
}

/** A console whose session in Redis says whether it is verified; its sessions' Cookie lines. */
export async function startSessions (t: Teardown, redis: string, count: number) {
  install()
  const { url, pid } = await startServer(t, 'peers/express-session.js', { REDIS: redis })
  const line = await connectTo(url)
  const cookies = json<readonly string[]>(await line.ask('GET', `/made?count=${count}`))
  line.close()
  return { url, pid, cookies }
}

/** A Fastify server that passes everything on. */
export async function startHttpProxy (t: Teardown, upstream: string): Promise<Started> {
  install()
  return await startServer(t, 'peers/http-proxy.js', { UPSTREAM: upstream })
}

/** What `verify` is measured beside. */
export async function startPeers (t: Teardown, folder: string, subjects: number): Promise<readonly Thing[]> {
  install()
  return [
    await startBetterAuth(t, join(folder, 'better-auth.db')),
    await startExpress(t, join(folder, 'express.db'), subjects)
  ]
}
