// Pending over Redis (standalone, Sentinel or Cluster): one Lua script per state change, one hash tag per subject.

import type { By, Slot, SlotKind } from '../domain/model.ts'
import type { Limits } from '../domain/policy.ts'
import type { Pending, Receipt } from '../domain/pending.ts'
import type { Randomness, Sealer } from '../domain/ports.ts'
import { createRedisCalls } from './redis-calls.ts'
import type { RedisClient } from './redis-client.ts'
import { SCRIPTS } from './redis-scripts.ts'
import { createSlotNames, type SlotId } from './slot-names.ts'

type ScriptName = keyof typeof SCRIPTS
type Reply = readonly Buffer[]

/** Bytes of an attempt's operation id. */
const OPERATION = 4
/** Of mails, where nobody asks how long to wait for one. */
const NO_LIMITS = [0, 1e9, 1e9] as const

interface RedisReceipt extends Receipt {
  readonly operation: Buffer
}

/** Bytes of a slot's name in its key: it need only differ from the other slots of the same subject. */
const SLOT_NAME = 8

/** Random parts and names lie in Redis as bytes, a quarter less than their base64url. */
const bytesOf = (text: string): Buffer => Buffer.from(text, 'base64url')
const base64Of = (bytes: Buffer | undefined): string => bytes?.toString('base64url') ?? ''

export interface RedisPendingOptions {
  /** Made with a command time-out and without an offline queue; closed by its maker. */
  readonly redis: RedisClient
  readonly sealer: Sealer
  readonly randomness: Randomness
  /** Added to the time of Redis; 0 outside tests. */
  readonly offsetMs?: () => number
}

