// postern tenants key: makes a tenant key. Nothing is stored: the hash goes into the configuration, the key to the
// console.

import { createHash, randomBytes } from 'node:crypto'
import { parse, type Command } from './command.ts'

export const tenants: Command = {
  usage: 'tenants key <tenant> <key id> [--admin]',
  text: 'Make a key for a console: prints the key, and the entry for `keys` of the tenant',
  run: async (args, io) => {
    const {
      words: [verb, tenant = '', id = ''],
      set,
      mistake
    } = parse(args, ['admin'])
    if (
      mistake !== undefined ||
      verb !== 'key' ||
      !/^[a-z0-9-]{1,40}$/.test(tenant) ||
      !/^[a-z0-9-]{1,16}$/.test(id)
    ) {
      io.complain(mistake ?? 'usage: postern tenants key <tenant> <key id> [--admin]; both of a-z, 0-9 and -')
      return 2
    }
    const key = `pk_${tenant}_${id}_${randomBytes(32).toString('base64url')}`
    io.print(`key:   ${key}`)
    io.print(
      `entry: ${JSON.stringify({ id, scope: set.has('admin') ? 'admin' : 'gate', sha256: createHash('sha256').update(key).digest('hex') })}`
    )
    return 0
  }
}
