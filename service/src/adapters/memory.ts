// Pending in one process: the embedded default, and the double that tests run on.

import type { By, Slot } from '../domain/model.ts'
import { waitAfter, type Limits } from '../domain/policy.ts'
import type { Pending, Receipt } from '../domain/pending.ts'
import type { Clock, Randomness, Sealer } from '../domain/ports.ts'
import { createSlotNames } from './slot-names.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000
/** Attempts may be in flight this long; meanwhile a count higher than SQL's stays. */
const IN_FLIGHT_MS = 10_000
/** How long a held answer outlives its slot. */
const REPEAT_MS = 60_000
/** How long a count in motion outlives its last attempt. */
const BUDGET_MS = 2 * DAY_MS

/** Failures in a row and the wait they began; times of wrong backup codes and of mails. */
interface Budget {
  inARow: number
  waitUntil: number
  lastTake: number
  backup: number[]
  mails: number[]
}
/** `by` as one text, since a held slot is found by its id alone. */
interface Live {
  slot: Slot
  readonly by: string
}

const oneText = (by: By) => JSON.stringify([by.tenant, by.subject, by.session, by.browser])

export function createMemoryPending ({
  clock,
  sealer,
  randomness
}: {
  readonly clock: Clock
  readonly sealer: Sealer
  readonly randomness: Randomness
}): Pending {
  const names = createSlotNames({ sealer, randomness })
  const slots = new Map<string, Live>()
  /** Held answers, by the id of their slot, which they outlive for an idempotent repeat. */
  const answers = new Map<string, { readonly held: string; readonly by: string; readonly until: number }>()
  const budgets = new Map<string, Map<string, Budget>>()
  let swept = 0

  const budgetOf = (by: By, browserKnown: boolean): Budget => {
    const tag = names.tagOf(by)
    const own = budgets.get(tag) ?? new Map<string, Budget>()
    budgets.set(tag, own)
    const name = browserKnown ? by.browser : ''
    const budget = own.get(name) ?? { inARow: 0, waitUntil: 0, lastTake: 0, backup: [], mails: [] }
    own.set(name, budget)
    return budget
  }
  /** Wrong backup codes are counted per subject and browser, known or not. */
  const backupBudgetOf = (by: By) => budgetOf({ ...by, browser: `backup:${by.browser}` }, true)
  const fromSql = (budget: Budget, inARow: number, now: number) => {
    if (inARow > budget.inARow || now - budget.lastTake > IN_FLIGHT_MS) budget.inARow = inARow
  }
  const sweep = (now: number) => {
    if (now - swept < 60_000) return
    swept = now
    for (const [key, live] of slots) if (live.slot.expiresAt <= now) slots.delete(key)
    for (const [id, { until }] of answers) if (until <= now) answers.delete(id)
    for (const [tag, own] of budgets) {
      for (const [name, budget] of own) {
        if (Math.max(budget.lastTake, budget.waitUntil, ...budget.mails, ...budget.backup) < now - BUDGET_MS) {
          own.delete(name)
        }
      }
      if (own.size === 0) budgets.delete(tag)
    }
  }
  const keyOf = (by: By, id: string): string | undefined => {
    const read = names.read(by, id)
    return read === undefined ? undefined : read.held ? id : names.slot(by, read.kind)
  }
  const liveAt = (by: By, id: string, now: number): { readonly key: string; readonly live: Live } | undefined => {
    const key = keyOf(by, id)
    const live = key === undefined ? undefined : slots.get(key)
    if (
      key === undefined ||
      live === undefined ||
      live.slot.id !== id ||
      live.slot.expiresAt <= now ||
      live.by !== oneText(by)
    ) { return undefined }
    return { key, live }
  }
  const mailWait = (
    budget: Budget,
    slot: Slot | undefined,
    limits: Pick<Limits, 'mailResendSeconds' | 'mailPerHour' | 'mailPerDay'>,
    now: number
  ): number => {
    budget.mails = budget.mails.filter(at => now - at < DAY_MS)
    const hour = budget.mails.filter(at => now - at < HOUR_MS)
    const last = budget.mails.at(-1)
    const waits = [0]
    if (last !== undefined) waits.push(last + limits.mailResendSeconds * 1000 - now)
    if (slot?.mailedAt != null) waits.push(slot.mailedAt + limits.mailResendSeconds * 1000 - now)
    if (hour.length >= limits.mailPerHour) waits.push((hour[hour.length - limits.mailPerHour] ?? now) + HOUR_MS - now)
    if (budget.mails.length >= limits.mailPerDay) {
      waits.push((budget.mails[budget.mails.length - limits.mailPerDay] ?? now) + DAY_MS - now)
    }
    return Math.max(...waits)
  }

  return {
    open: async (by, kind, options) => {
      const now = clock.now()
      sweep(now)
      const held = options.held !== undefined
      const budget = budgetOf(by, options.browserKnown)
      fromSql(budget, options.inARow, now)
      const key = held ? undefined : names.slot(by, kind)
      const before = key === undefined ? undefined : slots.get(key)
      const keep =
        before !== undefined &&
        before.slot.expiresAt > now &&
        before.slot.epoch === options.epoch &&
        before.slot.attemptsLeft > 0 &&
        options.replace !== true
      let live: Live
      if (keep) {
        live = before
        if (options.returnPath !== undefined) live.slot = { ...live.slot, returnPath: options.returnPath }
      } else {
        const id = names.newId(by, kind, held)
        live = {
          by: oneText(by),
          slot: {
            id,
            kind,
            by,
            epoch: options.epoch,
            expiresAt: now + options.lifetimeMs,
            attemptsLeft: options.limits.challengeAttempts,
            returnPath: options.returnPath ?? null,
            payload: options.payload ?? null,
            mailedHash: null,
            mailedAt: null
          }
        }
        slots.set(key ?? id, live)
        if (options.held !== undefined) {
          answers.set(id, { held: options.held, by: oneText(by), until: live.slot.expiresAt + REPEAT_MS })
        }
      }
      return {
        slot: live.slot,
        now,
        fresh: !keep,
        waitForMs: Math.max(0, budget.waitUntil - now),
        mailWaitMs: mailWait(budget, live.slot, options.limits, now)
      }
    },

    read: async (by, id, { browserKnown, limits }) => {
      const now = clock.now()
      const found = liveAt(by, id, now)
      if (found === undefined) return undefined
      const budget = budgetOf(by, browserKnown)
      return {
        slot: found.live.slot,
        now,
        waitForMs: Math.max(0, budget.waitUntil - now),
        mailWaitMs: mailWait(budget, found.live.slot, limits, now)
      }
    },

    find: async (by, kind) => {
      const live = slots.get(names.slot(by, kind))
      return live !== undefined && live.slot.expiresAt > clock.now() && live.slot.attemptsLeft > 0
        ? live.slot.id
        : undefined
    },

    takeAttempt: async (by, id, budgetName, { browserKnown, inARow, limits }) => {
      const now = clock.now()
      const found = liveAt(by, id, now)
      if (found === undefined) return { taken: 'gone', now }
      const { live } = found
      const receipt = (booked: number): Receipt => ({ by, slot: id, budget: budgetName, browserKnown, booked })
      if (budgetName === 'backup_code') {
        const budget = backupBudgetOf(by)
        budget.backup = budget.backup.filter(at => now - at < HOUR_MS)
        const oldest = budget.backup[0]
        if (oldest !== undefined && budget.backup.length >= limits.backupWrongPerHour) {
          return { taken: 'waiting', waitForMs: oldest + HOUR_MS - now, now }
        }
        if (live.slot.attemptsLeft <= 0) return { taken: 'spent', now }
        budget.backup.push(now)
        budget.lastTake = now
        live.slot = { ...live.slot, attemptsLeft: live.slot.attemptsLeft - 1 }
        return { taken: 'taken', slot: live.slot, now, receipt: receipt(now) }
      }
      const budget = budgetOf(by, browserKnown)
      if (budget.lastTake === 0) fromSql(budget, inARow, now)
      if (budget.waitUntil > now) return { taken: 'waiting', waitForMs: budget.waitUntil - now, now }
      if (live.slot.attemptsLeft <= 0) return { taken: 'spent', now }
      budget.inARow += 1
      budget.lastTake = now
      const wait = waitAfter(budget.inARow, limits)
      if (wait > 0) budget.waitUntil = now + wait
      live.slot = { ...live.slot, attemptsLeft: live.slot.attemptsLeft - 1 }
      return { taken: 'taken', slot: live.slot, now, receipt: receipt(budget.inARow) }
    },

    giveBack: async (receipt, outcome) => {
      const found = liveAt(receipt.by, receipt.slot, clock.now())
      if (found !== undefined) {
        if (outcome === 'accepted') slots.delete(found.key)
        else found.live.slot = { ...found.live.slot, attemptsLeft: found.live.slot.attemptsLeft + 1 }
      }
      if (receipt.budget === 'backup_code') {
        const budget = backupBudgetOf(receipt.by)
        const at = budget.backup.indexOf(receipt.booked)
        if (at >= 0) budget.backup.splice(at, 1)
        return
      }
      const budget = budgetOf(receipt.by, receipt.browserKnown)
      budget.inARow = outcome === 'accepted' ? 0 : Math.max(0, budget.inARow - 1)
      // The wait that this attempt began ends with it; one begun by a later failure stays.
      if (outcome === 'accepted' || budget.inARow < receipt.booked) budget.waitUntil = 0
    },

    send: async (by, id, { codeHash, browserKnown, limits }) => {
      const now = clock.now()
      const found = liveAt(by, id, now)
      if (found === undefined || found.live.slot.attemptsLeft <= 0) return { sent: 'gone', now }
      const budget = budgetOf(by, browserKnown)
      const wait = Math.max(budget.waitUntil - now, mailWait(budget, found.live.slot, limits, now))
      if (wait > 0) return { sent: 'waiting', waitForMs: wait, now }
      budget.mails.push(now)
      found.live.slot = { ...found.live.slot, mailedHash: codeHash, mailedAt: now }
      return { sent: 'sent', slot: found.live.slot, now }
    },

    held: async (by, id) => {
      const answer = answers.get(id)
      return answer !== undefined && answer.by === oneText(by) && answer.until > clock.now() ? answer.held : undefined
    },

    end: async (by, id) => {
      const found = liveAt(by, id, clock.now())
      if (found !== undefined) slots.delete(found.key)
    },

    clearBudget: async (tenant, subject) => {
      budgets.delete(names.tag(tenant, subject))
    },
    now: async () => clock.now(),
    check: async () => {},
    close: async () => {}
  }
}
