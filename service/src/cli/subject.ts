// postern subject …: administration on the host. Works with Redis, mail and console down: it writes truth and a change
// row, which the running service reads within a second.

import { systemClock } from '../adapters/clock.ts'
import { createRandomness, createSealer } from '../adapters/crypto.ts'
import { createMemoryPending } from '../adapters/memory.ts'
import { openRecords } from '../adapters/open-records.ts'
import { readConfig } from '../config.ts'
import { createAdministration } from '../domain/administration.ts'
import { totpStatus } from '../domain/model.ts'
import { createNotices } from '../domain/notices.ts'
import { Problem } from '../domain/problems.ts'
import { parse, type Command } from './command.ts'

const VERBS = ['status', 'unlock', 'reset', 'delete', 'rename', 'enrolment-code'] as const

export const subject: Command = {
  usage: 'subject status|unlock|reset|enrolment-code|delete|rename <tenant> <subject> [<new id>] [--open]',
  text: 'Look at or help a subject; reset prints an enrolment code without which nothing passes (--open: none)',
  run: async (args, io) => {
    const {
      words: [given, tenantId = '', name = '', to],
      set,
      mistake
    } = parse(args, ['open'])
    const verb = VERBS.find(one => one === given)
    if (mistake !== undefined || verb === undefined || name === '' || (verb === 'rename') !== (to !== undefined)) {
      io.complain(mistake ?? `usage: postern ${subject.usage}`)
      return 2
    }
    const config = readConfig(io.env)
    const tenant = config.tenants.find(one => one.id === tenantId)
    if (tenant === undefined) {
      io.complain(
        `"${tenantId}" is not a tenant of this configuration (${config.tenants.map(one => one.id).join(', ')})`
      )
      return 1
    }
    const clock = systemClock
    const randomness = createRandomness()
    const sealer = createSealer({ encryptionKeys: config.encryptionKeys, serverKey: config.serverKey })
    const { database, records } = await openRecords(config, sealer, clock.now())
    try {
      // Motion of the running service is not touched from here; truth decides.
      const pending = createMemoryPending({ clock, sealer, randomness })
      const administration = createAdministration({
        records,
        pending,
        sealer,
        randomness,
        clock,
        notices: createNotices({ records, sealer, wake: () => {} })
      })
      const actor = { actor: 'host', requestId: 'cli' }
      switch (verb) {
        case 'status': {
          const state = await records.subject(
            { tenant: tenant.id, subject: name, session: '', browser: 'none' },
            clock.now()
          )
          const codes = state.authenticators.filter(own => own.factor === 'backup_code')
          io.print(
            JSON.stringify({
              tenant: tenant.id,
              subject: name,
              totp: totpStatus(state, clock.now(), tenant.policy.limits.totpExpiresDays),
              email: state.authenticators.some(own => own.factor === 'email'),
              backup_codes_left: codes.filter(code => code.counter === 0).length,
              locked: state.lockedAt !== null,
              failures_in_a_row: state.inARow,
              failures_in_30_days: state.in30Days,
              needs_enrolment_code: state.fenced,
              required_from: state.requiredFrom === null ? null : new Date(state.requiredFrom).toISOString()
            })
          )
          return 0
        }
        case 'unlock':
          await administration.unlock(tenant, name, actor)
          io.print('unlocked')
          return 0
        case 'reset': {
          const code = await administration.reset(tenant, name, actor, { open: set.has('open') })
          io.print(
            code === null
              ? 'reset'
              : `reset; enrolment code (once, ${tenant.policy.limits.enrolmentCodeHours} hours): ${code}`
          )
          return 0
        }
        case 'enrolment-code':
          io.print(
            `enrolment code (once, ${tenant.policy.limits.enrolmentCodeHours} hours): ${await administration.enrolmentCode(tenant, name, actor)}`
          )
          return 0
        case 'delete':
          await administration.remove(tenant, name, actor)
          io.print('deleted')
          return 0
        case 'rename':
          await administration.rename(tenant, name, actor, to ?? '')
          io.print('renamed')
          return 0
        default:
          return verb satisfies never
      }
    } catch (error) {
      if (!(error instanceof Problem)) throw error
      io.complain(`${error.code}: ${error.message}`)
      return 1
    } finally {
      await database.close()
    }
  }
}
