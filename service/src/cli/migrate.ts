// postern migrate: brings the schema up to date, once, however many run it.

import { openDatabase } from '../adapters/database.ts'
import { readConfig } from '../config.ts'
import type { Command } from './command.ts'

export const migrate: Command = {
  usage: 'migrate',
  text: 'Bring the database schema up to date',
  run: async (_args, io) => {
    const database = await openDatabase(readConfig(io.env).database)
    try {
      await database.migrate()
      io.print('the schema is up to date')
      return 0
    } finally {
      await database.close()
    }
  }
}
