// nginx and Caddy with the configurations of examples/, on free ports, in front of a console with a log of its own.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'
import type { Logged } from './attack-suite.ts'
import { until } from './browser.ts'
import { listening } from './gateway.ts'
import type { Teardown } from './service.ts'
import { tool } from './tools.ts'

export type ProxyName = 'nginx' | 'caddy'
export const PROXIES: readonly ProxyName[] = ['nginx', 'caddy']

const example = (path: string): string => readFileSync(fileURLToPath(new URL(`../../examples/${path}`, import.meta.url)), 'utf8')

/** The example's text with these addresses in place of its own; throws where one is not there. */
function placed (text: string, addresses: Readonly<Record<string, string>>): string {
  return Object.entries(addresses).reduce((all, [from, to]) => {
    if (!all.includes(from)) throw new Error(`the example does not name ${from}`)
    return all.replaceAll(from, to)
  }, text)
}

/** Starts a proxy as its example says; resolves when it listens. */
export async function startProxy (t: Teardown, name: ProxyName, { port, gateway, behind }: {
  readonly port: number
  readonly gateway: string
  readonly behind: string
}): Promise<void> {
  const host = (url: string): string => new URL(url).host
  const addresses = { '127.0.0.1:8000': `127.0.0.1:${port}`, '127.0.0.1:8080': host(gateway), '127.0.0.1:9000': host(behind) }
  await startConfigured(t, name, port, name === 'nginx'
    ? placed(example('nginx/nginx.conf'), { ...addresses, 'http {': 'http { access_log off;' })
    : `{\n admin off\n}\n${placed(example('caddy/Caddyfile'), addresses)}`)
}

/** Starts a proxy with this configuration; resolves when it listens on the port. */
export async function startConfigured (
  t: Teardown,
  name: ProxyName,
  port: number,
  configuration: string
): Promise<{ readonly pid: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-proxy-'))
  const file = join(folder, 'configuration')
  let args: readonly string[]
  if (name === 'nginx') {
    const own = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(one => `${one}_temp_path ${join(folder, one)};`)
    writeFileSync(file, placed(configuration, { 'http {': `http { ${own.join(' ')}` }))
    args = ['-p', folder, '-c', file, '-e', 'stderr', '-g', `daemon off; master_process off; pid ${join(folder, 'pid')};`]
  } else {
    writeFileSync(file, configuration)
    args = ['run', '--config', file, '--adapter', 'caddyfile']
  }
  const child = spawn(tool(name), args, { env: { ...process.env, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder }, stdio: ['ignore', 'ignore', 'pipe'] })
  const said: string[] = []
  child.stderr.on('data', data => said.push(String(data)))
  const ended = new Promise<void>(resolve => { child.on('close', () => { resolve() }) })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  })
  await until(`${name} to listen`, async () => {
    if (child.exitCode !== null) throw new Error(`${name} ended: ${said.join('')}`)
    return await new Promise<true | undefined>(resolve => {
      const socket = connect(port, '127.0.0.1', () => { resolve(true); socket.destroy() }).on('error', () => { resolve(undefined) })
    })
  })
  return { pid: child.pid ?? 0 }
}

/** Paths of the gateway's own call. */
export const WHO = '/who'

/** A console with a cookie login that knows nothing of 2FA. Its log holds what came through a proxy. */
export async function startCookieConsole (t: Teardown) {
  const sessions = new Map<string, string>()
  const log: Logged[] = []
  const kept = { name: 'nothing' }
  const userOf = ({ headers }: IncomingMessage): string | undefined => {
    const sid = /(?:^|; )sid=([^;]*)/.exec(headers.cookie ?? '')?.[1] ?? ''
    return sessions.get(sid)
  }
  const page = (title: string, rest: string): string => `<!doctype html><html lang="en"><title>${title}</title><h1>${title}</h1>${rest}`
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request
    if (headers['x-forwarded-for'] !== undefined) log.push({ method, url, headers: { ...headers }, upgrade: false })
    const parts: Buffer[] = []
    request.on('data', part => { parts.push(Buffer.from(part)) })
    request.on('end', () => {
      const form = new URLSearchParams(Buffer.concat(parts).toString())
      const user = userOf(request)
      const html = (status: number, text: string): void => { response.writeHead(status, { 'content-type': 'text/html' }).end(text) }
      const [path] = url.split('?')
      if (path === WHO) response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(user === undefined ? {} : { user: { id: user } }))
      else if (path === '/login' && method === 'POST') {
        const sid = randomBytes(9).toString('hex')
        sessions.set(sid, form.get('name') ?? '')
        response.writeHead(303, { location: '/devices?page=2', 'set-cookie': `sid=${sid}; HttpOnly; Path=/` }).end()
      } else if (path === '/login') html(200, page('Log in', '<form method="post"><input aria-label="Name" name="name"><button>Log in</button></form>'))
      else if (user === undefined) response.writeHead(303, { location: '/login' }).end()
      else if (path === '/settings' && method === 'POST') {
        kept.name = form.get('name') ?? ''
        html(200, page('Saved', ''))
      } else if (path === '/settings') html(200, page('Settings', '<form method="post"><input aria-label="Display name" name="name"><button>Save</button></form>'))
      else html(200, page(`Hello ${user}`, `<p>${url}</p>`))
    })
  })
  const sockets = new WebSocketServer({ noServer: true })
  t.teardown(() => { sockets.close() })
  server.on('upgrade', (request, socket, head) => {
    log.push({ method: 'GET', url: request.url ?? '', headers: { ...request.headers }, upgrade: true })
    if (request.headers.upgrade?.toLowerCase() !== 'websocket') {
      socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
      return
    }
    sockets.handleUpgrade(request, socket, head, one => { one.on('message', data => { one.send(`echo ${String(data)}`) }) })
  })
  return { url: await listening(t, server), log, sessions, kept }
}

/** The gateway's settings for that console. */
export const FORWARD_AUTH: Readonly<Record<string, string>> = {
  POSTERN_GATEWAY_TRUSTED_PROXIES: '127.0.0.1',
  POSTERN_GATEWAY_FORWARD_AUTH_COOKIE: 'sid',
  POSTERN_GATEWAY_FORWARD_AUTH_WHO: `GET ${WHO}`,
  POSTERN_GATEWAY_FORWARD_AUTH_SUBJECT: 'user.id'
}
