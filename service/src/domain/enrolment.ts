// Begin, confirm, renew and remove factors; new sets of backup codes; what the settings page shows.

import { maskAddress, singleMailbox } from './addresses.ts'
import { askedOf, have, isRequired, loginStatus, offeredFactors, stepUpAge } from './assurance.ts'
import type { Attempts } from './attempt.ts'
import { backupCode, grouped, normaliseBackupCode, SET_SIZE, storedBackupCode } from './factors/backup-code.ts'
import { isMailedCode, mailedHash } from './factors/email.ts'
import { FACTORS } from './factors/index.ts'
import { base32, clockOff, keyUri, matchingStep, normaliseDigits } from './factors/totp.ts'
import { sealContext, totpStatus, type Ask, type Authenticator, type Factor, type Slot, type SlotKind, type SubjectState, type TotpStatus, type Verdict } from './model.ts'
import { eventOf, whoAsked, type Notices } from './notices.ts'
import { seconds, type Tenant } from './policy.ts'
import type { Clock, FactorChange, FactorChangeResult, Mailer, Notice, Opened, Pending, Randomness, Records, Sealer } from './ports.ts'
import { Problem, problemOf } from './problems.ts'

/** All that a settings page shows. Times are epoch milliseconds, seconds are whole. */
export interface SettingsView {
  readonly totp: { readonly status: TotpStatus, readonly confirmedAt: number | null, readonly expiresAt: number | null }
  readonly email: {
    /** The tenant offers e-mail login verification. */
    readonly offered: boolean
    /** The preference; kept while TOTP is on. */
    readonly on: boolean
    /** false while TOTP is on: the box is disabled and keeps its value. */
    readonly applies: boolean
    /** The proven address that codes go to, masked. */
    readonly maskedAddress: string | null
    /** What the console says, masked, where no address is proven or it differs from the proven one. */
    readonly maskedConsoleAddress: string | null
  }
  readonly backupCodes: { readonly left: number, readonly of: number }
  readonly locked: boolean
  /** 2FA is required and nothing that counts is enrolled. */
  readonly mustEnrol: boolean
  /** What a first enrolment must be proven by now; `none` once a factor is there. */
  readonly proof: 'none' | 'email' | 'enrolment_code'
  /** Age of the session's step-up, if it has one. */
  readonly stepUpAgeSeconds: number | null
  /** Notices that could not be mailed. */
  readonly notices: readonly { readonly id: string, readonly message: string, readonly at: number }[]
}

export interface BegunTotp {
  readonly id: string
  /** Base32 without padding. */
  readonly key: string
  /** Key URI (otpauth://totp/…). */
  readonly uri: string
  readonly expiresInSeconds: number
  readonly attemptsLeft: number
}

export interface BegunEmail {
  readonly id: string
  readonly maskedAddress: string
  readonly expiresInSeconds: number
  readonly attemptsLeft: number
  readonly resendInSeconds: number
}

export type Confirmed =
  | { readonly verdict: 'accepted', readonly backupCodes: readonly string[], readonly boundToNext: boolean }
  | Exclude<Verdict, { verdict: 'accepted' }>

