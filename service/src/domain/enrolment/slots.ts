// Pending enrolments: each belongs to one `by`, and keeps its secret sealed.

import { mailedHash, mailedMinutes } from '../factors/email.ts'
import type { CodeMessage } from '../messages.ts'
import { sealContext, type Ask, type Slot, type SlotKind, type SubjectState } from '../model.ts'
import { whoAsked } from '../notices.ts'
import { seconds, type Tenant } from '../policy.ts'
import type { Opened } from '../pending.ts'
import { Problem } from '../problems.ts'
import type { EnrolmentsNeed } from './model.ts'

/** What a pending enrolment keeps, sealed: the key or address, and the enrolment code that opened it. */
interface Kept {
  readonly secret: string
  readonly enrolmentCodeHash: string | null
}

export function createSlots ({ pending, sealer, randomness, mailer }: EnrolmentsNeed) {
  const openSlot = async (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    kind: SlotKind,
    options: { payload?: string; replace?: boolean } = {}
  ): Promise<Opened> =>
    await pending.open(ask.by, kind, {
      epoch: state.epoch,
      browserKnown: state.browserKnown,
      inARow: state.inARow,
      limits: tenant.policy.limits,
      lifetimeMs:
        (kind === 'proof' ? tenant.policy.limits.challengeSeconds : tenant.policy.limits.enrolmentSeconds) * 1000,
      ...options
    })

  const sealKept = (ask: Ask, kind: SlotKind, kept: Kept) =>
    sealer.seal(JSON.stringify(kept), sealContext('pending', ask.by.tenant, ask.by.subject, kind))
  const keptOf = (ask: Ask, slot: Slot): Kept => {
    const kept: unknown = JSON.parse(
      sealer.unseal(slot.payload ?? '', sealContext('pending', ask.by.tenant, ask.by.subject, slot.kind))
    )
    if (typeof kept !== 'object' || kept === null || !('secret' in kept) || typeof kept.secret !== 'string') {
      throw new Problem('enrolment_gone')
    }
    const hash =
      'enrolmentCodeHash' in kept && typeof kept.enrolmentCodeHash === 'string' ? kept.enrolmentCodeHash : null
    return { secret: kept.secret, enrolmentCodeHash: hash }
  }

  /** The live slot of `by` and kind under the subject's epoch. */
  const live = async (tenant: Tenant, ask: Ask, state: SubjectState, kind: SlotKind) => {
    const id = await pending.find(ask.by, kind)
    const read = id === undefined
      ? undefined
      : await pending.read(ask.by, id, {
        browserKnown: state.browserKnown,
        limits: tenant.policy.limits
      })
    return read === undefined || read.slot.epoch !== state.epoch ? undefined : read
  }

  const mailCode = async (
    tenant: Tenant,
    ask: Ask,
    state: SubjectState,
    id: string,
    address: string,
    message: CodeMessage
  ) => {
    const code = randomness.digits(6)
    const sent = await pending.send(ask.by, id, {
      codeHash: mailedHash(sealer.keyedHash, id, code),
      browserKnown: state.browserKnown,
      limits: tenant.policy.limits
    })
    if (sent.sent === 'gone') throw new Problem('enrolment_gone')
    if (sent.sent === 'waiting') throw new Problem('waiting', { retry_after: seconds(sent.waitForMs) })
    const minutes = mailedMinutes(sent.slot, sent.now, tenant.policy.limits.challengeSeconds)
    const queued = mailer.code(
      {
        tenant: tenant.id,
        to: address,
        locale: ask.about.locale ?? state.locale ?? undefined,
        message,
        values: { console: tenant.name, code, minutes: String(minutes), ...whoAsked(ask.about) }
      },
      sent.now + minutes * 60_000
    )
    if (!queued) throw new Problem('unavailable', { retry_after: 5 })
    return sent
  }

  return { openSlot, sealKept, keptOf, live, mailCode }
}

export type Slots = ReturnType<typeof createSlots>
