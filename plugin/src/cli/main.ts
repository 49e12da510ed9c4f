#!/usr/bin/env node
// The command `fastify-postern`.

import { diagnose } from './doctor.ts'

const USAGE = `fastify-postern doctor <entry file> [arguments of the console]

Prints every route of your console with what it asks for, and what looks wrong. Ends with 0 if nothing does, else with 1.
A TypeScript entry needs your loader: NODE_OPTIONS="--import tsx" fastify-postern doctor server.ts
`

const [command, entry, ...args] = process.argv.slice(2)
if (command !== 'doctor' || entry === undefined) {
  process.stderr.write(USAGE)
  process.exit(2)
}
const { text, code } = await diagnose(entry, args)
// The console's own timers and sockets do not hold the command up.
process.stdout.write(text, () => process.exit(code))
