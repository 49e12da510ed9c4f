// A peer of `gate`: a console on Express whose session, kept in Redis, says whether its second factor was passed. GET
// /made?count=… answers the Cookie values of so many sessions.

import { RedisStore } from 'connect-redis'
import { createHmac } from 'node:crypto'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'

const secret = 'only for a measurement on loopback'
const client = createClient({ url: process.env.REDIS })
await client.connect()
const store = new RedisStore({ client, prefix: 'sess:' })

const app = express()
app.get('/made', async (request, response) => {
  const made = Array.from({ length: Number(request.query.count) }, (_, i) => `session-${i}`)
  const cookie = { originalMaxAge: 3_600_000, expires: new Date(Date.now() + 3_600_000).toISOString(), path: '/' }
  for (const id of made) await store.set(id, { cookie, user: 'alice', verified: true })
  const sign = id => createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
  response.json(made.map(id => `connect.sid=${encodeURIComponent(`s:${id}.${sign(id)}`)}`))
})
app.use(session({ store, secret, resave: false, saveUninitialized: false, rolling: false }))
app.use((request, response, next) => {
  if (request.session.verified === true) next()
  else response.status(401).json({ error: 'second factor required' })
})
app.get('/', (_request, response) => response.json({ hello: 'world' }))

const server = app.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listening http://127.0.0.1:${server.address().port}\n`)
})
