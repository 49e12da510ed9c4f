#!/usr/bin/env node
// The command line of the service: one word, one file in cli/.

import { LeaseHeld } from './app.ts'
import { backup } from './cli/backup.ts'
import { type Command } from './cli/command.ts'
import { doctor } from './cli/doctor.ts'
import { keys } from './cli/keys.ts'
import { migrate } from './cli/migrate.ts'
import { restoreFence } from './cli/restore-fence.ts'
import { serve } from './cli/serve.ts'
import { subject } from './cli/subject.ts'
import { tenants } from './cli/tenants.ts'
import { ConfigError, describeSettings } from './config.ts'

const COMMANDS = new Map<string, Command>(Object.entries({
  serve, migrate, doctor, subject, tenants, keys, backup, 'restore-fence': restoreFence
}))

const HELP = `postern: two-factor verification that several consoles share

${[...COMMANDS.values()].map(command => `  postern ${command.usage}\n      ${command.text}`).join('\n')}

Settings come from the environment and from the JSON file that POSTERN_CONFIG names
({ "settings": { … }, "tenants": [ … ] }); the environment wins.

${describeSettings()}
  POSTERN_TENANTS (unset)
      The tenants as JSON, instead of the file's.
`

const [word = 'serve', ...args] = process.argv.slice(2)
const command = COMMANDS.get(word)
const io = {
  env: process.env,
  print: (line: string) => {
    process.stdout.write(line + '\n')
  },
  complain: (line: string) => {
    process.stderr.write(`postern: ${line}\n`)
  }
}
if (['--help', '-h', 'help'].includes(word) || args.includes('--help')) {
  process.stdout.write(HELP)
} else if (command === undefined) {
  io.complain(`"${word}" is not a command; postern --help lists what there is`)
  process.exitCode = 2
} else {
  try {
    process.exitCode = await command.run(args, io)
    if (command === serve) process.exit()
  } catch (error) {
    // What an operator can mend is said in its own words; the rest with its name.
    io.complain(
      error instanceof ConfigError || error instanceof LeaseHeld
        ? error.message
        : `cannot ${word}: ${error instanceof Error ? error.message : String(error)}`
    )
    process.exit(1)
  }
}
