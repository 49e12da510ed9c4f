// A gateway in this process between a console that knows nothing of 2FA and the real service.

import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { createGateway } from '../../plugin/src/gateway/server.ts'
import { readConfig } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { bindingName } from './console.ts'
import { built } from './processes.ts'
import type { Service, Teardown, WireBy } from './service.ts'

export interface UpstreamHit {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly raw: readonly string[]
}

export async function listening (t: Teardown, server: Server): Promise<string> {
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise(resolve => { server.close(resolve) })
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A server that records every request; `answer` says what it does with one. */
export async function startUpstream (
  t: Teardown,
  answer: (request: IncomingMessage, response: ServerResponse, body: () => Promise<string>) => void
) {
  const hits: UpstreamHit[] = []
  const server = createServer((request, response) => {
    hits.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, raw: request.rawHeaders })
    answer(request, response, async () => {
      const parts: Buffer[] = []
      for await (const part of request) parts.push(Buffer.from(part))
      return Buffer.concat(parts).toString()
    })
  })
  return { url: await listening(t, server), server, hits, paths: () => hits.map(one => `${one.method} ${one.url}`) }
}

/** The service on a port of its own. */
export async function served (service: Service): Promise<string> {
  return await service.app.api.listen({ host: '127.0.0.1', port: 0 })
}

export async function startGateway (
  t: Teardown,
  { upstream, service, key, preset, env = {}, port = 0 }: {
    readonly upstream: string
    readonly service: string
    readonly key: string
    readonly preset: string
    readonly env?: Readonly<Record<string, string>>
    readonly port?: number
  }
) {
  const config = readConfig({
    POSTERN_GATEWAY_UPSTREAM: upstream,
    POSTERN_GATEWAY_SERVICE: service,
    POSTERN_GATEWAY_TENANT_KEY: key,
    POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_PRESET: preset,
    POSTERN_GATEWAY_PORT: '0',
    POSTERN_GATEWAY_LOG_LEVEL: 'silent',
    // A service in this process that a busy machine keeps waiting is not one that is away.
    POSTERN_GATEWAY_TIMEOUT_MS: '10000',
    ...env
  }, PRESETS)
  const app = await createGateway(config, { now: () => performance.now(), today: () => Date.now() })
  const url = await app.listen({ host: '127.0.0.1', port })
  t.teardown(async () => {
    app.server.closeAllConnections()
    await app.close()
  })
  return { app, url, port: (app.server.address() as AddressInfo).port }
}

/** How the service names a session that a gate sees. */
export function wire (subject: string, kind: string, session: string, binding: string): WireBy {
  return {
    subject,
    session: createHash('sha256').update(`postern-session\0${kind}\0${session}`).digest('base64url'),
    browser: binding === '' ? 'none' : createHash('sha256').update(`postern-browser\0${binding}`).digest('base64url')
  }
}

export const bindingCookie = (value: string): string => `${bindingName('t1')}=${value}`

const MAIN = fileURLToPath(new URL('../../plugin/dist/gateway.js', import.meta.url))

/** The built command with these arguments and settings; `ready` when it listens, `ended` with its exit code. */
export function gatewayProcess (t: Teardown, args: readonly string[], settings: Record<string, string>) {
  const child = built(MAIN, args, settings)
  const said: string[] = []
  const ended = new Promise<number | null>(resolve => { child.on('close', code => { resolve(code) }) })
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await ended
  })
  const ready = new Promise<{ url: string, operations: string }>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', data => {
        said.push(String(data))
        const line = said.join('').split('\n').find(one => one.includes('"msg":"ready"') && one.endsWith('}'))
        if (line !== undefined) resolve(JSON.parse(line) as { url: string, operations: string })
      })
    }
    void ended.then(() => { reject(new Error(said.join(''))) })
  })
  ready.catch(() => {})
  return { child, ready, ended, text: () => said.join('') }
}
