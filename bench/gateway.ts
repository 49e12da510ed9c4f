// Gateway: a verified session asks a console directly, and through what may stand in front of it.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { bindingCookie, gatewayProcess, wire } from '../test/helpers/gateway.ts'
import { dataFolder } from '../test/helpers/processes.ts'
import { startConfigured } from '../test/helpers/proxies.ts'
import { freePort } from '../test/helpers/redis.ts'
import type { Teardown } from '../test/helpers/service.ts'
import { connectTo, WrongAnswer, type Connection } from './connection.ts'
import { compare, residentOf, slice, type Plan, type Thing } from './harness.ts'
import { startHttpProxy } from './peers.ts'
import { ratioOf, type Figure, type Part, type Table } from './report.ts'
import { startServer, type Started } from './servers.ts'
import { createWalk } from './subjects.ts'
import { createCalls, startFilled } from './verify.ts'

/** The first warms what all of them use, the others what is their own. */
const BODIES = [
  { name: 'small JSON', path: '/small', bytes: 230, connections: 16, warmOperations: 8_000 },
  { name: '64 kB', path: '/64k', bytes: 65_536, connections: 16, warmOperations: 500 },
  { name: '10 MB', path: '/10m', bytes: 10 << 20, connections: 4, warmOperations: 10 }
] as const

const GATEWAY = 'gateway'
const NGINX_ASKS = 'nginx with `auth_request` to the gateway'
const NGINX_ASKS_BARE = 'nginx with `auth_request` to a server that always says yes'

/** nginx as it is tuned: one process, connections to what is behind kept. */
const nginxFor = (listen: number, upstream: string, asked?: URL): string => `
worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000;
  upstream console { server ${new URL(upstream).host}; keepalive 64; keepalive_requests 1000000; }
  ${asked === undefined ? '' : `upstream asked { server ${asked.host}; keepalive 64; keepalive_requests 1000000; }`}
  server {
    listen 127.0.0.1:${listen};
    location / {
      ${asked === undefined ? '' : 'auth_request /ask;'}
      proxy_pass http://console;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }
    ${asked === undefined
      ? ''
      : `location = /ask {
      internal;
      proxy_pass http://asked${asked.pathname};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host 127.0.0.1;
      proxy_set_header X-Forwarded-Method $request_method;
      proxy_set_header X-Forwarded-Uri $request_uri;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }`}
  }
}`

async function startNginx (t: Teardown, upstream: string, asked?: URL): Promise<Started> {
  const port = await freePort()
  const { pid } = await startConfigured(t, 'nginx', port, nginxFor(port, upstream, asked))
  return { url: `http://127.0.0.1:${port}`, pid }
}

/** Gateways on a service, and the Cookie line of a session that is verified for them. */
async function startVerified (t: Teardown, upstream: Started) {
  const service = await startFilled(t, `sqlite:${join(dataFolder(t), 'postern.db')}`, '', { subjects: 10 })
  const sid = randomBytes(16).toString('base64url')
  const binding = randomBytes(32).toString('base64url')
  const calls = createCalls(service.key, { address: false })
  const ask = { by: wire('u0', 'cookie', sid, binding) }
  const line = await connectTo(service.url)
  const id = await calls.open(line, ask)
  await calls.answer(line, ask, id, createWalk(10)().code)
  line.close()
  return {
    cookie: `cookie: sid=${sid}; ${bindingCookie(binding)}\r\n`,
    start: async (preset: string, more: Readonly<Record<string, string>> = {}): Promise<Started> => {
      const named = `POSTERN_GATEWAY_${preset.toUpperCase().replace('-', '_')}`
      const { child, ready } = gatewayProcess(t, [], {
        POSTERN_GATEWAY_UPSTREAM: upstream.url,
        POSTERN_GATEWAY_SERVICE: service.url,
        POSTERN_GATEWAY_TENANT_KEY: service.key,
        POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
        POSTERN_GATEWAY_PRESET: preset,
        POSTERN_GATEWAY_PORT: '0',
        POSTERN_GATEWAY_OPERATIONS_PORT: '0',
        [`${named}_COOKIE`]: 'sid',
        [`${named}_WHO`]: 'GET /who',
        ...more
      })
      return { url: (await ready).url, pid: child.pid ?? 0 }
    }
  }
}

