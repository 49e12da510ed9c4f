// A small load on three served replicas, and what must hold whatever fails beneath them: no code is accepted twice,
// no session passes that never brought a right code, nobody guesses beyond the limits, no enrolment is lost, each
// success is in the log, and all of it comes back by itself.

import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { defaultLimits, waitAfter } from '../../service/src/domain/policy.ts'
import { startFaultConsole } from './fault-console.ts'
import { printedTable, together, type Row } from './fault-table.ts'
import { until } from './redis-shapes.ts'
import { ANSWER_MS, encoded, enrolled, STEP_MS, wrongCode, type Answered, type Person, type Replicas } from './replicas.ts'
import { by, totpCode, type Teardown, type WireBy } from './service.ts'
import { handOver } from './tables.ts'

const RECOVERY_MS = 60_000

export interface Fault {
  /** With the row of the requirements, as in `C-01 Redis stopped`. */
  readonly name: string
  readonly strike: () => Promise<void> | void
  readonly lift?: () => Promise<void> | void
  /** Attempts that may be looked at beside the limits, where the fault loses what counts them. */
  readonly lost?: number
  /** A replica ends and breaks connections; what counts is how long a login takes at another one. */
  readonly breaks?: boolean
  /** More calls while the fault lasts. */
  readonly meanwhile?: (noted: (what: string, answer: Answered) => Answered) => Promise<void>
  /** What works again before the service has recovered, beside logins. */
  readonly again?: () => Promise<void>
}

/** Answers that are waited for while a fault lasts. */
const ANSWERS = 30

