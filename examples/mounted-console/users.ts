// The console's own users: a JSON file with names, settings and scrypt hashes of passwords.

import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'

export interface User {
  /** Never changes, whatever becomes of the name: this is what the 2FA service knows the user by. */
  readonly id: string
  readonly name: string
  readonly email: string | null
  readonly locale?: string
  password: string
  /** Grows with each change of the password; sessions of an older version are logged out. */
  passwordVersion: number
  settings: Settings
}

export interface Settings {
  readonly displayName: string
  readonly about: string
  readonly alerts: readonly string[]
}

export interface Users {
  readonly get: (id: string | undefined) => User | undefined
  /** The user of that name if the password is right. Takes as long for a name that nobody has. */
  readonly login: (name: string, password: string) => Promise<User | undefined>
  readonly saveSettings: (user: User, settings: Partial<Settings>) => Promise<void>
  readonly changePassword: (user: User, password: string) => Promise<void>
}

export function openUsers (file: string): Users {
  const users = JSON.parse(readFileSync(file, 'utf8')) as User[]
  const byId = new Map(users.map(user => [user.id, user]))
  const nobody = hashPassword(randomBytes(16).toString('hex'))
  let written = Promise.resolve()

  const save = (): Promise<void> => {
    written = written.catch(() => {}).then(async () => {
      await writeFile(`${file}.new`, JSON.stringify(users, null, 2), { mode: 0o600 })
      await rename(`${file}.new`, file)
    })
    return written
  }

  return {
    get: id => id === undefined ? undefined : byId.get(id),
    login: async (name, password) => {
      const user = users.find(one => one.name === name)
      const right = await isPassword(password, user?.password ?? await nobody)
      return right ? user : undefined
    },
    saveSettings: async (user, settings) => {
      user.settings = { ...user.settings, ...settings }
      await save()
    },
    changePassword: async (user, password) => {
      user.password = await hashPassword(password)
      user.passwordVersion += 1
      await save()
    }
  }
}

/** `scrypt$<salt>$<hash>`, both in hex. */
export async function hashPassword (password: string, salt = randomBytes(16)): Promise<string> {
  return `scrypt$${salt.toString('hex')}$${(await derive(password, salt)).toString('hex')}`
}

async function isPassword (password: string, stored: string): Promise<boolean> {
  const [, salt = '', hash = ''] = stored.split('$')
  return timingSafeEqual(await derive(password, Buffer.from(salt, 'hex')), Buffer.from(hash, 'hex'))
}

function derive (password: string, salt: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password, salt, 32, (error, key) => { if (error === null) resolve(key); else reject(error) })
  })
}
