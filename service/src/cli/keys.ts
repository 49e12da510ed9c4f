// postern keys …: makes a key, seals everything anew under the primary one, takes a new server key in place of a lost
// one.

import { randomBytes } from 'node:crypto'
import { systemClock } from '../adapters/clock.ts'
import { createSealer } from '../adapters/crypto.ts'
import { replaceServerKey, rotateKeys } from '../adapters/key-ring.ts'
import { openFrom, openRecords } from '../adapters/open-records.ts'
import { readConfig } from '../config.ts'
import { parse, type Command, type Io } from './command.ts'

const USAGE = 'usage: postern keys new <key id> | rotate | replace-server-key; a key id is of a-z, 0-9 and -'

export const keys: Command = {
  usage: 'keys new <key id> | rotate | replace-server-key',
  text: 'Make a random key for POSTERN_ENCRYPTION_KEYS or POSTERN_SERVER_KEY; seal everything under the first key; use a new server key where the old one is lost',
  run: async (args, io) => {
    const { words: [verb, id, ...rest], mistake } = parse(args, [])
    if (mistake === undefined && rest.length === 0) {
      if (verb === 'new' && /^[a-z0-9-]{1,16}$/.test(id ?? '')) {
        io.print(`${id}:${randomBytes(32).toString('base64')}`)
        return 0
      }
      if (verb === 'rotate' && id === undefined) return await rotate(io)
      if (verb === 'replace-server-key' && id === undefined) return await replace(io)
    }
    io.complain(mistake ?? USAGE)
    return 2
  }
}

async function rotate (io: Io): Promise<number> {
  const config = readConfig(io.env)
  const sealer = createSealer(config)
  const { database } = await openRecords(config, sealer, systemClock.now())
  try {
    let told = 0
    const { resealed, unreadable, unneeded } = await rotateKeys(database, config, sealer, count => {
      if (count < told + 10_000) return
      told = count
      io.print(`sealed anew so far: ${count}`)
    })
    io.print(`sealed anew under ${config.encryptionKeys[0]?.id ?? ''}: ${resealed}`)
    if (unneeded.length > 0) {
      io.print(`no longer needed: ${unneeded.join(', ')}; remove after an hour, when enrolments begun under it have ended`)
    }
    for (const where of unreadable.slice(0, 20)) io.complain(`cannot be opened: ${where}`)
    if (unreadable.length > 0) io.complain(`${unreadable.length} values cannot be opened and are as they were`)
    return unreadable.length > 0 ? 1 : 0
  } finally {
    await database.close()
  }
}

async function replace (io: Io): Promise<number> {
  const config = readConfig(io.env)
  const database = await openFrom(config)
  try {
    await replaceServerKey(database, config.serverKey, systemClock.now())
    io.print(`the server key is now ${config.serverKey.id}; every session verifies again, and backup and enrolment codes are void`)
    return 0
  } finally {
    await database.close()
  }
}
