// What stands behind the gateway: a plain server with small and large answers that says whose session it is, and
// answers as cheaply as it can.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const json = JSON.stringify({ devices: Array.from({ length: 5 }, (_, i) => ({ id: 100 + i, name: `device ${i}`, online: i % 2 === 0 })) })
const ANSWERS = new Map([
  ['/who', { type: 'application/json', body: Buffer.from('{"id":"u0"}') }],
  ['/small', { type: 'application/json', body: Buffer.from(json) }],
  ['/64k', { type: 'application/octet-stream', body: Buffer.alloc(65_536, 'k') }],
  ['/10m', { type: 'application/octet-stream', body: Buffer.alloc(10 << 20, 'm') }]
])

const server = createServer((request, response) => {
  const answer = ANSWERS.get(request.url ?? '')
  if (answer === undefined) response.writeHead(204).end()
  else response.writeHead(200, { 'content-type': answer.type, 'content-length': answer.body.length }).end(answer.body)
})
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listening http://127.0.0.1:${(server.address() as AddressInfo).port}\n`)
})