export function createRedisPending ({ redis, sealer, randomness, offsetMs = () => 0 }: RedisPendingOptions): Pending {
  const names = createSlotNames({ sealer, randomness })
  for (const [name, { keys, lua }] of Object.entries(SCRIPTS)) redis.defineCommand(name, { numberOfKeys: keys, lua })

  const calls = createRedisCalls(redis)
  const run = async (
    script: ScriptName,
    keys: readonly (string | Buffer)[],
    ...args: readonly (string | number | Buffer)[]
  ): Promise<Reply> => {
    // The boundary to commands that were defined by name; this form of them answers with bytes.
    const command = Reflect.get(redis, `${script}Buffer`) as (...args: readonly unknown[]) => Promise<Reply>
    return await calls.twice(async () => await command.call(redis, ...keys, offsetMs(), ...args))
  }

  const keysOf = (by: By) => {
    const tag = `{${names.tagOf(by)}}`
    const key = (kind: SlotKind, name: Buffer): Buffer =>
      Buffer.concat([
        Buffer.from(tag + (kind.startsWith('enrol') || kind === 'proof' ? 'e' : 'c')),
        name.subarray(0, SLOT_NAME)
      ])
    return {
      budget: `${tag}b`,
      slot: (kind: SlotKind) => key(kind, names.slotBytes(by, kind)),
      byId: ({ held, kind, random }: SlotId) => (held ? key('login', bytesOf(random)) : key(kind, names.slotBytes(by, kind))),
      held: (random: string) => `${tag}h${random}`
    }
  }
  const fieldOf = (by: By, known: boolean) => (known ? by.browser : '')
  const backupField = (by: By) => `k${by.browser}`

  const slotOf = (by: By, kind: SlotKind, held: boolean, reply: Reply): Slot => {
    const [left = NaN, epoch = NaN, expires = NaN, mailedAt = 0] = reply.slice(4, 8).map(Number)
    const [mailed, path, payload, random] = reply.slice(8)
    const text = (bytes: Buffer | undefined): string | null =>
      bytes === undefined || bytes.length === 0 ? null : bytes.toString()
    return {
      id: names.idOf(by, kind, held, base64Of(random)),
      kind,
      by,
      epoch,
      expiresAt: expires,
      attemptsLeft: left,
      returnPath: text(path),
      payload: text(payload),
      mailedHash: text(mailed),
      mailedAt: mailedAt === 0 ? null : mailedAt
    }
  }
  const status = (reply: Reply) => String(reply[0])
  const now = (reply: Reply) => Number(reply[1])
  const mailArgs = (limits: Limits) => [limits.mailResendSeconds * 1000, limits.mailPerHour, limits.mailPerDay]
  const time = async () => now(await run('posternNow', ['{postern}n'], ''))

  return {
    open: async (by, kind, options) => {
      const { limits } = options
      const isHeld = options.held !== undefined
      const id = names.newId(by, kind, isHeld)
      const random = names.read(by, id)?.random ?? ''
      const keys = keysOf(by)
      const reply = await run(
        'posternOpen',
        [isHeld ? keys.byId({ kind, held: true, random }) : keys.slot(kind), keys.budget, keys.held(random)],
        fieldOf(by, options.browserKnown),
        bytesOf(random),
        names.slotBytes(by, kind),
        options.epoch,
        options.lifetimeMs,
        limits.challengeAttempts,
        options.returnPath === undefined ? '0' : '1',
        options.returnPath ?? '',
        options.payload ?? '',
        options.replace === true ? '1' : '0',
        options.inARow,
        isHeld ? '1' : '0',
        options.held === undefined ? '' : names.slot(by, kind) + options.held,
        ...mailArgs(limits)
      )
      return {
        slot: slotOf(by, kind, isHeld, reply),
        now: now(reply),
        fresh: status(reply) === 'fresh',
        waitForMs: Number(reply[2]),
        mailWaitMs: Number(reply[3])
      }
    },

    read: async (by, id, { browserKnown, limits }) => {
      const read = names.read(by, id)
      if (read === undefined) return undefined
      const keys = keysOf(by)
      const reply = await run(
        'posternRead',
        [keys.byId(read), keys.budget],
        fieldOf(by, browserKnown),
        bytesOf(read.random),
        names.slotBytes(by, read.kind),
        ...mailArgs(limits)
      )
      return status(reply) === 'gone'
        ? undefined
        : {
            slot: slotOf(by, read.kind, read.held, reply),
            now: now(reply),
            waitForMs: Number(reply[2]),
            mailWaitMs: Number(reply[3])
          }
    },

    find: async (by, kind) => {
      const keys = keysOf(by)
      const reply = await run('posternRead', [keys.slot(kind), keys.budget], '', '', '', ...NO_LIMITS)
      return status(reply) === 'gone' || Number(reply[4]) <= 0 ? undefined : slotOf(by, kind, false, reply).id
    },

    takeAttempt: async (by, id, budget, { browserKnown, inARow, limits }) => {
      const read = names.read(by, id)
      if (read === undefined) return { taken: 'gone', now: await time() }
      const operation = Buffer.from(randomness.bytes(OPERATION))
      const keys = keysOf(by)
      const common = [bytesOf(read.random), names.slotBytes(by, read.kind), operation] as const
      const reply =
        budget === 'backup_code'
          ? await run(
            'posternTakeBackup',
            [keys.byId(read), keys.budget],
            backupField(by),
            ...common,
            limits.backupWrongPerHour
          )
          : await run(
            'posternTake',
            [keys.byId(read), keys.budget],
            fieldOf(by, browserKnown),
            ...common,
            inARow,
            limits.waitAfterFailures,
            limits.waitFirstSeconds * 1000,
            limits.waitLongestSeconds * 1000
          )
      switch (status(reply)) {
        case 'taken': {
          const receipt: RedisReceipt = { by, slot: id, budget, browserKnown, booked: Number(reply[3]), operation }
          return { taken: 'taken', slot: slotOf(by, read.kind, read.held, reply), now: now(reply), receipt }
        }
        case 'waiting':
          return { taken: 'waiting', waitForMs: Number(reply[2]), now: now(reply) }
        case 'spent':
          return { taken: 'spent', now: now(reply) }
        default:
          return { taken: 'gone', now: now(reply) }
      }
    },

    giveBack: async (receipt, outcome) => {
      const { by, slot, budget, browserKnown, booked } = receipt
      const read = names.read(by, slot)
      if (read === undefined || !isOurs(receipt)) return
      const keys = keysOf(by)
      await run(
        'posternGiveBack',
        [keys.byId(read), keys.budget],
        budget === 'backup_code' ? backupField(by) : fieldOf(by, browserKnown),
        bytesOf(read.random),
        names.slotBytes(by, read.kind),
        receipt.operation,
        outcome,
        budget,
        booked
      )
    },

    send: async (by, id, { codeHash, browserKnown, limits }) => {
      const read = names.read(by, id)
      if (read === undefined) return { sent: 'gone', now: await time() }
      const keys = keysOf(by)
      const reply = await run(
        'posternSend',
        [keys.byId(read), keys.budget],
        fieldOf(by, browserKnown),
        bytesOf(read.random),
        names.slotBytes(by, read.kind),
        codeHash,
        ...mailArgs(limits)
      )
      switch (status(reply)) {
        case 'sent':
          return { sent: 'sent', slot: slotOf(by, read.kind, read.held, reply), now: now(reply) }
        case 'waiting':
          return { sent: 'waiting', waitForMs: Number(reply[2]), now: now(reply) }
        default:
          return { sent: 'gone', now: now(reply) }
      }
    },

    held: async (by, id) => {
      const read = names.read(by, id)
      if (read === undefined || !read.held) return undefined
      const kept = await calls.twice(async () => await redis.get(keysOf(by).held(read.random)))
      const name = names.slot(by, read.kind)
      return kept?.startsWith(name) === true ? kept.slice(name.length) : undefined
    },

    end: async (by, id) => {
      const read = names.read(by, id)
      if (read !== undefined) {
        const keys = [keysOf(by).byId(read)]
        await run('posternEnd', keys, '', bytesOf(read.random), names.slotBytes(by, read.kind))
      }
    },

    clearBudget: async (tenant, subject) => {
      await calls.twice(async () => await redis.del(`{${names.tag(tenant, subject)}}b`))
    },
    now: time,
    check: async () => {
      await run('posternNow', ['{postern}n'], '')
    },
    close: async () => {
      await calls.settled()
    }
  }
}

function isOurs (receipt: Receipt): receipt is RedisReceipt {
  return 'operation' in receipt
}
