// The verification page: one field, what happened, and the quiet ways out.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import type { ChallengeView } from '../../domain/challenge.ts'
import type { Accepted } from '../../domain/model.ts'
import { Problem, problemOf } from '../../domain/problems.ts'
import { challengeBody } from '../challenges.ts'
import { csrfToken } from '../csrf.ts'
import { ChallengeParams } from '../schemas.ts'
import type { Banner, Page, PagesNeed, Renderer } from './page.ts'
import { sayNotice, sayProblem, sayVerdict } from './verdicts.ts'

export function verifyPages (
  { challenges, enrolments, assurances, sealer, clock }: PagesNeed,
  renderer: Renderer
): FastifyPluginAsyncTypebox {
  const minutesOf = (page: Page) => Math.floor(page.tenant.policy.limits.challengeSeconds / 60)

  const gone = async (page: Page): Promise<FastifyReply> => {
    if (page.json) throw new Problem('challenge_gone')
    const { say } = page.words
    const { status } = await assurances.question(page.tenant, page.ask, undefined)
    // Whoever passed already has nothing to start again.
    const passed = status === 'verified' || status === 'not_required'
    return page.show(
      'message',
      passed
        ? { title: say('welcome.title'), lines: [], next: { href: '/', label: say('welcome.continue') } }
        : { title: say('gone.title'), lines: [say('gone.text')], next: { href: '/', label: say('gone.next') } },
      passed ? 200 : 410
    )
  }

  const labelOf = (methods: readonly string[]): string => {
    const backup = methods.includes('backup_code') ? '_backup' : ''
    if (methods.includes('totp')) return `verify.label.totp${backup}`
    if (methods.includes('email')) return `verify.label.email${backup}`
    return methods.every(method => method === 'backup_code') ? 'verify.label.backup' : 'verify.label.other'
  }

  const show = (
    page: Page,
    challenge: ChallengeView,
    {
      banner,
      invalid = false,
      status = 200
    }: { readonly banner?: Banner | undefined; readonly invalid?: boolean; readonly status?: number } = {}
  ): FastifyReply => {
    const {
      words: { say, time },
      tenant
    } = page
    const backup = challenge.methods.includes('backup_code')
    const mail = challenge.methods.includes('email') && challenge.maskedAddress !== null
    const stopped = challenge.locked || challenge.waitForSeconds > 0
    const standing: Banner | undefined = challenge.locked
      ? { kind: 'error', text: say('error.locked') }
      : challenge.waitForSeconds > 0
        ? {
            kind: 'warning',
            text: say(backup ? 'error.waiting_backup' : 'error.waiting', { time: time(challenge.waitForSeconds) })
          }
        : undefined
    return page.show(
      'verify',
      {
        title: say(
          challenge.locked ? 'locked.title' : challenge.waitForSeconds > 0 && !backup ? 'wait.title' : 'verify.title'
        ),
        why: say(`verify.why.${challenge.purpose}`, { console: tenant.name }),
        action: challenge.purpose === 'step_up' ? page.ask.about.action : undefined,
        challenge,
        banner: banner ?? standing,
        invalid,
        // During a wait a backup code still opens; where there is none, a field would only invite more wrong codes.
        field: challenge.attemptsLeft > 0 && (!stopped || backup || !challenge.locked),
        label: say(stopped && backup ? 'verify.label.backup' : labelOf(challenge.methods)),
        digitsOnly: !backup && challenge.methods.every(method => method === 'totp' || method === 'email'),
        mailText:
          !mail || challenge.locked
            ? undefined
            : challenge.mailed
              ? say('verify.mailed', { address: challenge.maskedAddress ?? '', minutes: minutesOf(page) })
              : say('verify.not_mailed', { address: challenge.maskedAddress ?? '' }),
        attempts:
          challenge.attemptsLeft > 0 && challenge.attemptsLeft < 3 && banner === undefined
            ? say('verify.attempts', { count: challenge.attemptsLeft })
            : undefined,
        resend:
          !mail || stopped
            ? undefined
            : {
                wait: challenge.resendInSeconds,
                label: say(challenge.mailed ? 'verify.resend' : 'verify.send'),
                waiting: say('verify.resend_in', { time: '{time}' }),
                text: say('verify.resend_wait', { seconds: challenge.resendInSeconds })
              },
        lost: [
          ...(backup && !stopped ? [say('verify.lost')] : []),
          ...(challenge.methods.includes('totp') ? [say('verify.lost_all')] : [])
        ]
      },
      status
    )
  }

  /**
   * On to where the person was going; but a backup code that was used, or a notice that could not be mailed, is said
   * first.
   */
  const welcome = async (page: Page, accepted: Accepted): Promise<FastifyReply> => {
    const { say } = page.words
    page.bind(accepted.boundToNext)
    const to = accepted.returnPath ?? '/'
    if (page.json) {
      return page.answer({ factor: accepted.factor, return_path: to, backup_codes_left: accepted.backupCodesLeft })
    }
    const left = accepted.backupCodesLeft
    const { notices } = await enrolments.settings(page.tenant, page.ask)
    if ((left === null || left > 2) && notices.length === 0) return page.see(to)
    return page.show('message', {
      title: say('welcome.title'),
      banner:
        left === null
          ? undefined
          : {
              kind: 'warning',
              text: left === 0 ? say('welcome.backup_none') : say('welcome.backup_left', { count: left })
            },
      lines: [],
      notices: notices.map(notice => sayNotice(page.words, notice.message)),
      next: { href: to, label: say('welcome.continue') },
      other: left === null ? undefined : { href: page.url('settings/backup-codes'), label: say('welcome.new_set') }
    })
  }

  return async app => {
    app.get('/verify/:id', { schema: { params: ChallengeParams } }, async (request, reply) => {
      const page = renderer.page(request, reply)
      const challenge = await challenges.view(page.tenant, page.ask, request.params.id)
      if (challenge === undefined) return await gone(page)
      if (page.json) return challengeBody(challenge, csrfToken(sealer, page.ask.by, clock.now()))
      return show(page, challenge)
    })

    app.post('/verify/:id', { schema: { params: ChallengeParams } }, async (request, reply) => {
      const page = renderer.page(request, reply)
      const { id } = request.params
      const view = async () => await challenges.view(page.tenant, page.ask, id)
      if (!page.formFits()) {
        const challenge = await view()
        if (challenge === undefined) return await gone(page)
        if (page.json) throw new Problem('forbidden')
        return show(page, challenge, {
          banner: { kind: 'warning', text: page.words.say('error.stale_form') },
          status: 403
        })
      }
      const key = page.field('idempotency_key')
      const verdict = await challenges.answer(page.tenant, page.ask, id, (page.field('code') ?? '').slice(0, 64), {
        nextBrowser: page.nextBrowser,
        idempotencyKey: key !== undefined && /^[A-Za-z0-9_-]{8,64}$/.test(key) ? key : undefined
      })
      if (verdict.verdict === 'accepted') return await welcome(page, verdict.accepted)
      const problem = problemOf(verdict, 'challenge_gone')
      if (page.json) throw problem
      if (verdict.verdict === 'gone') return await gone(page)
      const challenge = await view()
      if (challenge === undefined) return await gone(page)
      const banner = sayVerdict(page.words, verdict, { backup: challenge.methods.includes('backup_code') })
      const spent = challenge.attemptsLeft === 0 && !challenge.locked
      if (spent) {
        const wait =
          challenge.waitForSeconds > 0
            ? [
                page.words.say(challenge.methods.includes('backup_code') ? 'error.waiting_backup' : 'error.waiting', {
                  time: page.words.time(challenge.waitForSeconds)
                })
              ]
            : []
        return page.show(
          'message',
          {
            title: page.words.say('wait.title'),
            banner,
            lines: wait,
            next: { href: challenge.returnPath ?? '/', label: page.words.say('gone.next') }
          },
          problem.statusCode
        )
      }
      return show(page, challenge, {
        banner,
        invalid: verdict.verdict !== 'locked' && verdict.verdict !== 'waiting',
        status: problem.statusCode
      })
    })

    app.post('/verify/:id/email', { schema: { params: ChallengeParams } }, async (request, reply) => {
      const page = renderer.page(request, reply)
      const { id } = request.params
      const before = await challenges.view(page.tenant, page.ask, id)
      if (before === undefined) return await gone(page)
      if (!page.formFits()) {
        if (page.json) throw new Problem('forbidden')
        return show(page, before, {
          banner: { kind: 'warning', text: page.words.say('error.stale_form') },
          status: 403
        })
      }
      try {
        const challenge = await challenges.send(page.tenant, page.ask, id)
        if (page.json) return challengeBody(challenge, csrfToken(sealer, page.ask.by, clock.now()))
        return show(page, challenge, { banner: { kind: 'info', text: page.words.say('verify.sent_again') } })
      } catch (error) {
        const banner = error instanceof Problem && !page.json ? sayProblem(page.words, error) : undefined
        if (banner === undefined || !(error instanceof Problem)) throw error
        return show(page, before, { banner, status: error.statusCode })
      }
    })
  }
}
