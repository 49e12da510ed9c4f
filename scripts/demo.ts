// The demo: the built service, the example console and a mail catcher on loopback, with keys and data in one folder.

import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { selfSigned } from '../examples/mailbox/certificate.ts'
import type { Mailbox } from '../examples/mailbox/mailbox.ts'
import { hashPassword, type User } from '../examples/mounted-console/users.ts'
import { freePorts, keep, root, sha256, startParts } from './parts.ts'

export interface DemoOptions {
  /** Folder of keys, database and logs. */
  readonly data: string
  /** Port of the console; 0 = a free one. */
  readonly port: number
  /** Users beside the four that everybody finds; made with the folder. */
  readonly people?: readonly Person[]
  /** Called once if a part ends by itself. */
  readonly onDeath: (sentence: string) => void
}

/** What data/demo.json holds, for scripts. */
export interface DemoFacts {
  readonly console: string
  readonly mailbox: string
  readonly service: string
  readonly operations: string
  readonly tenant: string
  readonly tenant_key: string
  readonly admin_key: string
  readonly database: string
  readonly users: readonly { readonly name: string, readonly password: string, readonly email: string | null }[]
}

export interface Demo {
  readonly facts: DemoFacts
  /** Users who have changed their password since. */
  readonly changed: ReadonlySet<string>
  readonly stop: () => Promise<void>
}

/** A user of the console. */
export interface Person {
  readonly name: string
  readonly password: string
  readonly email: string | null
  readonly displayName: string
}

const TENANT = 'demo'

const PEOPLE: readonly Person[] = [
  { name: 'alice', password: 'garden-kettle-42', email: 'alice@console.example', displayName: 'Alice Moreau' },
  { name: 'bob', password: 'paper-lantern-17', email: 'bob@console.example', displayName: 'Bob Okafor' },
  { name: 'wei', password: 'bamboo-harbour-88', email: 'wei@console.example', displayName: '王伟' },
  { name: 'dora', password: 'copper-window-63', email: null, displayName: 'Dora (no e-mail address)' }
]

interface Keys {
  readonly encryption: string
  readonly server: string
  readonly gate: string
  readonly admin: string
  readonly session: string
  readonly mail: string
  /** Hashes of the first passwords, to tell who has changed his. */
  readonly passwords: Readonly<Record<string, string>>
}

/** Starts everything; throws with the reason where a part does not start, after ending the others. */
export async function startDemo ({ data, port, people = [], onDeath }: DemoOptions): Promise<Demo> {
  const folder = resolve(data)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const everybody = [...PEOPLE, ...people]
  const keys = await readKeys(folder, everybody)
  const [consolePort, servicePort, operationsPort, smtpPort = 0, webPort = 0] = await freePorts(5, port)
  const certificate = selfSigned(new Date())
  const origin = `http://localhost:${consolePort}`
  const service = `http://127.0.0.1:${servicePort}`

  keep(folder, 'mail-ca.pem', certificate.cert)
  keep(folder, 'tenants.json', JSON.stringify({
    tenants: [{
      id: TENANT,
      name: 'Demo Console',
      issuer: 'Demo Console',
      keys: [{ id: 'k1', scope: 'gate', sha256: sha256(keys.gate) }, { id: 'a1', scope: 'admin', sha256: sha256(keys.admin) }]
    }]
  }, null, 2))
  keep(folder, 'console.json', JSON.stringify({
    port: consolePort, publicOrigin: origin, sessionSecret: keys.session, users: join(folder, 'users.json'), service, tenantKey: keys.gate
  }, null, 2))

  const { part, stop: stopParts } = startParts(folder, onDeath)
  const runningService = part('service', [join(root, 'service/dist/main.js')], {
    POSTERN_HOST: '127.0.0.1',
    POSTERN_PORT: String(servicePort),
    POSTERN_OPERATIONS_PORT: String(operationsPort),
    POSTERN_DATABASE: `sqlite:${join(folder, 'postern.db')}`,
    POSTERN_ENCRYPTION_KEYS: keys.encryption,
    POSTERN_SERVER_KEY: keys.server,
    POSTERN_SMTP: `smtp://postern:${keys.mail}@127.0.0.1:${smtpPort}`,
    POSTERN_SMTP_CA: join(folder, 'mail-ca.pem'),
    POSTERN_MAIL_FROM: 'Demo Console <postern@console.example>',
    POSTERN_CONFIG: join(folder, 'tenants.json')
  })
  const runningConsole = part('console', ['--import', 'tsx', join(root, 'examples/mounted-console/main.ts'), join(folder, 'console.json')], {})

  let mailbox: Mailbox | undefined
  const stop = async (): Promise<void> => {
    await Promise.all([stopParts(), mailbox?.close()])
  }
  try {
    const mail = import('../examples/mailbox/mailbox.ts').then(async ({ startMailbox }) => {
      mailbox = await startMailbox({ smtpPort, webPort, password: keys.mail, certificate })
    })
    await Promise.all([mail, runningService.ready, runningConsole.ready])
  } catch (error) {
    await stop()
    throw error
  }

  const facts: DemoFacts = {
    console: origin,
    mailbox: `http://localhost:${webPort}`,
    service,
    operations: `http://127.0.0.1:${operationsPort}`,
    tenant: TENANT,
    tenant_key: keys.gate,
    admin_key: keys.admin,
    database: join(folder, 'postern.db'),
    users: everybody.map(({ name, password, email }) => ({ name, password, email }))
  }
  keep(folder, 'demo.json', JSON.stringify(facts, null, 2) + '\n')
  const users = JSON.parse(readFileSync(join(folder, 'users.json'), 'utf8')) as User[]
  const changed = new Set(users.filter(user => user.password !== keys.passwords[user.name]).map(user => user.name))
  return { facts, changed, stop }
}

/** Keys are made once and kept: without them the data of an earlier start cannot be read. */
async function readKeys (folder: string, people: readonly Person[]): Promise<Keys> {
  const file = join(folder, 'keys.json')
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as Keys
  if (existsSync(join(folder, 'postern.db'))) {
    throw new Error(`${folder} has a database but no keys.json, so its secrets cannot be read. Bring the keys back, or start with an empty folder.`)
  }
  const hashes = await Promise.all(people.map(({ password }) => hashPassword(password)))
  const users = people.map(({ name, email, displayName }, i): User => ({
    id: `user-${1001 + i}`, name, email, password: hashes[i] ?? '', passwordVersion: 1, settings: { displayName, about: '', alerts: ['logins'] }
  }))
  const keys: Keys = {
    encryption: `k1:${randomBytes(32).toString('base64')}`,
    server: `s1:${randomBytes(32).toString('base64')}`,
    gate: `pk_${TENANT}_k1_${randomBytes(32).toString('base64url')}`,
    admin: `pk_${TENANT}_a1_${randomBytes(32).toString('base64url')}`,
    session: randomBytes(32).toString('base64url'),
    mail: randomBytes(12).toString('hex'),
    passwords: Object.fromEntries(users.map(user => [user.name, user.password]))
  }
  keep(folder, 'users.json', JSON.stringify(users, null, 2))
  keep(folder, 'keys.json', JSON.stringify(keys, null, 2))
  return keys
}
