// Makes data/ for compose.yaml: keys, addresses, and the users of the example console. What is there stays as it is.
// node --import tsx examples/compose/setup.ts [folder]

import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hashPassword, type User } from '../mounted-console/users.ts'

const folder = resolve(process.argv[2] ?? fileURLToPath(new URL('data', import.meta.url)))
if (existsSync(join(folder, 'postern.env'))) {
  throw new Error(`${folder} is there already. Its keys open the database; remove the folder and the volumes to begin anew.`)
}
// Nobody else comes in. What lies below in console/ belongs to the console's container, which is another user: it reads
// its settings and writes its users anew.
mkdirSync(folder, { recursive: true, mode: 0o700 })
mkdirSync(join(folder, 'console'))
chmodSync(join(folder, 'console'), 0o777)

function keep (name: string, text: string, open = false): void {
  writeFileSync(join(folder, name), text, { mode: open ? 0o644 : 0o600 })
}

const database = randomBytes(24).toString('base64url')
const tenantKey = `pk_demo_g1_${randomBytes(32).toString('base64url')}`
const password = randomBytes(9).toString('base64url')
const tenants = [{
  id: 'demo',
  name: 'Demo Console',
  keys: [{ id: 'g1', scope: 'gate', sha256: createHash('sha256').update(tenantKey).digest('hex') }]
}]

keep('postgres.env', `POSTGRES_USER=postern\nPOSTGRES_DB=postern\nPOSTGRES_PASSWORD=${database}\n`)
keep('postern.env', [
  `POSTERN_DATABASE=postgres://postern:${database}@postgres:5432/postern`,
  'POSTERN_MIGRATE_ON_START=false',
  'POSTERN_REDIS=redis://redis:6379',
  `POSTERN_ENCRYPTION_KEYS=k1:${randomBytes(32).toString('base64')}`,
  `POSTERN_SERVER_KEY=s1:${randomBytes(32).toString('base64')}`,
  `POSTERN_TENANTS=${JSON.stringify(tenants)}`
].join('\n') + '\n')

const ada: User = {
  id: 'user-1001',
  name: 'ada',
  email: 'ada@console.example',
  password: await hashPassword(password),
  passwordVersion: 1,
  settings: { displayName: 'Ada', about: '', alerts: ['logins'] }
}
keep('console/users.json', JSON.stringify([ada], null, 2), true)
keep('console/console.json', JSON.stringify({
  host: '0.0.0.0',
  port: 3000,
  publicOrigin: 'http://localhost:3000',
  sessionSecret: randomBytes(32).toString('base64url'),
  users: '/console/users.json',
  service: 'http://postern:7070',
  tenantKey
}, null, 2), true)

process.stdout.write(`Made ${folder}. Once it runs, log in at http://localhost:3000 as ada with the password ${password}\n`)
