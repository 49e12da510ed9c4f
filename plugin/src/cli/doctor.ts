// `fastify-postern doctor <entry file>`: what every route of a console asks for, without ever listening. The entry is
// run as its own start command would run it; Fastify itself tells of the instances that it makes.

import { channel, type ChannelListener } from 'node:diagnostics_channel'
import { Server } from 'node:net'
import { resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { FastifyInstance } from 'fastify'
import { printedReport, type Report } from '../report.ts'

export interface Diagnosis {
  readonly text: string
  /** 0 = nothing to say, 1 = a warning, or no console was found, or it refuses to start. */
  readonly code: 0 | 1
}

const PATIENCE_MS = 30_000
const CLOSING_MS = 2_000
/** What a module may call what makes its server, where it does not start by itself. */
const MAKERS = ['app', 'default', 'build', 'buildApp', 'buildServer', 'createServer'] as const

type Found = FastifyInstance | { readonly nothing: string }

/** Loads the entry file with these arguments and reports of the console in it. */
export async function diagnose (entry: string, args: readonly string[]): Promise<Diagnosis> {
  const file = resolve(entry)
  const made: unknown[] = []
  const heard: ChannelListener = message => { made.push(instanceOf(message)) }
  const initialized = channel('fastify.initialization')
  initialized.subscribe(heard)
  const { listen } = Server.prototype
  // Nobody is served: a console that starts by itself waits here for ever.
  Server.prototype.listen = function (this: Server) { return this }
  const { argv } = process
  process.argv = [argv[0] ?? 'node', file, ...args]
  try {
    const app = await Promise.race([
      find(file, made),
      wait(PATIENCE_MS, { nothing: `no console with Postern was ready within ${PATIENCE_MS / 1000} seconds` }, { ref: false })
    ])
    if ('nothing' in app) return { text: `${app.nothing}\n`, code: 1 }
    const report = app.posternReport()
    await Promise.race([app.close(), wait(CLOSING_MS, undefined, { ref: false })])
    return { text: printedReport(report), code: sound(report) ? 0 : 1 }
  } catch (error) {
    return { text: `the console does not start: ${error instanceof Error ? error.message : String(error)}\n`, code: 1 }
  } finally {
    Server.prototype.listen = listen
    process.argv = argv
    initialized.unsubscribe(heard)
  }
}

function sound ({ routes, warnings, mode }: Report): boolean {
  // A route that stood before the plugin is `unknown` and gated all the same: the plugin refuses to start otherwise.
  return mode === 'enforce' && warnings.length === 0 && routes.every(({ warning }) => warning === undefined)
}

/** The first instance that has the plugin: one that the entry made by itself, or one that an export of it makes. */
async function find (file: string, made: readonly unknown[]): Promise<Found> {
  const loading = import(pathToFileURL(file).href).then(exportsOf)
  let loaded: Readonly<Record<string, unknown>> | undefined
  let failed: { readonly error: unknown } | undefined
  loading.then(given => { loaded = given }, (error: unknown) => { failed = { error } })
  let tried = false
  for (;;) {
    const app = await readyOne(made)
    if (app !== undefined) return app
    if (failed !== undefined) throw failed.error
    if (loaded !== undefined && tried) return { nothing: `no Fastify instance with Postern was made by ${file}, and none by its exports ${MAKERS.join(', ')}` }
    if (loaded !== undefined) {
      tried = true
      for (const name of MAKERS) {
        const maker = loaded[name]
        // Without arguments: what needs some is started by its own entry file.
        if (typeof maker === 'function' && maker.length === 0) await Reflect.apply(maker, undefined, [])
      }
    }
    await wait(20)
  }
}

async function readyOne (made: readonly unknown[]): Promise<FastifyInstance | undefined> {
  for (const one of made) {
    if (!isInstance(one)) continue
    // Its own start may be under way: `ready` can be asked twice, and throws what the start would.
    if (!('posternReport' in one)) continue
    await one.ready()
    return one
  }
  return undefined
}

// The narrowings of this boundary: what Fastify publishes, and what a module exports.
function instanceOf (message: unknown): unknown {
  return typeof message === 'object' && message !== null ? Reflect.get(message, 'fastify') : undefined
}

function isInstance (value: unknown): value is FastifyInstance {
  return typeof value === 'object' && value !== null && 'ready' in value && 'printRoutes' in value
}

function exportsOf (module: unknown): Readonly<Record<string, unknown>> {
  return typeof module === 'object' && module !== null ? { ...module } : {}
}
