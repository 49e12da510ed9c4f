// postern keys new: makes a key for the key ring or the server key.

import { randomBytes } from 'node:crypto'
import { parse, type Command } from './command.ts'

export const keys: Command = {
  usage: 'keys new <key id>',
  text: 'Make a random key for POSTERN_ENCRYPTION_KEYS or POSTERN_SERVER_KEY',
  run: async (args, io) => {
    const { words: [verb, id = ''], mistake } = parse(args, [])
    if (mistake !== undefined || verb !== 'new' || !/^[a-z0-9-]{1,16}$/.test(id)) {
      io.complain(mistake ?? 'usage: postern keys new <key id>; of a-z, 0-9 and -')
      return 2
    }
    io.print(`${id}:${randomBytes(32).toString('base64')}`)
    return 0
  }
}
