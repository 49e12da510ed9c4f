// postern restore-fence: after a restore or a fail-over that lost commits.

import { systemClock } from '../adapters/clock.ts'
import { createSealer } from '../adapters/crypto.ts'
import { openRecords } from '../adapters/open-records.ts'
import { restoreFence as raise } from '../adapters/restore-fence.ts'
import { readConfig } from '../config.ts'
import { parse, type Command } from './command.ts'

export const restoreFence: Command = {
  usage: 'restore-fence [--backup-codes]',
  text: 'After a restore: end every session and every code from before (--backup-codes: all backup codes too)',
  run: async (args, io) => {
    const { words, set, mistake } = parse(args, ['backup-codes'])
    if (mistake !== undefined || words.length > 0) {
      io.complain(mistake ?? `usage: postern ${restoreFence.usage}`)
      return 2
    }
    const config = readConfig(io.env)
    const now = systemClock.now()
    const { database } = await openRecords(config, createSealer(config), now)
    try {
      const { subjects, sessions, backupCodes } = await raise(database, now, { backupCodes: set.has('backup-codes') })
      io.print(`fenced: ${subjects} subjects, ${sessions} sessions ended, ${backupCodes} backup codes void`)
      return 0
    } finally {
      await database.close()
    }
  }
}
