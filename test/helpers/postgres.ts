// A real PostgreSQL of its own on a free port, ended with the test.

import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { freePort } from './redis.ts'
import type { Teardown } from './service.ts'
import { tool } from './tools.ts'

const run = promisify(execFile)
const asRoot = process.getuid?.() === 0

/** A command of PostgreSQL, by the user that it accepts: it refuses root. */
export async function pgCommand (name: string, args: readonly string[]): Promise<string> {
  const file = join(dirname(tool('initdb')), name)
  const { stdout } = asRoot
    ? await run('runuser', ['-u', 'postgres', '--', file, ...args], { cwd: '/', maxBuffer: 1e8 })
    : await run(file, [...args], { cwd: '/', maxBuffer: 1e8 })
  return stdout
}

/** A folder that the server's user owns. */
export function pgFolder (t: Teardown): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-pg-'))
  if (asRoot) {
    const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
    chownSync(folder, id('-u'), id('-g'))
  }
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  return folder
}

export interface PostgresOptions {
  /** More settings of the server, as `max_connections=20`. */
  readonly settings?: readonly string[]
  /** Key and certificate (PEM): the server speaks TLS, and nothing else to whoever logs in over TCP. */
  readonly tls?: { readonly key: string, readonly cert: string }
  /** A data folder that is there already, as of a standby or a restored backup. */
  readonly data?: string
}

export async function startPostgres (t: Teardown, { settings = [], tls, data }: PostgresOptions = {}) {
  const folder = pgFolder(t)
  const port = await freePort()
  const place = data ?? join(folder, 'data')
  if (data === undefined) await pgCommand('initdb', ['-D', place, '-A', 'trust', '-U', 'postgres', '--no-sync'])
  if (tls !== undefined) {
    for (const [name, text] of [['server.key', tls.key], ['server.crt', tls.cert]] as const) {
      const file = join(folder, name)
      writeFileSync(file, text)
      // The server reads its key only where it is root's or its own, and nobody else's to read.
      chmodSync(file, asRoot ? 0o640 : 0o600)
      if (asRoot) chownSync(file, 0, Number(execFileSync('id', ['-g', 'postgres'], { encoding: 'utf8' })))
    }
    writeFileSync(join(place, 'pg_hba.conf'), 'local all all trust\nhostssl all all 127.0.0.1/32 trust\n')
  }
  const options = [
    'listen_addresses=127.0.0.1', `unix_socket_directories=${folder}`, 'fsync=off',
    ...(tls === undefined ? [] : ['ssl=on', `ssl_cert_file=${join(folder, 'server.crt')}`, `ssl_key_file=${join(folder, 'server.key')}`]),
    ...settings
  ].map(one => `-c ${one}`).join(' ')
  const start = async () => {
    await pgCommand('pg_ctl', ['-D', place, '-w', '-t', '120', '-o', `-p ${port} ${options}`, '-l', join(folder, 'log'), 'start'])
  }
  const stop = async (mode: 'fast' | 'immediate' = 'fast') => {
    await pgCommand('pg_ctl', ['-D', place, '-w', '-m', mode, 'stop']).catch(() => {})
  }
  await start()
  t.teardown(async () => { await stop('immediate') })
  const address = (name: string) => `postgres://postgres@127.0.0.1:${port}/${name}`
  const socket = { host: folder, port, user: 'postgres' }
  /** One statement, by a connection of its own. */
  const query = async (sql: string, name = 'postgres') => {
    const client = new pg.Client({ ...socket, database: name })
    await client.connect()
    try {
      return (await client.query(sql)).rows
    } finally {
      await client.end()
    }
  }
  /** An open connection, for holding locks. */
  const session = async (name: string) => {
    const client = new pg.Client({ ...socket, database: name })
    client.on('error', () => {})
    await client.connect()
    let open = true
    const end = async () => {
      if (open) await client.end().catch(() => {})
      open = false
    }
    t.teardown(end)
    return { query: async (sql: string) => (await client.query(sql)).rows, end }
  }
  let made = 0
  return {
    port,
    data: place,
    socket: folder,
    start,
    stop,
    query,
    session,
    address,
    /** A new empty database. */
    fresh: async () => {
      const name = `test${++made}`
      await query(`create database ${name}`)
      return { name, url: address(name) }
    }
  }
}

export type Postgres = Awaited<ReturnType<typeof startPostgres>>