export interface Enrolments {
  readonly settings: (tenant: Tenant, ask: Ask) => Promise<SettingsView>
  /**
   * The live pending key of `by`, or a new one; renewing leaves the old key active until it is confirmed. Problems:
   * login_required, step_up_required (a factor is there), proof_required, proof_rejected.
   */
  readonly beginTotp: (tenant: Tenant, ask: Ask, options: { readonly proof?: string | undefined }) => Promise<BegunTotp>
  /** The live pending key, without beginning one. */
  readonly pendingTotp: (tenant: Tenant, ask: Ask) => Promise<BegunTotp | undefined>
  readonly confirmTotp: (tenant: Tenant, ask: Ask, id: string, code: string, options: { readonly nextBrowser?: string | undefined }) => Promise<Confirmed>
  /** Problems: step_up_required, not_enabled. */
  readonly removeTotp: (tenant: Tenant, ask: Ask) => Promise<void>
  /** Sends a test code to `address`, else to the console's or the proven one. Problems as beginTotp, and method_not_available, address_missing, address_invalid, waiting. */
  readonly beginEmail: (tenant: Tenant, ask: Ask, options: { readonly address?: string | undefined, readonly proof?: string | undefined }) => Promise<BegunEmail>
  readonly pendingEmail: (tenant: Tenant, ask: Ask) => Promise<BegunEmail | undefined>
  readonly confirmEmail: (tenant: Tenant, ask: Ask, id: string, code: string, options: { readonly nextBrowser?: string | undefined }) => Promise<Confirmed>
  readonly removeEmail: (tenant: Tenant, ask: Ask) => Promise<void>
  /** Six new codes; the old set dies. Problems: step_up_required, not_enabled. */
  readonly newBackupCodes: (tenant: Tenant, ask: Ask) => Promise<readonly string[]>
  /** Mails the code that a tenant asks for before a first enrolment. Problems: address_missing, waiting, method_not_available. */
  readonly sendProof: (tenant: Tenant, ask: Ask) => Promise<{ readonly maskedAddress: string, readonly resendInSeconds: number }>
  readonly dismissNotice: (tenant: Tenant, ask: Ask, id: string) => Promise<void>
}

const DAY_MS = 86_400_000
/** How far a phone's clock may be off and still be told so (RFC 6238 6). */
const CLOCK_OFF_MINUTES = 5

export interface EnrolmentsNeed {
  readonly records: Records
  readonly pending: Pending
  readonly sealer: Sealer
  readonly randomness: Randomness
  readonly mailer: Mailer
  readonly clock: Clock
  readonly notices: Notices
  readonly attempts: Attempts
  readonly factors?: readonly Factor[]
}

/** What a pending enrolment keeps, sealed: the key or address, and the enrolment code that opened it. */
interface Kept {
  readonly secret: string
  readonly enrolmentCodeHash: string | null
}

/** By what right factors may be changed now. */
type Right =
  | { readonly right: 'step_up', readonly factors: readonly string[] }
  | { readonly right: 'first' }