/** What a load does, and what it saw. */
export async function startCrowd (t: Teardown, service: Replicas, size = 18) {
  const people: Person[] = []
  const console = await startFaultConsole(t, service)
  // One by one on each replica: the slow hashes of an enrolment are made one at a time anyway.
  await Promise.all([0, 1, 2].map(async lane => {
    for (let index = lane; index < size; index += 3) people.push(await enrolled(service, `person ${index}`))
  }))
  const rows: Row[] = []
  let made = 0
  let cursor = 0

  /** Somebody whose code of this step or the next has not been sent yet. */
  const fresh = (): { person: Person, step: number } | undefined => {
    const now = Math.floor(Date.now() / STEP_MS)
    for (const step of [now, now + 1]) {
      const index = people.findIndex(one => one.step < step)
      const [person] = index < 0 ? [] : people.splice(index, 1)
      if (person === undefined) continue
      people.push(person)
      person.step = step
      return { person, step }
    }
    return undefined
  }

  /** Events since the last look, by subject. */
  const events = async () => {
    const counts = new Map<string, { accepted: number, rejected: number }>()
    for (;;) {
      const { status, body } = await service.asAdmin('GET', `/v1/events?limit=1000&after=${cursor}`)
      if (status !== 200) throw new Error(`events: ${status}`)
      for (const { subject, kind, outcome } of body.events as { subject: string, kind: string, outcome: string }[]) {
        if (kind !== 'verification') continue
        const count = counts.get(subject) ?? { accepted: 0, rejected: 0 }
        if (outcome === 'accepted') count.accepted += 1
        if (outcome === 'rejected') count.rejected += 1
        counts.set(subject, count)
      }
      if (body.events.length === 0) return counts
      cursor = body.next
    }
  }

  const endure = async (t: Test, fault: Fault): Promise<Row> => {
    const began = Date.now()
    const victim = await enrolled(service, `victim ${made++}`)
    const newcomer = by(`newcomer ${made}`)
    const enrolling = await service.ask('POST', `/v1/subjects/${encoded(newcomer.subject)}/totp`, { by: newcomer })
    t.equal(enrolling.status, 200)
    await events()
    const sent = new Map<Person, Set<number>>()
    const answers: Answered[] = []
    const odd: string[] = []
    /** Sessions that never brought a right code, and those that passed. */
    const strangers: WireBy[] = []
    const owners: WireBy[] = []
    let rejected = 0
    let opened = 0
    let turnedAway = 0
    let struck = Number.POSITIVE_INFINITY
    const run = { over: false }
    const counts = { login: 0, guess: 0, browse: 0 }

    const noted = (what: string, answer: Answered): Answered => {
      if (performance.now() - answer.ms >= struck || performance.now() >= struck) answers.push(answer)
      const fine = answer.status === 503
        ? Number(answer.retryAfter) > 0
        : answer.status === 0 ? fault.breaks === true && answer.ms < ANSWER_MS : answer.status < 500
      if (!fine) odd.push(`${what}: ${answer.status} ${JSON.stringify(answer.body)} after ${Math.round(answer.ms)} ms`)
      return answer
    }
    const stranger = async (who: WireBy): Promise<void> => {
      const { status, body } = noted('question', await service.question(who))
      if (status === 200 && body.status !== 'verification_required') opened += 1
    }

    /** Somebody logs in, and goes on until the answer is definite; then the code is played again by another session. */
    const login = async (): Promise<'accepted' | 'none' | 'open'> => {
      const chosen = fresh()
      if (chosen === undefined) return 'none'
      const { person, step } = chosen
      const who = by(person.name, `login ${made++}`, `browser ${made}`)
      const code = totpCode(person.key, step * STEP_MS)
      await stranger(who)
      for (let tries = 0; tries < 200; tries++) {
        const challenge = noted('open', await service.open(who))
        if (challenge.status === 200 && challenge.body.status === 'open') {
          const { id } = challenge.body.challenge
          sent.set(person, (sent.get(person) ?? new Set()).add(step))
          for (let again = 0; again < 200; again++) {
            const answer = noted('answer', await service.answer(who, id, code, `key-${id}`))
            if (answer.status === 200) {
              person.accepted.set(step, (person.accepted.get(step) ?? new Set()).add(id))
              owners.push(who)
              await replay(person, step)
              return 'accepted'
            }
            if (answer.body.code === 'challenge_gone') break
            if (answer.status !== 503 && answer.status !== 0) {
              odd.push(`a right code: ${answer.status} ${JSON.stringify(answer.body)}`)
              return 'open'
            }
            if (run.over) return 'open'
            await delay(50)
          }
        }
        if (challenge.status === 200 && challenge.body.status !== 'open') odd.push(`open: ${JSON.stringify(challenge.body)}`)
        if (run.over) return 'open'
        await delay(50)
      }
      return 'open'
    }
    const replay = async (person: Person, step: number): Promise<void> => {
      // A code that is too old by now would count as a guess.
      if (Math.floor((Date.now() + 10_000) / STEP_MS) > step + 1) return
      const thief = by(person.name, `thief ${made++}`, `thief's ${made}`)
      strangers.push(thief)
      const challenge = noted('open', await service.open(thief))
      if (challenge.status !== 200 || challenge.body.status !== 'open') return
      const { id } = challenge.body.challenge
      const answer = noted('replay', await service.answer(thief, id, totpCode(person.key, step * STEP_MS)))
      if (answer.status === 200) person.accepted.get(step)?.add(id)
    }
    const guess = async (): Promise<void> => {
      const attacker = by(victim.name, `attacker ${made++}`, `attacker's ${made}`)
      strangers.push(attacker)
      await stranger(attacker)
      const challenge = noted('open', await service.open(attacker))
      if (challenge.status !== 200 || challenge.body.status !== 'open') return
      const found = await Promise.all([0, 1].map(async () =>
        noted('guess', await service.answer(attacker, challenge.body.challenge.id, wrongCode(victim.key, made++)))))
      for (const { status, body } of found) {
        if (status === 200) opened += 1
        if (body.code === 'code_rejected') rejected += 1
      }
    }

    const load = [
      ...Array.from({ length: 2 }, async () => {
        while (!run.over) {
          if (counts.login < 4) { if (await login() !== 'none') counts.login += 1 }
          await delay(100)
        }
      }),
      ...Array.from({ length: 2 }, async () => {
        while (!run.over) {
          await guess()
          counts.guess += 1
          await delay(50)
        }
      }),
      (async () => {
        while (!run.over) {
          const seen = await console.browse()
          opened += seen.opened
          turnedAway += seen.turnedAway
          odd.push(...seen.odd)
          counts.browse += 1
          await delay(50)
        }
      })()
    ]
    const work = Promise.all(load)
    work.catch(() => {})
    let recovered = 0
    let confirmed = 0
    try {
      await until('the load', async () => counts.login >= 1 && counts.guess >= 1 && counts.browse >= 1)
      const now = () => Math.floor(Date.now() / STEP_MS)
      const somebody = async () => {
        await until('somebody whose code has not been sent', async () => people.some(({ step }) => step <= now()))
      }
      await somebody()
      const browsed = counts.browse
      struck = performance.now()
      await fault.strike()
      const target = answers.length + ANSWERS
      const elsewhere = async (): Promise<void> => {
        await until('a login at another replica', async () => await login() === 'accepted')
        recovered = performance.now() - struck
      }
      const confirm = async (): Promise<void> => {
        const path = `/v1/subjects/${encoded(newcomer.subject)}/totp/${enrolling.body.id}/confirm`
        const code = totpCode(enrolling.body.key, Date.now())
        const answer = noted('enrolment', await service.ask('POST', path, { by: newcomer, code }))
        if (answer.status === 200) confirmed += 1
      }
      await Promise.all([confirm(), fault.meanwhile?.(noted), fault.breaks === true && elsewhere()])
      // The one under way when it struck, and one that is all within the fault.
      await until('answers during the fault', async () => answers.length >= target && counts.browse >= browsed + 2)
      await somebody()
      const lifted = performance.now()
      await fault.lift?.()
      await until('every replica to be ready', service.ready, RECOVERY_MS)
      await until('a login', async () => await login() === 'accepted', RECOVERY_MS)
      await fault.again?.()
      if (fault.breaks !== true) recovered = performance.now() - lifted
      await until('the gate to ask', console.asks, RECOVERY_MS)
    } finally {
      run.over = true
      await work
      t.same(service.died.splice(0).slice(fault.breaks === true ? 1 : 0), [], 'no replica ended by itself')
    }

    const rest = await events()
    let twice = 0
    for (const [person, steps] of sent) {
      const accepted = [...steps].map(step => person.accepted.get(step)?.size ?? 0)
      const booked = rest.get(person.name)?.accepted ?? 0
      // As its callers saw it, and as the log has it: one success for each code at the most.
      twice += Math.max(accepted.reduce((sum, one) => sum + Math.max(0, one - 1), 0), booked - steps.size)
      t.ok(booked >= accepted.filter(one => one > 0).length, `each success of ${person.name} is in the log`)
    }
    for (const who of strangers) await stranger(who)
    for (const who of owners) {
      t.match(await service.question(who), { status: 200, body: { status: 'verified' } }, 'who has passed stays in')
    }
    const times = answers.map(({ ms }) => ms).sort((a, b) => a - b)
    const row = {
      fault: fault.name,
      answers: answers.length,
      medianMs: times[times.length >> 1] ?? Number.NaN,
      longestMs: times.at(-1) ?? Number.NaN,
      acceptedTwice: twice,
      gatesOpened: opened,
      turnedAway,
      recoveredMs: recovered
    }
    rows.push(row)
    t.equal(twice, 0, 'no code is accepted twice')
    t.equal(opened, 0, 'no session passes without a right code, neither the service\'s question nor a console')
    t.equal(turnedAway, 0, 'who has passed browses on at the console')
    t.same(odd, [], 'each answer is right, or a 503 with Retry-After')
    t.ok(sent.size > 0 && [...sent.keys()].some(one => one.accepted.size > 0), 'and logins went on')

    // The limits allow five, and one more for each wait that may have ended since.
    let allowed = defaultLimits.waitAfterFailures
    const lasted = Date.now() - began
    const wait = () => waitAfter(allowed, defaultLimits)
    for (let waited = wait(); waited <= lasted; waited += wait()) {
      allowed += 1
    }
    const booked = rest.get(victim.name)?.rejected ?? 0
    t.ok(rejected <= allowed + (fault.lost ?? 0), `${rejected} guesses were looked at, of ${allowed} that the limits allow`)
    t.ok(booked >= rejected, `${booked} of ${rejected} wrong codes are in the log`)
    t.ok(rejected > 0)

    for (const one of [...people, victim].map(({ name }) => name)) {
      const { body } = await service.ask('GET', `/v1/subjects/${encoded(one)}`)
      t.match(body, { totp: { status: 'enabled' } }, `${one} is enrolled`)
    }
    const { body } = await service.ask('GET', `/v1/subjects/${encoded(newcomer.subject)}`)
    if (confirmed > 0) t.match(body, { totp: { status: 'enabled' } }, 'an enrolment that was confirmed')
    return row
  }

  return {
    people,
    endure,
    /** Hands the rows over, or one of that name for all of them. */
    report: (all?: string): void => { handOver('faults', all === undefined ? rows : [together(all, rows)], printedTable) }
  }
}
