// The gateway's demo: a RustDesk-style server, the built service and gateway in front of it, a mail catcher, and a
// client that logs in with a code from an authenticator.

import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Secret, TOTP } from 'otpauth'
import { selfSigned } from '../examples/mailbox/certificate.ts'
import { startMailbox } from '../examples/mailbox/mailbox.ts'
import { startRustdeskServer } from '../examples/rustdesk-server/server.ts'
import { freePorts, keep, root, sha256, startParts } from './parts.ts'

export interface GatewayDemo {
  readonly server: string
  readonly gateway: string
  readonly service: string
  readonly mailbox: string
  readonly stop: () => Promise<void>
}

const USER = { name: 'alice', password: 'garden-kettle-42' }
const DEVICE = { id: '123456789', uuid: 'ZGVtbw==', deviceInfo: { os: 'linux', type: 'client', name: 'desk' } }

/** Starts everything anew in a folder of its own and lets the client log in; `say` gets a line for each step. */
export async function startGatewayDemo ({ data, port, say, onDeath }: {
  readonly data: string
  readonly port: number
  readonly say: (line: string) => void
  readonly onDeath: (sentence: string) => void
}): Promise<GatewayDemo> {
  const folder = resolve(data, `gateway-${Date.now()}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const [gatewayPort = 0, servicePort, operationsPort, probesPort, smtpPort = 0, webPort = 0] = await freePorts(6, port)
  const gateway = `http://127.0.0.1:${gatewayPort}`
  const service = `http://127.0.0.1:${servicePort}`
  const key = `pk_demo_k1_${randomBytes(32).toString('base64url')}`
  const password = randomBytes(12).toString('hex')
  const certificate = selfSigned(new Date())
  keep(folder, 'mail-ca.pem', certificate.cert)
  keep(folder, 'tenants.json', JSON.stringify({
    tenants: [{ id: 'demo', name: 'Demo Server', issuer: 'Demo Server', keys: [{ id: 'k1', scope: 'gate', sha256: sha256(key) }] }]
  }))
  const { part, stop: stopParts } = startParts(folder, onDeath)
  const server = await startRustdeskServer(0, new Map([[USER.name, USER.password]]))
  const mailbox = await startMailbox({ smtpPort, webPort, password, certificate })
  const stop = async (): Promise<void> => {
    await Promise.all([stopParts(), mailbox.close(), server.close()])
  }
  try {
    await Promise.all([
      part('service', [join(root, 'service/dist/main.js')], {
        POSTERN_PORT: String(servicePort),
        POSTERN_OPERATIONS_PORT: String(operationsPort),
        POSTERN_DATABASE: `sqlite:${join(folder, 'postern.db')}`,
        POSTERN_ENCRYPTION_KEYS: `k1:${randomBytes(32).toString('base64')}`,
        POSTERN_SERVER_KEY: `s1:${randomBytes(32).toString('base64')}`,
        POSTERN_SMTP: `smtp://postern:${password}@127.0.0.1:${smtpPort}`,
        POSTERN_SMTP_CA: join(folder, 'mail-ca.pem'),
        POSTERN_MAIL_FROM: 'Demo Server <postern@console.example>',
        POSTERN_CONFIG: join(folder, 'tenants.json')
      }).ready,
      part('gateway', [join(root, 'plugin/dist/gateway.js')], {
        POSTERN_GATEWAY_UPSTREAM: server.url,
        POSTERN_GATEWAY_SERVICE: service,
        POSTERN_GATEWAY_TENANT_KEY: key,
        POSTERN_GATEWAY_PUBLIC_ORIGIN: gateway,
        POSTERN_GATEWAY_PRESET: 'rustdesk',
        POSTERN_GATEWAY_PORT: String(gatewayPort),
        POSTERN_GATEWAY_OPERATIONS_PORT: String(probesPort)
      }).ready
    ])
    await logIn({ gateway, service, key, say, heard: server.heard })
  } catch (error) {
    await stop()
    throw error
  }
  return { server: server.url, gateway, service, mailbox: `http://localhost:${webPort}`, stop }
}

interface Said {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
}

async function call (url: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Said> {
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
  return { status: answer.status, body: await answer.json() as Said['body'] }
}

/** What an unmodified client does, and what it is told. Throws where a step does not go as it should. */
async function logIn ({ gateway, service, key, say, heard }: {
  readonly gateway: string
  readonly service: string
  readonly key: string
  readonly say: (line: string) => void
  readonly heard: readonly string[]
}): Promise<void> {
  const authorization = `Bearer ${key}`
  const name43 = (text: string): string => createHash('sha256').update(text).digest('base64url')
  const subject = Buffer.from(USER.name).toString('base64url')
  const by = { subject: USER.name, session: name43('set-up'), browser: name43('set-up') }
  const login = { username: USER.name, password: USER.password, ...DEVICE, autoLogin: true, type: 'account' }

  const before = await call(`${gateway}/api/login`, login)
  expect(before, typeof before.body['access_token'] === 'string' && before.body['access_token'] !== '')
  say(`${USER.name} logs in without a second factor: POST /api/login brings the server's own token`)

  const begun = await call(`${service}/v1/subjects/${subject}/totp`, { by }, { authorization })
  const totp = new TOTP({ secret: Secret.fromBase32(String(begun.body['key'])) })
  // The code that confirms the key is used up, and so is its time step: the log-in takes the next one.
  const now = Date.now()
  const confirmed = await call(`${service}/v1/subjects/${subject}/totp/${String(begun.body['id'])}/confirm`, { by, code: totp.generate({ timestamp: now }) }, { authorization })
  expect(confirmed, confirmed.status === 200)
  say(`${USER.name} sets up an authenticator`)

  const old = await call(`${gateway}/api/currentUser`, {}, { authorization: `Bearer ${String(before.body['access_token'])}` })
  expect(old, old.status === 401)
  say('the token of before is refused: 401')

  const asked = await call(`${gateway}/api/login`, login)
  expect(asked, asked.body['tfa_type'] === 'tfa_check' && asked.body['access_token'] === '')
  say('POST /api/login with the right password: the gateway keeps the token and asks for a code (tfa_check)')

  const second = { username: USER.name, ...DEVICE, autoLogin: true, type: 'email_code', secret: asked.body['secret'] }
  const right = totp.generate({ timestamp: now + 30_000 })
  const wrong = String((Number(right) + 500_000) % 1_000_000).padStart(6, '0')
  const rejected = await call(`${gateway}/api/login`, { ...second, verificationCode: wrong, tfaCode: wrong })
  expect(rejected, rejected.status === 400)
  say(`a wrong code: ${rejected.status}, "${String(rejected.body['error'])}"`)

  const logins = heard.filter(one => one === 'POST /api/login').length
  const accepted = await call(`${gateway}/api/login`, { ...second, verificationCode: right, tfaCode: right })
  const token = accepted.body['access_token']
  expect(accepted, typeof token === 'string' && token !== '')
  say(`the right code: the server's own answer, unchanged; the server heard of ${logins} log-ins, and of no code`)

  const book = await call(`${gateway}/api/ab`, {}, { authorization: `Bearer ${String(token)}` })
  expect(book, book.status === 200)
  say(`POST /api/ab with the token: ${book.status}, the address book`)
}

function expect ({ status, body }: Said, fine: boolean): void {
  if (!fine) throw new Error(`The client did not get what it should: ${status} ${JSON.stringify(body)}`)
}
