// A peer of `verify`: better-auth with its two-factor plugin, on SQLite with the settings of the others. People are
// made at start; GET /people names them with their keys.

import { createServer } from 'node:http'
import { DatabaseSync } from '@photostructure/sqlite'
import { betterAuth } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import { toNodeHandler } from 'better-auth/node'
import { twoFactor } from 'better-auth/plugins'
import { SqliteDialect } from 'kysely'
import { generateSync } from 'otplib'

const PEOPLE = 20
const password = 'correct horse battery staple'
const file = process.env.DATABASE ?? ':memory:'

const sqlite = new DatabaseSync(file)
sqlite.exec('pragma journal_mode = wal; pragma synchronous = full')

/** The driver as kysely's dialect knows it. */
const database = {
  prepare: sql => {
    const statement = sqlite.prepare(sql)
    return {
      reader: statement.columns().length > 0,
      all: parameters => statement.all(...parameters),
      run: parameters => statement.run(...parameters)
    }
  },
  close: () => { sqlite.close() }
}

const server = createServer()
await new Promise(resolve => { server.listen(0, '127.0.0.1', resolve) })
const url = `http://127.0.0.1:${server.address().port}`

const auth = betterAuth({
  baseURL: url,
  secret: 'only for a measurement on loopback, and long enough',
  database: { dialect: new SqliteDialect({ database }), type: 'sqlite' },
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  plugins: [twoFactor({ issuer: 'Peer' })]
})
await (await getMigrations(auth.options)).runMigrations()

const cookiesOf = headers => headers.getSetCookie().map(one => one.split(';')[0]).join('; ')

const people = []
for (let i = 0; i < PEOPLE; i++) {
  const email = `person${i}@example.org`
  const signedUp = await auth.api.signUpEmail({ body: { email, password, name: email }, returnHeaders: true })
  const headers = new Headers({ cookie: cookiesOf(signedUp.headers) })
  const { totpURI } = await auth.api.enableTwoFactor({ body: { password }, headers })
  const secret = new URL(totpURI).searchParams.get('secret')
  await auth.api.verifyTOTP({ body: { code: generateSync({ secret }) }, headers })
  people.push({ email, password, secret })
}

const handle = toNodeHandler(auth)
server.on('request', (request, response) => {
  if (request.url === '/people') response.end(JSON.stringify(people))
  else handle(request, response)
})
process.stdout.write(`listening ${url}\n`)
