// postern backup: a whole copy of an SQLite database while the service writes to it.

import { existsSync } from 'node:fs'
import { sql } from 'kysely'
import { openFrom } from '../adapters/open-records.ts'
import { readConfig } from '../config.ts'
import { parse, type Command } from './command.ts'

export const backup: Command = {
  usage: 'backup <file>',
  text: 'Write a whole copy of the SQLite database, beside the running service (PostgreSQL: pg_dump)',
  run: async (args, io) => {
    const { words: [file, ...rest], mistake } = parse(args, [])
    if (mistake !== undefined || file === undefined || rest.length > 0) {
      io.complain(mistake ?? `usage: postern ${backup.usage}`)
      return 2
    }
    if (existsSync(file)) {
      io.complain(`${file} exists; a backup is written to a new file`)
      return 1
    }
    const database = await openFrom(readConfig(io.env))
    try {
      if (database.dialect !== 'sqlite') {
        io.complain('PostgreSQL has tools of its own: pg_dump, or a base backup')
        return 1
      }
      // Nobody else may read the copy, not even while it is written.
      process.umask(0o077)
      await sql`vacuum into ${file}`.execute(database.db)
      io.print(`written: ${file}`)
      return 0
    } finally {
      await database.close()
    }
  }
}
