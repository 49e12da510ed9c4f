// A peer of `verify`: the route that people write themselves, with Express, otplib and SQLite. The challenge is kept in
// the process, a step is accepted once, and that is all of the rules.

import { createHash, randomBytes } from 'node:crypto'
import { DatabaseSync } from '@photostructure/sqlite'
import express from 'express'
import { verify } from 'otplib'

const { DATABASE = ':memory:', SUBJECTS = '0' } = process.env
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** The key of a subject as the driver makes it, in base32. */
function keyOf (i) {
  const bytes = createHash('sha256').update(`key of ${i}`).digest().subarray(0, 20)
  const bits = [...bytes].map(byte => byte.toString(2).padStart(8, '0')).join('')
  return bits.match(/.{5}/g).map(five => ALPHABET[Number.parseInt(five, 2)]).join('')
}

const database = new DatabaseSync(DATABASE)
database.exec('pragma journal_mode = wal; pragma synchronous = full')
database.exec('create table users (name text primary key, secret text not null, step integer not null default 0)')
database.exec('create table audit (at integer not null, name text not null)')
const insert = database.prepare('insert into users (name, secret) values (?, ?)')
database.exec('begin')
for (let i = 0; i < Number(SUBJECTS); i++) insert.run(`u${i}`, keyOf(i))
database.exec('commit')
const find = database.prepare('select secret, step from users where name = ?')
const advance = database.prepare('update users set step = ? where name = ? and step < ?')
const audit = database.prepare('insert into audit values (?, ?)')
const [begin, commit] = ['begin immediate', 'commit'].map(one => database.prepare(one))

const challenges = new Map()
const app = express()
app.use(express.json())

app.post('/login', (request, response) => {
  const { user } = request.body
  if (typeof user !== 'string' || find.get(user) === undefined) return response.status(401).json({ error: 'unknown' })
  const challenge = randomBytes(16).toString('base64url')
  challenges.set(challenge, { user, until: Date.now() + 600_000 })
  return response.json({ challenge })
})

app.post('/verify', async (request, response) => {
  const { challenge, code } = request.body
  const { user, until } = challenges.get(challenge) ?? {}
  const found = user === undefined || until < Date.now() ? undefined : find.get(user)
  if (found === undefined) return response.status(401).json({ error: 'gone' })
  const result = await verify({ secret: found.secret, token: String(code), epochTolerance: 30 })
  if (!result.valid) return response.status(401).json({ error: 'wrong' })
  begin.run()
  const { changes } = advance.run(result.timeStep, user, result.timeStep)
  if (changes === 1) audit.run(Date.now(), user)
  commit.run()
  if (changes !== 1) return response.status(401).json({ error: 'used' })
  challenges.delete(challenge)
  return response.json({ user, verified: true })
})

const server = app.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listening http://127.0.0.1:${server.address().port}\n`)
})
