// postern migrate: brings the schema up to date, once, however many run it.

import { systemClock } from '../adapters/clock.ts'
import { databaseId } from '../adapters/key-ring.ts'
import { openFrom } from '../adapters/open-records.ts'
import { readConfig } from '../config.ts'
import type { Command } from './command.ts'

export const migrate: Command = {
  usage: 'migrate',
  text: 'Bring the database schema up to date',
  run: async (_args, io) => {
    const database = await openFrom(readConfig(io.env))
    try {
      await database.migrate()
      io.print('the schema is up to date')
      io.print(`id of the database (POSTERN_DATABASE_ID): ${await databaseId(database, systemClock.now())}`)
      return 0
    } finally {
      await database.close()
    }
  }
}