export function createEnrolments ({ records, pending, sealer, randomness, mailer, clock, notices, attempts, factors = FACTORS }: EnrolmentsNeed): Enrolments {
  const stateOf = async (ask: Ask) => {
    const now = clock.now()
    return { now, state: await records.subject(ask.by, now) }
  }

  /** The right to change factors, or the problem that stands in the way. `recovery`: a backup code used during a lock suffices. */
  const rightOf = (tenant: Tenant, state: SubjectState, now: number, recovery: boolean): Right => {
    if (loginStatus(factors, state, tenant.policy, now) === 'verification_required') throw new Problem('login_required')
    const offered = offeredFactors(factors, state, tenant.policy)
    if (offered.length === 0) return { right: 'first' }
    if (stepUpAge(state, tenant.policy, now, recovery) === undefined) throw new Problem('step_up_required')
    return { right: 'step_up', factors: offered.map(factor => factor.name) }
  }

  /** What must prove who enrols first. */
  const proofOf = (tenant: Tenant, state: SubjectState, now: number) =>
    have(factors, state, tenant.policy) === 'reset' || askedOf(factors, state, tenant.policy, now).login === 'enrol_with_code'
      ? 'enrolment_code' as const
      : tenant.policy.firstEnrolment

  /** Checks the proof of a first enrolment; returns the enrolment code to use up at the confirmation. */
  const prove = async (tenant: Tenant, ask: Ask, state: SubjectState, now: number, proof: string | undefined): Promise<string | null> => {
    const needed = proofOf(tenant, state, now)
    if (needed === 'none') return null
    if (proof === undefined) throw new Problem('proof_required')
    const id = needed === 'email' ? await pending.find(ask.by, 'proof') : (await openSlot(tenant, ask, state, 'proof')).slot.id
    if (id === undefined) throw new Problem('proof_required')
    // An enrolment code has 80 bits: its attempts are counted, but never on the budget that locks.
    const budget = needed === 'email' ? 'subject' : 'backup_code'
    const attempt = await attempts.take(tenant, ask, state, id, budget, ['proof'])
    if (attempt.attempt === 'refused') throw problemOf(attempt.verdict)
    const hash = sealer.keyedHash('enrolment_code', tenant.id, state.subject, normaliseBackupCode(proof))
    const right = needed === 'email'
      ? isMailedCode(sealer.keyedHash, attempt.slot, normaliseDigits(proof))
      : state.enrolmentCodeHash !== null && sealer.equal(hash, state.enrolmentCodeHash) && (state.enrolmentCodeExpiresAt ?? 0) > attempt.now
    if (!right) {
      const refused = await attempts.wrong(tenant, ask, state, attempt.slot, attempt.now, budget)
      throw refused.verdict === 'rejected' ? new Problem('proof_rejected', { attempts_left: refused.left }) : problemOf(refused)
    }
    attempts.giveBack(attempt.receipt, 'accepted')
    return needed === 'enrolment_code' ? hash : null
  }

  const openSlot = async (tenant: Tenant, ask: Ask, state: SubjectState, kind: SlotKind, options: { payload?: string, replace?: boolean } = {}): Promise<Opened> =>
    await pending.open(ask.by, kind, {
      epoch: state.epoch,
      browserKnown: state.browserKnown,
      inARow: state.inARow,
      limits: tenant.policy.limits,
      lifetimeMs: (kind === 'proof' ? tenant.policy.limits.challengeSeconds : tenant.policy.limits.enrolmentSeconds) * 1000,
      ...options
    })

  const sealKept = (ask: Ask, kind: SlotKind, kept: Kept) =>
    sealer.seal(JSON.stringify(kept), sealContext('pending', ask.by.tenant, ask.by.subject, kind))
  const keptOf = (ask: Ask, slot: Slot): Kept => {
    const kept: unknown = JSON.parse(sealer.unseal(slot.payload ?? '', sealContext('pending', ask.by.tenant, ask.by.subject, slot.kind)))
    if (typeof kept !== 'object' || kept === null || !('secret' in kept) || typeof kept.secret !== 'string') throw new Problem('enrolment_gone')
    const hash = 'enrolmentCodeHash' in kept && typeof kept.enrolmentCodeHash === 'string' ? kept.enrolmentCodeHash : null
    return { secret: kept.secret, enrolmentCodeHash: hash }
  }

  /** The live slot of `by` and kind under the subject's epoch. */
  const live = async (ask: Ask, state: SubjectState, kind: SlotKind) => {
    const id = await pending.find(ask.by, kind)
    const read = id === undefined ? undefined : await pending.read(ask.by, id)
    return read === undefined || read.slot.epoch !== state.epoch ? undefined : read
  }

  const mailCode = async (tenant: Tenant, ask: Ask, state: SubjectState, id: string, address: string, message: string, minutes: number) => {
    const code = randomness.digits(6)
    const sent = await pending.send(ask.by, id, { codeHash: mailedHash(sealer.keyedHash, id, code), browserKnown: state.browserKnown, limits: tenant.policy.limits })
    if (sent.sent === 'gone') throw new Problem('enrolment_gone')
    if (sent.sent === 'waiting') throw new Problem('waiting', { retry_after: seconds(sent.waitForMs) })
    const queued = mailer.code({
      to: address,
      locale: ask.about.locale ?? state.locale ?? undefined,
      message,
      values: { console: tenant.name, code, minutes: String(minutes), ...whoAsked(ask.about) }
    }, sent.now + minutes * 60_000)
    if (!queued) throw new Problem('unavailable', { retry_after: 5 })
    return sent
  }

  const begunTotp = (tenant: Tenant, ask: Ask, slot: Slot, now: number): BegunTotp => {
    const key = base32(Buffer.from(keptOf(ask, slot).secret, 'base64url'))
    return {
      id: slot.id,
      key,
      uri: keyUri(tenant.issuer, ask.about.displayName ?? ask.about.email ?? ask.by.subject, key),
      expiresInSeconds: Math.floor((slot.expiresAt - now) / 1000),
      attemptsLeft: slot.attemptsLeft
    }
  }

  const begunEmail = (ask: Ask, slot: Slot, now: number, resendInMs: number): BegunEmail => ({
    id: slot.id,
    maskedAddress: maskAddress(keptOf(ask, slot).secret),
    expiresInSeconds: Math.floor((slot.expiresAt - now) / 1000),
    attemptsLeft: slot.attemptsLeft,
    resendInSeconds: seconds(resendInMs)
  })

  const row = (ask: Ask, factor: string, now: number, secret: (id: string) => string, counter = 0): Authenticator => {
    const id = Buffer.from(randomness.bytes(16)).toString('base64url')
    return { id, factor, secret: secret(id), counter, confirmedAt: now }
  }
  const sealedRow = (ask: Ask, factor: string, now: number, secret: string, counter = 0): Authenticator =>
    row(ask, factor, now, id => sealer.seal(secret, sealContext('authenticator', ask.by.tenant, ask.by.subject, factor, id)), counter)

  /** Six new codes: as people see them, and as they are stored (one salt a set). */
  const newSet = async (ask: Ask, now: number) => {
    const salt = Buffer.from(randomness.bytes(16)).toString('base64url')
    const codes = Array.from({ length: SET_SIZE }, () => backupCode(randomness.bytes(10)))
    const rows: Authenticator[] = []
    for (const code of codes) {
      const stored = await storedBackupCode(sealer, ask.by.subject, salt, code)
      rows.push(row(ask, 'backup_code', now, () => stored))
    }
    return { codes: codes.map(grouped), rows }
  }

  /** Carries out a change of factors; what forbids it becomes a problem. */
  const change = async (tenant: Tenant, ask: Ask, state: SubjectState, now: number, right: Right, what: Pick<FactorChange, 'remove' | 'add' | 'record' | 'unlock' | 'slot' | 'notices'> & {
    readonly kind: string, readonly factor: string, readonly recovery: boolean, readonly enrolmentCodeHash?: string | null
  }): Promise<Extract<FactorChangeResult, { result: 'changed' | 'gone' }>> => {
    const { kind, factor, recovery, enrolmentCodeHash = null, ...rest } = what
    const result = await records.changeFactors({
      by: ask.by,
      now,
      epoch: state.epoch,
      allowedBy: right.right === 'first'
        ? { by: 'first', enrolmentCodeHash }
        : { by: 'step_up', stepUpMs: tenant.policy.limits.stepUpSeconds * 1000, factors: right.factors, recovery },
      event: eventOf(ask, { kind, factor, outcome: 'done' }),
      ...rest
    })
    switch (result.result) {
      case 'changed': case 'gone': return result
      case 'step_up_required': throw new Problem('step_up_required')
      case 'proof_required': throw new Problem('proof_required')
      default: return result satisfies never
    }
  }

  const tell = (tenant: Tenant, ask: Ask, state: SubjectState, message: string, values: Readonly<Record<string, string>> = {}, also: readonly string[] = []): readonly Notice[] =>
    notices.to(ask, state, message, { console: tenant.name, ...values }, also)

  const recordFor = (tenant: Tenant, ask: Ask, state: SubjectState, now: number, confirmed?: { factor: string, nextBrowser: string | undefined }): FactorChange['record'] => {
    const loginExpiresAt = now + tenant.policy.limits.loginDays * DAY_MS
    if (confirmed !== undefined) return { factor: confirmed.factor, browser: confirmed.nextBrowser ?? ask.by.browser, login: true, stepUp: true, loginExpiresAt }
    // The session that made the change stays logged in as long as it would have; its step-up is spent.
    const { assurance } = state
    if (assurance?.loginExpiresAt == null) return null
    return { factor: assurance.loginFactor ?? 'none', browser: ask.by.browser, login: true, stepUp: false, loginExpiresAt: assurance.loginExpiresAt }
  }

  const settings: Enrolments['settings'] = async (tenant, ask) => {
    const { state, now } = await stateOf(ask)
    const { policy } = tenant
    await notices.remember(ask, state, now)
    const totp = state.authenticators.find(own => own.factor === 'totp')
    const proven = notices.codeAddress(ask.by, state)
    const said = notices.consoleAddress(ask, state)
    const codes = state.authenticators.filter(own => own.factor === 'backup_code')
    const age = stepUpAge(state, policy, now)
    const offered = offeredFactors(factors, state, policy)
    const asked = askedOf(factors, state, policy, now).login
    return {
      totp: {
        status: totpStatus(state, now, policy.limits.totpExpiresDays),
        confirmedAt: totp?.confirmedAt ?? null,
        expiresAt: totp === undefined ? null : totp.confirmedAt + policy.limits.totpExpiresDays * DAY_MS
      },
      email: {
        offered: policy.email !== 'off',
        on: state.authenticators.some(own => own.factor === 'email'),
        applies: totp === undefined && policy.email !== 'off',
        maskedAddress: proven === undefined ? null : maskAddress(proven),
        maskedConsoleAddress: said === undefined || said === proven ? null : maskAddress(said)
      },
      backupCodes: { left: codes.filter(code => code.counter === 0).length, of: codes.length },
      locked: state.lockedAt !== null,
      mustEnrol: asked === 'enrol' || asked === 'enrol_with_code' || (isRequired(state, policy, now) && offered.length === 0),
      proof: offered.length > 0 ? 'none' : proofOf(tenant, state, now),
      stepUpAgeSeconds: age === undefined ? null : seconds(age),
      notices: (await records.notices.shown(tenant.id, ask.by.subject)).map(({ id, message, at }) => ({ id, message, at }))
    }
  }

  const beginTotp: Enrolments['beginTotp'] = async (tenant, ask, { proof }) => {
    const { state, now } = await stateOf(ask)
    const right = rightOf(tenant, state, now, true)
    await notices.remember(ask, state, now)
    const before = await live(ask, state, 'enrol_totp')
    if (before !== undefined) return begunTotp(tenant, ask, before.slot, before.now)
    const enrolmentCodeHash = right.right === 'first' ? await prove(tenant, ask, state, now, proof) : null
    const secret = Buffer.from(randomness.bytes(20)).toString('base64url')
    const opened = await openSlot(tenant, ask, state, 'enrol_totp', { payload: sealKept(ask, 'enrol_totp', { secret, enrolmentCodeHash }) })
    return begunTotp(tenant, ask, opened.slot, opened.now)
  }

  const confirmTotp: Enrolments['confirmTotp'] = async (tenant, ask, id, typed, { nextBrowser }) => {
    const { state } = await stateOf(ask)
    const code = normaliseDigits(typed)
    if (!/^\d{6}$/.test(code)) return await pending.read(ask.by, id) === undefined ? { verdict: 'gone' } : { verdict: 'malformed' }
    // Renewing is the way out of a lock, so it does not wait behind what the attacker spent.
    const budget = state.lockedAt === null ? 'subject' : 'backup_code'
    const attempt = await attempts.take(tenant, ask, state, id, budget, ['enrol_totp'])
    if (attempt.attempt === 'refused') return attempt.verdict
    const { slot, now, receipt } = attempt
    const { secret, enrolmentCodeHash } = keptOf(ask, slot)
    const key = Buffer.from(secret, 'base64url')
    const step = matchingStep(key, code, now, tenant.policy.limits.totpWindowSteps)
    if (step === undefined) {
      return await attempts.wrong(tenant, ask, state, slot, now, budget, clockOff(key, code, now, CLOCK_OFF_MINUTES))
    }
    try {
      const right = rightOf(tenant, state, now, true)
      const renewed = state.authenticators.some(own => own.factor === 'totp')
      const set = await newSet(ask, now)
      const { result } = await change(tenant, ask, state, now, right, {
        kind: renewed ? 'totp_renewed' : 'totp_enabled',
        factor: 'totp',
        recovery: true,
        enrolmentCodeHash,
        remove: ['totp', 'backup_code'],
        add: [sealedRow(ask, 'totp', now, secret, step), ...set.rows],
        record: recordFor(tenant, ask, state, now, { factor: 'totp', nextBrowser }),
        unlock: true,
        slot: slot.id,
        notices: tell(tenant, ask, state, renewed ? 'totp_renewed' : 'totp_enabled')
      })
      attempts.giveBack(receipt, result === 'changed' ? 'accepted' : 'used')
      return result === 'changed' ? { verdict: 'accepted', backupCodes: set.codes, boundToNext: nextBrowser !== undefined } : { verdict: 'gone' }
    } catch (error) {
      // The code was right; what stood in the way is not the person's failure.
      attempts.giveBack(receipt, 'used')
      throw error
    }
  }

  const removeTotp: Enrolments['removeTotp'] = async (tenant, ask) => {
    const { state, now } = await stateOf(ask)
    if (!state.authenticators.some(own => own.factor === 'totp')) throw new Problem('not_enabled')
    const right = rightOf(tenant, state, now, false)
    const codesStay = state.authenticators.some(own => own.factor === 'email')
    const { result } = await change(tenant, ask, state, now, right, {
      kind: 'totp_disabled',
      factor: 'totp',
      recovery: false,
      remove: codesStay ? ['totp'] : ['totp', 'backup_code'],
      add: [],
      record: recordFor(tenant, ask, state, now),
      unlock: false,
      slot: null,
      notices: tell(tenant, ask, state, 'totp_disabled')
    })
    if (result === 'gone') throw new Problem('step_up_required')
  }

  const beginEmail: Enrolments['beginEmail'] = async (tenant, ask, { address, proof }) => {
    if (tenant.policy.email === 'off') throw new Problem('method_not_available')
    const { state, now } = await stateOf(ask)
    if (state.authenticators.some(own => own.factor === 'totp')) throw new Problem('method_not_available')
    const right = rightOf(tenant, state, now, false)
    await notices.remember(ask, state, now)
    const wanted = address ?? notices.consoleAddress(ask, state) ?? notices.provenAddress(ask.by, state)
    if (wanted === undefined || wanted === '') throw new Problem('address_missing')
    const to = singleMailbox(wanted)
    if (to === undefined) throw new Problem('address_invalid')
    const before = await live(ask, state, 'enrol_email')
    const same = before !== undefined && keptOf(ask, before.slot).secret === to
    if (same && before.mailWaitMs > 0) return begunEmail(ask, before.slot, before.now, before.mailWaitMs)
    const enrolmentCodeHash = before !== undefined
      ? keptOf(ask, before.slot).enrolmentCodeHash
      : right.right === 'first' ? await prove(tenant, ask, state, now, proof) : null
    const opened = await openSlot(tenant, ask, state, 'enrol_email', { payload: sealKept(ask, 'enrol_email', { secret: to, enrolmentCodeHash }), replace: !same })
    const minutes = Math.floor(tenant.policy.limits.challengeSeconds / 60)
    const sent = await mailCode(tenant, ask, state, opened.slot.id, to, 'test_code', minutes)
    return begunEmail(ask, sent.slot, sent.now, tenant.policy.limits.mailResendSeconds * 1000)
  }

  const confirmEmail: Enrolments['confirmEmail'] = async (tenant, ask, id, typed, { nextBrowser }) => {
    const { state } = await stateOf(ask)
    const code = normaliseDigits(typed)
    if (!/^\d{6}$/.test(code)) return await pending.read(ask.by, id) === undefined ? { verdict: 'gone' } : { verdict: 'malformed' }
    const attempt = await attempts.take(tenant, ask, state, id, 'subject', ['enrol_email'])
    if (attempt.attempt === 'refused') return attempt.verdict
    const { slot, now, receipt } = attempt
    if (!isMailedCode(sealer.keyedHash, slot, code)) return await attempts.wrong(tenant, ask, state, slot, now, 'subject')
    try {
      const right = rightOf(tenant, state, now, false)
      const { secret: address, enrolmentCodeHash } = keptOf(ask, slot)
      const { result } = await change(tenant, ask, state, now, right, {
        kind: 'email_enabled',
        factor: 'email',
        recovery: false,
        enrolmentCodeHash,
        remove: ['email'],
        add: [sealedRow(ask, 'email', now, address)],
        record: recordFor(tenant, ask, state, now, { factor: 'email', nextBrowser }),
        unlock: false,
        slot: slot.id,
        notices: tell(tenant, ask, state, 'email_enabled', { to: maskAddress(address) }, [address])
      })
      attempts.giveBack(receipt, result === 'changed' ? 'accepted' : 'used')
      return result === 'changed' ? { verdict: 'accepted', backupCodes: [], boundToNext: nextBrowser !== undefined } : { verdict: 'gone' }
    } catch (error) {
      attempts.giveBack(receipt, 'used')
      throw error
    }
  }

  const removeEmail: Enrolments['removeEmail'] = async (tenant, ask) => {
    const { state, now } = await stateOf(ask)
    if (!state.authenticators.some(own => own.factor === 'email')) throw new Problem('not_enabled')
    const right = rightOf(tenant, state, now, false)
    const codesStay = state.authenticators.some(own => own.factor === 'totp')
    const { result } = await change(tenant, ask, state, now, right, {
      kind: 'email_disabled',
      factor: 'email',
      recovery: false,
      remove: codesStay ? ['email'] : ['email', 'backup_code'],
      add: [],
      record: recordFor(tenant, ask, state, now),
      unlock: false,
      slot: null,
      notices: tell(tenant, ask, state, 'email_disabled')
    })
    if (result === 'gone') throw new Problem('step_up_required')
  }

  const newBackupCodes: Enrolments['newBackupCodes'] = async (tenant, ask) => {
    const { state, now } = await stateOf(ask)
    if (!offeredFactors(factors, state, tenant.policy).some(factor => factor.strength !== 'backup')) throw new Problem('not_enabled')
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

  return {
    settings,
    beginTotp,
    pendingTotp: async (tenant, ask) => {
      const { state } = await stateOf(ask)
      const found = await live(ask, state, 'enrol_totp')
      return found === undefined ? undefined : begunTotp(tenant, ask, found.slot, found.now)
    },
    confirmTotp,
    removeTotp,
    beginEmail,
    pendingEmail: async (tenant, ask) => {
      const { state } = await stateOf(ask)
      const found = await live(ask, state, 'enrol_email')
      return found === undefined ? undefined : begunEmail(ask, found.slot, found.now, found.mailWaitMs)
    },
    confirmEmail,
    removeEmail,
    newBackupCodes,

    sendProof: async (tenant, ask) => {
      const { state, now } = await stateOf(ask)
      if (rightOf(tenant, state, now, false).right !== 'first' || proofOf(tenant, state, now) !== 'email') throw new Problem('method_not_available')
      await notices.remember(ask, state, now)
      // Only the console's word counts: an address that the browser names proves nothing.
      const address = singleMailbox(notices.consoleAddress(ask, state) ?? '')
      if (address === undefined) throw new Problem('address_missing')
      const opened = await openSlot(tenant, ask, state, 'proof')
      const minutes = Math.floor(tenant.policy.limits.challengeSeconds / 60)
      await mailCode(tenant, ask, state, opened.slot.id, address, 'proof_code', minutes)
      return { maskedAddress: maskAddress(address), resendInSeconds: tenant.policy.limits.mailResendSeconds }
    },

    dismissNotice: async (tenant, ask, id) => {
      const { state, now } = await stateOf(ask)
      if (loginStatus(factors, state, tenant.policy, now) === 'verification_required') throw new Problem('login_required')
      await records.notices.dismiss(tenant.id, ask.by.subject, id)
    }
  }
}
