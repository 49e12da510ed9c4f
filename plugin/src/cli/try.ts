// `fastify-postern try <url>`: a console that is already running, with 2FA in front of it on loopback, in one command.
// Nothing of the console is changed; keys and data are in one folder.

import { spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { probe } from './probe.ts'
import { composeOf, envOf, helmOf, type Kept } from './kept.ts'

export interface TryParts {
  readonly url: string
  readonly folder: string
  /** What the person named; the rest is probed, then asked for. */
  readonly given: Readonly<Record<'preset' | 'cookie' | 'who' | 'subject', string | undefined>>
  readonly write: 'compose' | 'helm' | 'env' | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly print: (line: string) => void
  /** Asks the person; undefined where nobody is there to answer. */
  readonly ask: (question: string) => Promise<string | undefined>
}

export interface Trying {
  readonly origin: string
  /** Where the service listens. */
  readonly service: string
  readonly stop: () => Promise<void>
  /** Resolves with a sentence if a part ends by itself. */
  readonly died: Promise<string>
}

/** Starts it, or writes the configuration (`undefined`). Throws a sentence for the person. */
export async function tryConsole (parts: TryParts): Promise<Trying | undefined> {
  const { folder, write, print, env } = parts
  const upstream = addressOf(parts.url)
  const serviceFile = write === undefined ? serviceMain(parts.url) : ''
  const preset = await presetSettings(upstream, parts)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const keys = keysIn(folder)
  const [port, servicePort, servicePages, gatewayPages] = await freePorts()
  const origin = `http://127.0.0.1:${port}`
  const kept: Kept = {
    service: {
      POSTERN_ENCRYPTION_KEYS: keys.encryption,
      POSTERN_SERVER_KEY: keys.server,
      POSTERN_TENANTS: JSON.stringify([{ id: 'console', name: 'Console', keys: [{ id: 'k1', scope: 'gate', sha256: createHash('sha256').update(keys.gate).digest('hex') }] }])
    },
    gateway: { POSTERN_GATEWAY_UPSTREAM: upstream, POSTERN_GATEWAY_TENANT_KEY: keys.gate, ...preset }
  }
  if (write !== undefined) {
    for (const [name, text] of Object.entries({ compose: composeOf, helm: helmOf, env: envOf }[write](kept))) {
      writeFileSync(join(folder, name), text, { mode: 0o600 })
      print(`wrote ${join(folder, name)}`)
    }
    return undefined
  }
  const clean = Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('POSTERN_')))
  const service = start('service', [serviceFile, 'serve'], {
    ...clean,
    ...kept.service,
    POSTERN_DATABASE: `sqlite:${join(folder, 'postern.db')}`,
    POSTERN_PORT: String(servicePort),
    POSTERN_OPERATIONS_PORT: String(servicePages),
    POSTERN_DRAIN_SECONDS: '0'
  })
  const gateway = start('gateway', [fileURLToPath(new URL('../gateway.js', import.meta.url))], {
    ...clean,
    ...kept.gateway,
    POSTERN_GATEWAY_SERVICE: `http://127.0.0.1:${servicePort}`,
    POSTERN_GATEWAY_PUBLIC_ORIGIN: origin,
    POSTERN_GATEWAY_PORT: String(port),
    POSTERN_GATEWAY_OPERATIONS_PORT: String(gatewayPages),
    POSTERN_GATEWAY_DRAIN_SECONDS: '0'
  })
  const stop = async (): Promise<void> => { await Promise.all([service.stop(), gateway.stop()]) }
  try {
    await Promise.all([service.ready, gateway.ready])
  } catch (error) {
    await stop()
    throw error
  }
  return { origin, service: `http://127.0.0.1:${servicePort}`, stop, died: Promise.race([service.ended, gateway.ended]) }
}

/** Plain HTTP only on loopback: passwords would cross the network in clear. */
function addressOf (text: string): string {
  if (!URL.canParse(text)) throw new Error(`"${text}" is not the URL of a console, as http://127.0.0.1:21114`)
  const { protocol, hostname, origin } = new URL(text)
  const loopback = hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
  if (protocol !== 'https:' && !(protocol === 'http:' && loopback)) throw new Error('a console that is not on this machine must be reached by HTTPS')
  return origin
}

