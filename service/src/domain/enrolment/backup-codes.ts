// Sets of backup codes: six at a time, shown once; a new set ends the old one.

import { offeredFactors } from '../assurance.ts'
import { backupCode, grouped, SET_SIZE, storedBackupCode } from '../factors/backup-code.ts'
import type { Ask, Authenticator } from '../model.ts'
import { Problem } from '../problems.ts'
import type { FactorChanges } from './change.ts'
import type { Enrolments, EnrolmentsNeed } from './model.ts'

export function createBackupCodes (
  { records, sealer, randomness, clock, factors }: EnrolmentsNeed,
  { rightOf, row, change, tell, recordFor }: FactorChanges
) {
  /** Six new codes: as people see them, and as they are stored (one salt a set). */
  const newSet = async (ask: Ask, now: number) => {
    const salt = Buffer.from(randomness.bytes(16)).toString('base64url')
    const codes = Array.from({ length: SET_SIZE }, () => backupCode(randomness.bytes(10)))
    const rows: Authenticator[] = []
    for (const code of codes) {
      const stored = await storedBackupCode(sealer, ask.by, salt, code)
      rows.push(row(ask, 'backup_code', now, () => stored))
    }
    return { codes: codes.map(grouped), rows }
  }

  const newBackupCodes: Enrolments['newBackupCodes'] = async (tenant, ask) => {
    const now = clock.now()
    const state = await records.subject(ask.by, now)
    if (!offeredFactors(factors, state, tenant.policy).some(factor => factor.strength !== 'backup')) {
      throw new Problem('not_enabled')
    }
    const right = rightOf(tenant, state, now, true)
    const set = await newSet(ask, now)
    const { result } = await change(tenant, ask, state, now, right, {
      kind: 'backup_codes_renewed',
      factor: 'backup_code',
      recovery: true,
      remove: ['backup_code'],
      add: set.rows,
      record: recordFor(tenant, ask, state, now),
      unlock: false,
      slot: null,
      notices: tell(tenant, ask, state, 'backup_codes_renewed')
    })
    if (result === 'gone') throw new Problem('step_up_required')
    return set.codes
  }

  return { newSet, newBackupCodes }
}

export type BackupCodes = ReturnType<typeof createBackupCodes>
