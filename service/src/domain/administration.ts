// What an administrator may do to a subject, by API with an admin key and on the host: the same calls.

import { singleMailbox } from './addresses.ts'
import { backupCode, grouped } from './factors/backup-code.ts'
import type { NoticeMessage } from './messages.ts'
import { checkedSubject, sealContext, type Event, type SubjectState } from './model.ts'
import type { Notices } from './notices.ts'
import type { Tenant } from './policy.ts'
import type { Pending } from './pending.ts'
import type { Clock, Randomness, Sealer } from './ports.ts'
import { Problem } from './problems.ts'
import type { Records } from './records.ts'

/** Who acts, for the audit log: `admin:<key id>` with the console's name for the person, or `host`. */
export interface Actor {
  readonly actor: string
  readonly requestId: string
}

export interface Administration {
  /** Clears counts and waits; factors stay. */
  readonly unlock: (tenant: Tenant, subject: string, actor: Actor) => Promise<void>
  /** Removes all factors. Returns the single-use enrolment code without which nothing passes; null where `open`. */
  readonly reset: (
    tenant: Tenant,
    subject: string,
    actor: Actor,
    options: { readonly open: boolean }
  ) => Promise<string | null>
  /** A new enrolment code, for a tenant that asks for one or after a reset. */
  readonly enrolmentCode: (tenant: Tenant, subject: string, actor: Actor) => Promise<string>
  /** Requires 2FA of this subject from an instant on (epoch milliseconds); null lifts it. */
  readonly require: (tenant: Tenant, subject: string, actor: Actor, from: number | null) => Promise<void>
  /** The address that codes go to, at once; null goes back to the proven one. */
  readonly address: (tenant: Tenant, subject: string, actor: Actor, address: string | null) => Promise<void>
  /** Erases all but the audit rows, which keep the subject as a keyed hash. */
  readonly remove: (tenant: Tenant, subject: string, actor: Actor) => Promise<void>
  /** Moves a subject to another id. Problem `target_has_factors`. */
  readonly rename: (tenant: Tenant, subject: string, actor: Actor, to: string) => Promise<void>
}

export function createAdministration ({
  records,
  pending,
  sealer,
  randomness,
  clock,
  notices
}: {
  readonly records: Records
  readonly pending: Pending
  readonly sealer: Sealer
  readonly randomness: Randomness
  readonly clock: Clock
  readonly notices: Notices
}): Administration {
  const checked = (subject: string): string => {
    const fits = checkedSubject(subject)
    if (fits === undefined) throw new Problem('bad_request', { errors: ['subject is not a subject id'] })
    return fits
  }

  /** The subject, a blank `ask` to raise notices by, and the audit record of the act. */
  const about = async (tenant: Tenant, given: string, actor: Actor, kind: string) => {
    const subject = checked(given)
    const now = clock.now()
    const by = { tenant: tenant.id, subject, session: '', browser: 'none' }
    const state = await records.subject(by, now)
    const event: Event = { kind, subject, outcome: 'done', actor: actor.actor, requestId: actor.requestId }
    const tell = (known: SubjectState, message: NoticeMessage) =>
      notices.to(tenant, { by, about: {}, requestId: actor.requestId }, known, message)
    return { subject, now, state, event, tell }
  }

  /** Motion is forgotten where it can be reached; truth has changed whether or not it can. */
  const forgetWaits = async (tenant: Tenant, subject: string) => {
    await pending.clearBudget(tenant.id, subject).catch(() => {})
  }

  const newCode = (tenant: Tenant, subject: string) => {
    const code = backupCode(randomness.bytes(10))
    return { code: grouped(code), hash: sealer.keyedHash('enrolment_code', tenant.id, subject, code) }
  }
  const codeLife = (tenant: Tenant, now: number) => now + tenant.policy.limits.enrolmentCodeHours * 3_600_000

  return {
    unlock: async (tenant, given, actor) => {
      const { subject, now, state, event, tell } = await about(tenant, given, actor, 'unlock')
      await records.administer(
        tenant.id,
        subject,
        { act: 'unlock' },
        { now, event, notices: tell(state, 'unlocked') }
      )
      notices.written()
      await forgetWaits(tenant, subject)
    },

    reset: async (tenant, given, actor, { open }) => {
      const { subject, now, state, event, tell } = await about(tenant, given, actor, 'reset')
      const made = open ? undefined : newCode(tenant, subject)
      await records.administer(
        tenant.id,
        subject,
        { act: 'reset', enrolmentCodeHash: made?.hash ?? null, expiresAt: codeLife(tenant, now) },
        { now, event: open ? { ...event, reason: 'open' } : event, notices: tell(state, 'reset') }
      )
      notices.written()
      await forgetWaits(tenant, subject)
      return made?.code ?? null
    },

    enrolmentCode: async (tenant, given, actor) => {
      const { subject, now, event } = await about(tenant, given, actor, 'enrolment_code')
      const { code, hash } = newCode(tenant, subject)
      await records.administer(
        tenant.id,
        subject,
        { act: 'enrolment_code', enrolmentCodeHash: hash, expiresAt: codeLife(tenant, now) },
        { now, event, notices: [] }
      )
      return code
    },

    require: async (tenant, given, actor, from) => {
      const { subject, now, event } = await about(tenant, given, actor, 'requirement')
      await records.administer(tenant.id, subject, { act: 'require', from }, { now, event, notices: [] })
    },

    address: async (tenant, given, actor, address) => {
      const { subject, now, state, event, tell } = await about(tenant, given, actor, 'address')
      if (address !== null && singleMailbox(address) === undefined) throw new Problem('address_invalid')
      const sealed = address === null ? null : sealer.seal(address, sealContext('contact', tenant.id, subject))
      await records.administer(
        tenant.id,
        subject,
        { act: 'address', sealed },
        {
          now,
          event,
          notices: [
            ...tell(state, 'address_changed'),
            ...tell({ ...state, contact: null, authenticators: [], setAddress: sealed }, 'address_changed')
          ]
        }
      )
      notices.written()
    },

    remove: async (tenant, given, actor) => {
      const { subject, now, event } = await about(tenant, given, actor, 'delete')
      await records.administer(
        tenant.id,
        subject,
        { act: 'delete', keyed: 'deleted:' + sealer.keyedHash('deleted', tenant.id, subject) },
        { now, event, notices: [] }
      )
      await forgetWaits(tenant, subject)
    },

    rename: async (tenant, given, actor, to) => {
      const { subject, now, event } = await about(tenant, given, actor, 'rename')
      const target = checked(to)
      const reseal = (sealed: string, place: 'contact' | 'authenticator', factor: string, id: string) =>
        place === 'contact'
          ? sealer.seal(
            sealer.unseal(sealed, sealContext('contact', tenant.id, subject)),
            sealContext('contact', tenant.id, target)
          )
          : sealer.seal(
            sealer.unseal(sealed, sealContext('authenticator', tenant.id, subject, factor, id)),
            sealContext('authenticator', tenant.id, target, factor, id)
          )
      const done = await records.administer(
        tenant.id,
        subject,
        { act: 'rename', to: target, reseal },
        { now, event, notices: [] }
      )
      if (done === 'target_has_factors') throw new Problem('target_has_factors')
      if (done === 'unknown') throw new Problem('not_found')
      await forgetWaits(tenant, subject)
    }
  }
}
