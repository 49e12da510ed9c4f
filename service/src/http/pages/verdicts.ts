// Verdicts and problems in the words that people read.

import type { Verdict } from '../../domain/model.ts'
import type { Problem } from '../../domain/problems.ts'
import type { Banner } from './page.ts'
import type { Words } from './words.ts'

export type Refused = Exclude<Verdict, { verdict: 'accepted' }>

/** What happened to a code, and what to do. `backup`: a backup code could be entered here. */
export function sayVerdict (
  words: Words,
  refused: Refused,
  { backup = false, gone = 'gone.text' }: { readonly backup?: boolean; readonly gone?: string } = {}
): Banner {
  const { say, time } = words
  const error = (text: string): Banner => ({ kind: 'error', text })
  switch (refused.verdict) {
    case 'rejected': {
      const minutes = Math.round(Math.abs(refused.clockOffSeconds ?? 0) / 60)
      if (minutes > 0) {
        return error(
          say((refused.clockOffSeconds ?? 0) < 0 ? 'error.clock_behind' : 'error.clock_ahead', { count: minutes })
        )
      }
      return error(refused.left === 0 ? say('error.rejected_none') : say('error.rejected', { count: refused.left }))
    }
    case 'used':
      return error(refused.nextIn > 0 ? say('error.used', { seconds: refused.nextIn }) : say('error.used_now'))
    case 'waiting':
      return error(say(backup ? 'error.waiting_backup' : 'error.waiting', { time: time(refused.waitFor) }))
    case 'locked':
      return error(say('error.locked'))
    case 'malformed':
      return error(say(backup ? 'error.malformed' : 'error.malformed_digits'))
    case 'gone':
      return error(say(gone))
    default:
      return refused satisfies never
  }
}

/** A refusal of a settings page's form, where it is the person's to mend; others are failures. */
export function sayProblem (words: Words, { code, details }: Problem): Banner | undefined {
  switch (code) {
    case 'address_invalid':
    case 'address_missing':
    case 'method_not_available':
      return { kind: 'error', text: words.say(`error.${code}`) }
    case 'waiting':
      return { kind: 'error', text: words.say('error.mail_waiting', { time: words.time(details.retry_after ?? 60) }) }
    case 'proof_rejected':
      return { kind: 'error', text: words.say('error.proof_rejected', { count: details.attempts_left ?? 0 }) }
    case 'code_malformed':
      return { kind: 'error', text: words.say('error.malformed_digits') }
    case 'enrolment_gone':
      return { kind: 'error', text: words.say('error.enrolment_gone') }
    case 'locked':
      return { kind: 'error', text: words.say('error.locked') }
    default:
      return undefined
  }
}

/** The words of a notice; messages that a language does not know yet have a general one. */
export function sayNotice (words: Words, message: string): string {
  return words.has(`notice.${message}`) ? words.say(`notice.${message}`) : words.say('notice.other')
}
