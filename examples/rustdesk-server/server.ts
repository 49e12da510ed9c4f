// A small RustDesk-style API server that knows nothing of 2FA: log-in with a password, tokens, an address book.

import { randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface RustdeskServer {
  readonly url: string
  /** What reached it, as `POST /api/login`. */
  readonly heard: readonly string[]
  readonly close: () => Promise<void>
}

const CONSOLE = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>API server</title>
<h1>A RustDesk-style API server</h1>
<p>Clients log in at <code>/api/login</code>. This server has no second factor; the gateway in front of it has.</p>
`

/** Starts it on loopback; `port` 0 takes a free one. */
export async function startRustdeskServer (
  port: number,
  passwords: ReadonlyMap<string, string>
): Promise<RustdeskServer> {
  const tokens = new Map<string, string>()
  const heard: string[] = []
  const server = createServer((request, response) => {
    const { method = '', url = '' } = request
    heard.push(`${method} ${url}`)
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    const user = tokens.get(/^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '')
    void read(request).then(body => {
      if (url === '/') response.writeHead(200, { 'content-type': 'text/html' }).end(CONSOLE)
      else if (url === '/api/login') {
        const name = String(body['username'] ?? '')
        const password = passwords.get(name)
        if (password === undefined || password !== body['password']) return json(400, { error: 'Wrong credentials' })
        const token = randomBytes(16).toString('hex')
        tokens.set(token, name)
        json(200, { type: 'access_token', access_token: token, user: { name, email: `${name}@console.example`, status: 1, info: {} } })
      } else if (url === '/api/heartbeat' || url === '/api/sysinfo') json(200, {})
      else if (user === undefined) json(401, { error: 'Unauthorized' })
      else if (url === '/api/currentUser') json(200, { name: user, email: `${user}@console.example`, status: 1, info: {} })
      else if (url === '/api/ab') json(200, { tags: [], peers: [{ id: '123456789', alias: 'desk' }] })
      else json(404, { error: 'Not found' })
    }, () => { json(400, { error: 'Bad request' }) })
  })
  await new Promise<void>((resolve, reject) => { server.once('error', reject).listen(port, '127.0.0.1', resolve) })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    heard,
    close: async () => {
      server.closeAllConnections()
      await new Promise(resolve => { server.close(resolve) })
    }
  }
}

async function read (request: IncomingMessage): Promise<Record<string, unknown>> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(Buffer.from(part))
  const text = Buffer.concat(parts).toString()
  return text === '' ? {} : JSON.parse(text) as Record<string, unknown>
}
