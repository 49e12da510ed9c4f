// What administrators do, each in one transaction with its event, change row and notices.

import type { Records } from '../../domain/records.ts'
import {
  clearCounts,
  lockSubject,
  nextEpoch,
  Undone,
  writeChange,
  writeEvent,
  writeNotices,
  type Dialect,
  type SubjectTransaction,
  type Tx
} from './parts.ts'

type Administer = Records['administer']
type Act = Parameters<Administer>[2]
type Done = Awaited<ReturnType<Administer>>

export function createAdministrations (dialect: Dialect, ofSubject: SubjectTransaction): Pick<Records, 'administer'> {
  const setSubject = async (tx: Tx, tenant: string, subject: string, set: Record<string, string | number | null>) => {
    await tx.updateTable('subjects').set(set).where('tenant', '=', tenant).where('subject', '=', subject).execute()
  }
  const endSessions = async (tx: Tx, tenant: string, subject: string) => {
    await tx.deleteFrom('assurances').where('tenant', '=', tenant).where('subject', '=', subject).execute()
  }

  const rename = async (
    tx: Tx,
    tenant: string,
    subject: string,
    act: Extract<Act, { act: 'rename' }>,
    now: number,
    oldEpoch: number
  ) => {
    const { to, reseal } = act
    const source = await tx
      .selectFrom('subjects')
      .selectAll()
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
      .executeTakeFirstOrThrow()
    const own = await tx
      .selectFrom('authenticators')
      .selectAll()
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
      .execute()
    if (own.length === 0 && source.epoch === 0) throw new Undone<Done>('unknown')
    const target = await lockSubject(tx, dialect, tenant, to)
    const theirs = await tx
      .selectFrom('authenticators')
      .select('id')
      .where('tenant', '=', tenant)
      .where('subject', '=', to)
      .executeTakeFirst()
    if (theirs !== undefined || subject === to) throw new Undone<Done>('target_has_factors')
    for (const one of own) {
      // Backup codes are hashes, bound to nothing that changes.
      const secret =
        one.factor === 'backup_code' ? one.secret : reseal(one.secret, 'authenticator', one.factor, one.id)
      await tx
        .updateTable('authenticators')
        .set({ subject: to, secret })
        .where('tenant', '=', tenant)
        .where('subject', '=', subject)
        .where('id', '=', one.id)
        .execute()
    }
    await endSessions(tx, tenant, subject)
    await endSessions(tx, tenant, to)
    await tx.deleteFrom('browsers').where('tenant', '=', tenant).where('subject', '=', to).execute()
    await tx
      .updateTable('browsers')
      .set({ subject: to })
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
      .execute()
    await tx
      .updateTable('failures')
      .set({ subject: to })
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
      .execute()
    await tx.deleteFrom('subjects').where('tenant', '=', tenant).where('subject', '=', to).execute()
    await tx
      .updateTable('subjects')
      .set({
        subject: to,
        epoch: nextEpoch(now, Math.max(oldEpoch, target.epoch)),
        contact: source.contact === null ? null : reseal(source.contact, 'contact', '', ''),
        set_address: source.set_address === null ? null : reseal(source.set_address, 'contact', '', '')
      })
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
      .execute()
    await writeChange(tx, tenant, now, { kind: 'subject', subject: to })
  }

  const erase = async (tx: Tx, tenant: string, subject: string, keyed: string) => {
    for (const table of [
      'authenticators',
      'assurances',
      'browsers',
      'failures',
      'notices',
      'accepted',
      'subjects'
    ] as const) {
      await tx.deleteFrom(table).where('tenant', '=', tenant).where('subject', '=', subject).execute()
    }
    await tx
      .updateTable('events')
      .set({ subject: keyed })
      .where('tenant', '=', tenant)
      .where('subject', '=', subject)
      .execute()
  }

  return {
    administer: async (tenant, subject, act, { now, event, notices }) =>
      await ofSubject<Done>(tenant, subject, async (tx, before) => {
        let recorded = event
        switch (act.act) {
          case 'unlock':
            await clearCounts(tx, tenant, subject)
            break
          case 'reset':
            await tx
              .deleteFrom('authenticators')
              .where('tenant', '=', tenant)
              .where('subject', '=', subject)
              .execute()
            await clearCounts(tx, tenant, subject)
            await endSessions(tx, tenant, subject)
            await setSubject(tx, tenant, subject, {
              epoch: nextEpoch(now, before.epoch),
              fenced: act.enrolmentCodeHash === null ? 0 : 1,
              enrolment_code_hash: act.enrolmentCodeHash,
              enrolment_code_expires_at: act.enrolmentCodeHash === null ? null : act.expiresAt,
              set_address: null
            })
            break
          case 'enrolment_code':
            await setSubject(tx, tenant, subject, {
              enrolment_code_hash: act.enrolmentCodeHash,
              enrolment_code_expires_at: act.expiresAt
            })
            break
          case 'require':
            await setSubject(tx, tenant, subject, { required_from: act.from })
            break
          case 'address':
            await setSubject(tx, tenant, subject, { set_address: act.sealed })
            break
          case 'delete':
            await erase(tx, tenant, subject, act.keyed)
            recorded = { ...event, subject: act.keyed }
            break
          case 'rename':
            await rename(tx, tenant, subject, act, now, before.epoch)
            break
          default:
            act satisfies never
        }
        await writeEvent(tx, tenant, now, recorded)
        if (act.act !== 'delete') await writeNotices(tx, tenant, subject, now, notices)
        await writeChange(tx, tenant, now, { kind: 'subject', subject })
        return 'done'
      })
  }
}