async function presetSettings (
  upstream: string,
  { given, ask, print }: TryParts
): Promise<Readonly<Record<string, string>>> {
  const found = await probe(upstream)
  if (found.preset === undefined) throw new Error(`nothing answers at ${upstream}; start the console first`)
  const preset = given.preset ?? found.preset
  print(`preset ${preset}`)
  if (preset !== 'generic') return { POSTERN_GATEWAY_PRESET: preset }
  const need = async (name: 'cookie' | 'who' | 'subject', question: string, probed: string | undefined): Promise<string> => {
    const answer = given[name] ?? (await ask(`${question}${probed === undefined ? '' : ` [${probed}]`}: `) ?? '')
    const value = answer.trim() === '' ? probed : answer.trim()
    if (value === undefined) throw new Error(`this console is not one that is known: name --${name} (${question})`)
    return value
  }
  return {
    POSTERN_GATEWAY_PRESET: 'generic',
    POSTERN_GATEWAY_GENERIC_COOKIE: await need('cookie', 'the session cookie', found.cookie),
    POSTERN_GATEWAY_GENERIC_WHO: await need('who', 'the call that says who is logged in, as GET /api/me', found.who),
    POSTERN_GATEWAY_GENERIC_SUBJECT: await need('subject', 'where its JSON has the user\'s id, as user.id', 'id')
  }
}

interface Keys {
  readonly encryption: string
  readonly server: string
  readonly gate: string
}

/** Made once and kept: without them the data of an earlier try cannot be read. */
function keysIn (folder: string): Keys {
  const file = join(folder, 'keys.json')
  if (existsSync(file)) return keysOf(readFileSync(file, 'utf8'))
  const keys: Keys = {
    encryption: `k1:${randomBytes(32).toString('base64')}`,
    server: `s1:${randomBytes(32).toString('base64')}`,
    gate: `pk_console_k1_${randomBytes(32).toString('base64url')}`
  }
  writeFileSync(file, JSON.stringify(keys, null, 2), { mode: 0o600 })
  return keys
}

// The one narrowing of this boundary: a file of ours.
function keysOf (text: string): Keys {
  return JSON.parse(text) as Keys
}

/** The service beside this package, or in the person's own folder: npx keeps what it fetched in a folder of its own. */
function serviceMain (url: string): string {
  for (const place of [import.meta.url, resolve('package.json')]) {
    try {
      return resolve(dirname(createRequire(place).resolve('postern/package.json')), 'dist/main.js')
    } catch {}
  }
  throw new Error(`the service is not installed; run: npx -p fastify-postern -p postern fastify-postern try ${url}
or install it in this folder first: npm install postern`)
}

async function freePorts (): Promise<readonly [number, number, number, number]> {
  const servers = await Promise.all(Array.from({ length: 4 }, async () => {
    const server = createServer()
    await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
    return server
  }))
  const [a = 0, b = 0, c = 0, d = 0] = servers.map(server => {
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  })
  await Promise.all(servers.map(server => new Promise(resolve => { server.close(resolve) })))
  return [a, b, c, d]
}

interface Part {
  readonly ready: Promise<void>
  readonly ended: Promise<string>
  readonly stop: () => Promise<void>
}

function start (name: string, args: readonly string[], env: NodeJS.ProcessEnv): Part {
  const child: ChildProcess = spawn(process.execPath, [...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const said: string[] = []
  const ended = new Promise<string>(resolve => {
    child.on('close', () => { resolve(`the ${name} ended:\n${said.join('').split('\n').slice(-8).join('\n')}`) })
  })
  const ready = new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (data: Buffer) => {
        said.push(data.toString())
        if (said.length > 50) said.shift()
        if (said.join('').includes('"msg":"ready"')) resolve()
      })
    }
    void ended.then(sentence => { reject(new Error(sentence)) })
  })
  ready.catch(() => {})
  return {
    ready,
    ended,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGINT')
      await ended
    }
  }
}
