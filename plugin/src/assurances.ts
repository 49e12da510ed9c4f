// What the service says of who asks: from memory where that is young enough, else one question in flight per session.

import { browserName, sessionName } from './binding.ts'
import { createCache, ends, remembered, type Ended, type Remembered } from './cache.ts'
import { createChanges } from './changes.ts'
import type { Client } from './client.ts'
import type { Answer, By, Clock, Who } from './model.ts'

export type Standing =
  | { readonly standing: 'passed'; readonly answer: Remembered; readonly grace: boolean }
  | { readonly standing: 'enrolment_required' | 'verification_required' }
  /** The service answered, but not the question (key refused, unexpected). */
  | { readonly standing: 'unclear'; readonly code: string }
  | { readonly standing: 'away'; readonly retryAfter: number }

export interface Assurances {
  /** Hot path: no I/O. `undefined` says nothing. */
  readonly known: (key: string) => Remembered | undefined
  /** `known` would give this answer again. */
  readonly holds: (answer: Remembered) => boolean
  /** Asks the service, whatever is remembered. */
  readonly ask: (who: Who) => Promise<Standing>
  readonly by: (who: Who) => By
  /** This session ended or changed here: nothing of it is remembered, nor what is being asked about it right now. */
  readonly forgetSession: (kind: string, session: string) => void
  readonly forgetSubject: (subject: string) => void
  readonly start: () => void
  readonly stop: () => Promise<void>
  readonly live: () => boolean
  readonly size: () => number
  /** Called after something was forgotten, with what may have ended. */
  readonly onEnded: (listener: () => void) => void
}

interface Question {
  readonly who: Who
  readonly standing: Promise<Standing>
  /** Something about it changed here after it was asked. */
  outdated: boolean
}

export function createAssurances ({
  client,
  now,
  size,
  graceMs
}: {
  readonly client: Client
  readonly now: Clock
  readonly size: number
  readonly graceMs: number
}): Assurances {
  const questions = new Map<string, Question>()
  const listeners: (() => void)[] = []
  const tell = (): void => {
    for (const listener of listeners) listener()
  }

  const changes = createChanges({
    client,
    now,
    onChange: change => {
      cache.drop(answer => ends(change, answer))
      tell()
    },
    onGap: () => {
      outdate(() => true)
      cache.clear()
      tell()
    }
  })
  const cache = createCache({ now, size, live: changes.live })

  function outdate (matches: (who: Who) => boolean): void {
    for (const question of questions.values()) if (matches(question.who)) question.outdated = true
  }

  async function question (who: Who, self: () => Question | undefined): Promise<Standing> {
    const askedAt = now()
    const asked = await client.question(by(who), who.identity.exempt)
    if (asked.outcome === 'away') {
      // Asking for more than we can pass on must not make the service look away: what ended would go on.
      const grace = graceMs > 0 && (asked.busy !== true || changes.live())
      const last = grace && self()?.outdated === false ? cache.lastConfirmed(who.key, graceMs) : undefined
      return last === undefined
        ? { standing: 'away', retryAfter: asked.retryAfter }
        : { standing: 'passed', answer: last, grace: true }
    }
    if (asked.outcome === 'problem') {
      cache.drop(answer => answer.kind === who.identity.kind && answer.session === who.identity.session)
      return { standing: 'unclear', code: asked.problem.code }
    }
    const { answer } = asked
    const keep = remembered(answer, who.identity, askedAt)
    if (keep === undefined) {
      cache.drop(one => one.sessionRef === answer.sessionRef)
      return { standing: answer.status === 'enrolment_required' ? 'enrolment_required' : 'verification_required' }
    }
    if (self()?.outdated === false && !missed(answer, keep)) cache.put(who.key, keep)
    return { standing: 'passed', answer: keep, grace: false }
  }

  // An answer asked before the newest change of its session, subject or tenant is used once and not kept.
  function missed (answer: Answer, keep: Remembered): boolean {
    if (!changes.live()) return false
    const since = changes.since(answer.change)
    return since === 'unknown' || since.some((change: Ended) => ends(change, keep))
  }

  function by (who: Who): By {
    const { subject, kind, session } = who.identity
    return { subject, session: sessionName(kind, session), browser: browserName(who.binding) }
  }

  return {
    known: cache.fresh,
    holds: cache.holds,
    by,
    ask: async who => {
      const running = questions.get(who.key)
      if (running !== undefined && !running.outdated) return await running.standing
      const asking: Question = {
        who,
        outdated: false,
        standing: question(who, () => (questions.get(who.key) === asking ? asking : undefined)).finally(() => {
          if (questions.get(who.key) === asking) questions.delete(who.key)
        })
      }
      questions.set(who.key, asking)
      return await asking.standing
    },
    forgetSession: (kind, session) => {
      outdate(who => who.identity.kind === kind && who.identity.session === session)
      cache.drop(answer => answer.kind === kind && answer.session === session)
      tell()
    },
    forgetSubject: subject => {
      outdate(who => who.identity.subject === subject)
      cache.drop(answer => answer.subject === subject)
      tell()
    },
    start: changes.start,
    stop: changes.stop,
    live: changes.live,
    size: cache.size,
    onEnded: listener => {
      listeners.push(listener)
    }
  }
}
