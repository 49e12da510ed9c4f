// The command line of the service: one word, one file in this folder.

import { LeaseHeld } from '../app.ts'
import { backup } from './backup.ts'
import { type Command } from './command.ts'
import { doctor } from './doctor.ts'
import { keys } from './keys.ts'
import { migrate } from './migrate.ts'
import { restoreFence } from './restore-fence.ts'
import { serve } from './serve.ts'
import { subject } from './subject.ts'
import { tenants } from './tenants.ts'
import { ConfigError, describeSettings } from '../config.ts'

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

/** Runs what the words of the command line say; sets the exit code. */
export async function run (words: readonly string[]): Promise<void> {
  const [word = 'serve', ...args] = words
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
}