const answered = (path: string, bytes: number, headers: string) => async (connection: Connection): Promise<void> => {
  const { status, length } = await connection.ask('GET', path, headers)
  if (status !== 200 || length !== bytes) throw new WrongAnswer(`${path}: ${status}, ${length} bytes`)
}

/** Memory before and after `gigabytes` went through, in bodies of 10 MB. */
async function flatness (gateway: Thing, gigabytes: number): Promise<Figure> {
  const megabytes = (): number => Math.round(residentOf(gateway.pids[0] ?? 0) / 1e6)
  let through = 0
  let early = 0
  let most = 0
  while (through < gigabytes * 100) {
    const { operations } = await slice(gateway, 1_000, 4)
    through += operations
    most = Math.max(most, megabytes())
    if (early === 0 && through >= 100) early = megabytes()
  }
  return {
    name: `memory of the gateway, after 1 GB and after ${gigabytes} GB in bodies of 10 MB`,
    value: `${early} MB, ${megabytes()} MB (${most} MB at most)`,
    must: 'flat: within 30 MB',
    kept: megabytes() - early <= 30
  }
}

export async function gateway (t: Teardown, plan: Plan, quick: boolean): Promise<Part> {
  const upstream = await startServer(t, 'servers/upstream.ts')
  const { cookie, start } = await startVerified(t, upstream)
  const verified = await start('generic')
  const asked = await start('forward-auth', { POSTERN_GATEWAY_TRUSTED_PROXIES: '127.0.0.1' })
  const bare = await startHttpProxy(t, upstream.url)
  const asking = await startNginx(t, upstream.url, new URL('/forward-auth/ask', asked.url))
  const others = [
    { name: GATEWAY, server: verified, behind: [] },
    { name: NGINX_ASKS, server: asking, behind: [asked] },
    ...(quick ? [] : [{ name: 'nginx with `proxy_pass`', server: await startNginx(t, upstream.url), behind: [] }])
  ]
  const yes = quick ? [] : [await startYes(t, upstream)]
  const tables: Table[] = []
  const figures: Figure[] = []
  for (const { name, path, bytes, ...own } of quick ? BODIES.slice(0, 1) : BODIES) {
    const operation = answered(path, bytes, cookie)
    const thing = (of: string, { url, pid }: Started, behind: readonly Started[] = []): Thing =>
      ({ name: of, url, pids: [pid, ...behind.map(one => one.pid)], operation })
    const table = await compare(name, {
      operation: 'a request and its answer',
      plan: { ...plan, ...own, sliceMs: plan.sliceMs / 2, warmMs: plan.warmMs / 2 },
      baseline: thing('bare `@fastify/http-proxy`', bare),
      others: [...others, ...(path === '/small' ? yes : [])].map(one => thing(one.name, one.server, one.behind)),
      targets: { [GATEWAY]: 0.95 }
    })
    tables.push(table)
    const ratio = ratioOf(table, GATEWAY) / ratioOf(table, NGINX_ASKS)
    figures.push({ name: `gateway to nginx with \`auth_request\`, ${name}`, value: ratio.toFixed(2), must: 'over 1', kept: ratio > 1 })
  }
  if (!quick) {
    const large: Thing = { name: GATEWAY, url: verified.url, pids: [verified.pid], operation: answered('/10m', 10 << 20, cookie) }
    figures.push(await flatness(large, 10))
  }
  return { tables, figures }
}

/** What nginx would be with a gate that costs nothing. */
async function startYes (t: Teardown, upstream: Started) {
  const yes = await startServer(t, 'servers/upstream.ts')
  return { name: NGINX_ASKS_BARE, server: await startNginx(t, upstream.url, new URL('/yes', yes.url)), behind: [yes] }
}
