#!/usr/bin/env node
// The command `fastify-postern`.

import { createInterface } from 'node:readline/promises'
import { parseArgs } from 'node:util'
import { diagnose } from './doctor.ts'
import { tryConsole, type TryParts } from './try.ts'

const USAGE = `fastify-postern doctor <entry file> [arguments of the console]

Prints every route of your console with what it asks for, and what looks wrong. Ends with 0 if nothing does, else with 1.
A TypeScript entry needs your loader: NODE_OPTIONS="--import tsx" fastify-postern doctor server.ts

fastify-postern try <url> [--preset <name>] [--cookie <name>] [--who "GET /api/me"] [--subject <path>] [--data <folder>]

Puts 2FA in front of a console that is running, on a free port of this machine. Nothing of the console is changed. Needs
the package postern: npx -p fastify-postern -p postern fastify-postern try <url>. --write compose, --write helm or --write env writes the configuration instead.
`

const WRITES = ['compose', 'helm', 'env'] as const

function usage (): never {
  process.stderr.write(USAGE)
  process.exit(2)
}

async function runDoctor (entry: string, args: readonly string[]): Promise<never> {
  const { text, code } = await diagnose(entry, args)
  // The console's own timers and sockets do not hold the command up.
  return await new Promise(() => { process.stdout.write(text, () => process.exit(code)) })
}

async function ask (question: string): Promise<string | undefined> {
  if (!process.stdin.isTTY) return undefined
  const lines = createInterface({ input: process.stdin, output: process.stdout })
  const answer = await lines.question(question)
  lines.close()
  return answer
}

function tryWords (args: readonly string[]): Pick<TryParts, 'url' | 'folder' | 'given' | 'write'> | undefined {
  const text = { type: 'string' } as const
  const options = { preset: text, cookie: text, who: text, subject: text, data: text, write: text }
  try {
    const { values: { data = 'postern-try', write, preset, cookie, who, subject }, positionals: [url, ...more] } = parseArgs({ args: [...args], allowPositionals: true, options })
    const wanted = WRITES.find(one => one === write)
    if (url === undefined || more.length > 0 || wanted !== write) return undefined
    return { url, folder: data, write: wanted, given: { preset, cookie, who, subject } }
  } catch {
    return undefined
  }
}

async function runTry (args: readonly string[]): Promise<void> {
  const began = performance.now()
  const words = tryWords(args)
  if (words === undefined) return usage()
  const print = (line: string): void => { process.stdout.write(`${line}\n`) }
  try {
    const trying = await tryConsole({ ...words, env: process.env, print, ask })
    if (trying === undefined) return
    const end = (code: number): void => { void trying.stop().then(() => process.exit(code)) }
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { end(0) })
    void trying.died.then(sentence => {
      print(sentence)
      end(1)
    })
    print(`${trying.origin} is the console with 2FA (${((performance.now() - began) / 1000).toFixed(1)} s)
${trying.origin}/2fa/settings is where somebody who is logged in sets it up
${trying.service} is the service behind it
Keys and data stay in ${words.folder}/. Ctrl-C ends it.`)
  } catch (error) {
    process.stderr.write(`fastify-postern: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  }
}

const [command, first, ...args] = process.argv.slice(2)
if (command === 'doctor' && first !== undefined) await runDoctor(first, args)
else if (command === 'try' && first !== undefined) await runTry([first, ...args])
else usage()
