// The settings pages: status of everything, and each change as a page of its own that works without a script.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from '../type.ts'
import type { Assurances } from '../../domain/assurance.ts'
import type { Challenges } from '../../domain/challenge.ts'
import type { BegunEmail, BegunTotp, Confirmed, Enrolments, SettingsView } from '../../domain/enrolment.ts'
import { Problem, problemOf } from '../../domain/problems.ts'
import type { Clock, Sealer } from '../../domain/ports.ts'
import { qrSvg } from '../qr.ts'
import { ChallengeParams } from '../schemas.ts'
import { settingsBody } from '../subjects.ts'
import type { Banner, Page, Renderer } from './page.ts'
import { sayProblem, sayVerdict } from './verdicts.ts'

export interface PagesNeed {
  readonly challenges: Challenges
  readonly enrolments: Enrolments
  readonly assurances: Assurances
  readonly sealer: Sealer
  readonly clock: Clock
}

const EnrolmentParams = Type.Object({ enrolment: ChallengeParams.properties.id }, { additionalProperties: false })
const NoticeParams = Type.Object(
  { id: Type.String({ pattern: '^[A-Za-z0-9-]{8,64}$' }) },
  { additionalProperties: false }
)

export function settingsPages (
  { challenges, enrolments, assurances, clock }: PagesNeed,
  renderer: Renderer
): FastifyPluginAsyncTypebox {
  /** Sends to the verification page; `back` is the page below the prefix that it returns to. */
  const demand = async (page: Page, purpose: 'login' | 'step_up', back: string): Promise<FastifyReply> => {
    const opened = await challenges.open(page.tenant, page.ask, { purpose, returnPath: page.url(back) })
    switch (opened.status) {
      case 'open':
        return page.see(page.url(`verify/${opened.challenge.id}`))
      case 'enrolment_required':
        return page.see(page.url('settings'))
      case 'verified':
      case 'not_required':
        return page.see(page.url(back))
      default:
        return opened satisfies never
    }
  }

  const show = async (
    page: Page,
    banner?: Banner,
    { status = 200, address = '' }: { readonly status?: number; readonly address?: string } = {}
  ): Promise<FastifyReply> => {
    const {
      words: { say, date },
      tenant
    } = page
    const view = await enrolments.settings(tenant, page.ask)
    const { totp } = view
    const dates = {
      date: date(totp.confirmedAt ?? 0),
      expires: date(totp.expiresAt ?? 0),
      days: tenant.policy.limits.totpExpiresDays
    }
    const console = view.email.maskedConsoleAddress
    return page.show(
      'settings',
      {
        title: say('settings.title'),
        wide: true,
        view,
        totpText: say(`totp.text.${totp.status}`, dates),
        address,
        addressNote:
          console !== null && !view.email.on
            ? say('email.address_console', { console: tenant.name, address: console })
            : undefined,
        banner:
          banner ??
          (view.mustEnrol
            ? { kind: 'info', text: say('settings.must_enrol', { console: tenant.name }) }
            : view.locked
              ? { kind: 'error', text: say('error.locked') }
              : undefined)
      },
      status
    )
  }

  /** Runs a change; what stands in the way becomes the page that gets it out of the way. */
  const changing = async (
    page: Page,
    back: string,
    work: () => Promise<FastifyReply>,
    retry: (banner: Banner, status: number) => Promise<FastifyReply>
  ): Promise<FastifyReply> => {
    if (!page.formFits()) {
      if (page.json) throw new Problem('forbidden')
      return await retry({ kind: 'warning', text: page.words.say('error.stale_form') }, 403)
    }
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Problem) || page.json) throw error
      if (error.code === 'login_required') return await demand(page, 'login', back)
      if (error.code === 'step_up_required') return await demand(page, 'step_up', back)
      if (error.code === 'not_enabled') return page.see(page.url('settings'))
      const banner = sayProblem(page.words, error)
      if (banner === undefined) throw error
      return await retry(banner, error.statusCode)
    }
  }

  const showTotp = async (
    page: Page,
    view: SettingsView,
    begun: BegunTotp,
    banner?: Banner,
    status = 200
  ): Promise<FastifyReply> => {
    const renew = view.totp.status !== 'not_enabled'
    return page.show(
      'totp',
      {
        title: page.words.say(renew ? 'enable.title_renew' : 'enable.title'),
        wide: true,
        renew,
        banner,
        invalid: banner?.kind === 'error',
        enrolment: begun.id,
        qr: await qrSvg(begun.uri),
        uri: begun.uri,
        key4: begun.key.match(/.{1,4}/g)?.join(' ') ?? begun.key,
        minutes: Math.max(1, Math.floor(begun.expiresInSeconds / 60))
      },
      status
    )
  }

  const showEmail = (page: Page, begun: BegunEmail, banner?: Banner, status = 200): FastifyReply =>
    page.show(
      'email',
      {
        title: page.words.say('email.confirm_title'),
        banner,
        invalid: banner?.kind === 'error',
        enrolment: begun.id,
        address: begun.maskedAddress,
        resendIn: begun.resendInSeconds
      },
      status
    )

  const showProof = (
    page: Page,
    view: SettingsView,
    begin: 'totp' | 'email',
    {
      banner,
      sent = false,
      status = 200
    }: { readonly banner?: Banner | undefined; readonly sent?: boolean; readonly status?: number } = {}
  ): FastifyReply =>
    page.show('proof', { title: page.words.say('proof.title'), proof: view.proof, begin, banner, sent }, status)

  const showConfirm = (
    page: Page,
    action: string,
    words: {
      readonly title: string
      readonly lines: readonly string[]
      readonly submit: string
      readonly danger: boolean
    },
    banner?: Banner,
    status = 200
  ): FastifyReply => page.show('confirm', { ...words, action: page.url(action), banner }, status)

  const showCodes = (page: Page, codes: readonly string[], done: string, next: string): FastifyReply =>
    page.show('codes', { title: page.words.say('codes.title'), codes, done, next })

  /** A confirmed enrolment, or the dialog again with what happened. */
  const confirmed = async (
    page: Page,
    result: Confirmed,
    accepted: (codes: readonly string[]) => Promise<FastifyReply>,
    retry: (banner: Banner, status: number) => Promise<FastifyReply>
  ): Promise<FastifyReply> => {
    if (result.verdict === 'accepted') {
      page.bind(result.boundToNext)
      return await accepted(result.backupCodes)
    }
    const problem = problemOf(result, 'enrolment_gone')
    if (page.json) throw problem
    return await retry(sayVerdict(page.words, result, { gone: 'error.enrolment_gone' }), problem.statusCode)
  }

  const settingsOf = async (page: Page) => await enrolments.settings(page.tenant, page.ask)
  /** Settings are shown to whoever passed the login verification; who must enrol sees them to enrol. */
  const entered = async (
    request: FastifyRequest,
    reply: FastifyReply,
    back: string,
    then: (page: Page) => Promise<FastifyReply>
  ): Promise<FastifyReply> => {
    const page = renderer.page(request, reply)
    const { status } = await assurances.question(page.tenant, page.ask, undefined)
    if (status !== 'verification_required') return await then(page)
    if (page.json) throw new Problem('login_required')
    return await demand(page, 'login', back)
  }

  const totpRemoval = (page: Page, view: SettingsView) => ({
    title: page.words.say('disable.title'),
    lines: [page.words.say(view.email.on ? 'disable.text_email' : 'disable.text')],
    submit: page.words.say('disable.submit'),
    danger: true
  })
  const emailRemoval = (page: Page) => ({
    title: page.words.say('email_disable.title'),
    lines: [page.words.say('email_disable.text')],
    submit: page.words.say('email_disable.submit'),
    danger: true
  })
  const newCodes = (page: Page) => ({
    title: page.words.say('backup.confirm_title'),
    lines: [page.words.say('backup.confirm_text')],
    submit: page.words.say('backup.confirm_submit'),
    danger: false
  })

  return async app => {
    for (const path of ['/settings', '/enrol']) {
      app.get(
        path,
        async (request, reply) =>
          await entered(request, reply, 'settings', async page => {
            if (page.json) return page.answer(settingsBody(await settingsOf(page), clock.now()))
            return await show(page)
          })
      )
    }

    app.get(
      '/settings/totp',
      async (request, reply) =>
        await entered(request, reply, 'settings/totp', async page => {
          const begun = await enrolments.pendingTotp(page.tenant, page.ask)
          const view = await settingsOf(page)
          if (begun !== undefined) return await showTotp(page, view, begun)
          if (view.proof !== 'none') return showProof(page, view, 'totp')
          const renew = view.totp.status !== 'not_enabled'
          return showConfirm(page, 'settings/totp', {
            title: page.words.say(renew ? 'enable.title_renew' : 'enable.title'),
            lines: [page.words.say(renew ? 'enable.renew_note' : 'totp.text.not_enabled')],
            submit: page.words.say(renew ? 'totp.renew' : 'totp.enable'),
            danger: false
          })
        })
    )

    app.post('/settings/totp', async (request, reply) => {
      const page = renderer.page(request, reply)
      const proof = page.field('proof')
      return await changing(
        page,
        'settings/totp',
        async () => {
          try {
            await enrolments.beginTotp(page.tenant, page.ask, { proof })
          } catch (error) {
            // Asked for before it could be given: the page behind the redirect asks for it.
            if (!(error instanceof Problem) || error.code !== 'proof_required' || proof !== undefined) throw error
          }
          return page.see(page.url('settings/totp'))
        },
        async (banner, status) => {
          const view = await settingsOf(page)
          return view.proof === 'none'
            ? await show(page, banner, { status })
            : showProof(page, view, 'totp', { banner, sent: proof !== undefined, status })
        }
      )
    })

    app.post('/settings/totp/:enrolment', { schema: { params: EnrolmentParams } }, async (request, reply) => {
      const page = renderer.page(request, reply)
      const again = async (banner: Banner, status: number) => {
        const begun = await enrolments.pendingTotp(page.tenant, page.ask)
        return begun === undefined
          ? await show(page, banner, { status })
          : await showTotp(page, await settingsOf(page), begun, banner, status)
      }
      return await changing(
        page,
        'settings/totp',
        async () => {
          const before = await settingsOf(page)
          const result = await enrolments.confirmTotp(
            page.tenant,
            page.ask,
            request.params.enrolment,
            page.field('code') ?? '',
            { nextBrowser: page.nextBrowser }
          )
          return await confirmed(
            page,
            result,
            async codes =>
              showCodes(
                page,
                codes,
                page.words.say(before.totp.status === 'not_enabled' ? 'codes.enabled' : 'codes.renewed'),
                before.mustEnrol ? '/' : page.url('settings')
              ),
            again
          )
        },
        again
      )
    })

    app.get(
      '/settings/totp/remove',
      async (request, reply) =>
        await entered(request, reply, 'settings/totp/remove', async page => {
          const view = await settingsOf(page)
          return view.totp.status === 'not_enabled'
            ? page.see(page.url('settings'))
            : showConfirm(page, 'settings/totp/remove', totpRemoval(page, view))
        })
    )

    app.post('/settings/totp/remove', async (request, reply) => {
      const page = renderer.page(request, reply)
      return await changing(
        page,
        'settings/totp/remove',
        async () => {
          await enrolments.removeTotp(page.tenant, page.ask)
          return await show(page, { kind: 'info', text: page.words.say('done.totp_disabled') })
        },
        async (banner, status) =>
          showConfirm(page, 'settings/totp/remove', totpRemoval(page, await settingsOf(page)), banner, status)
      )
    })

    app.get(
      '/settings/email',
      async (request, reply) =>
        await entered(request, reply, 'settings/email', async page => {
          const begun = await enrolments.pendingEmail(page.tenant, page.ask)
          if (begun !== undefined) return showEmail(page, begun)
          const view = await settingsOf(page)
          return view.proof === 'none' ? page.see(page.url('settings')) : showProof(page, view, 'email')
        })
    )

    app.post('/settings/email', async (request, reply) => {
      const page = renderer.page(request, reply)
      const address = page.field('address')?.trim()
      const proof = page.field('proof')
      return await changing(
        page,
        'settings',
        async () => {
          await enrolments.beginEmail(page.tenant, page.ask, { address: address === '' ? undefined : address, proof })
          return page.see(page.url('settings/email'))
        },
        async (banner, status) => {
          const view = await settingsOf(page)
          const begun =
            page.field('again') === undefined ? undefined : await enrolments.pendingEmail(page.tenant, page.ask)
          if (begun !== undefined) return showEmail(page, begun, banner, status)
          return view.proof === 'none'
            ? await show(page, banner, { status, address: address ?? '' })
            : showProof(page, view, 'email', { banner, sent: proof !== undefined, status })
        }
      )
    })

    app.post('/settings/email/:enrolment', { schema: { params: EnrolmentParams } }, async (request, reply) => {
      const page = renderer.page(request, reply)
      const again = async (banner: Banner, status: number) => {
        const begun = await enrolments.pendingEmail(page.tenant, page.ask)
        return begun === undefined ? await show(page, banner, { status }) : showEmail(page, begun, banner, status)
      }
      return await changing(
        page,
        'settings',
        async () => {
          const result = await enrolments.confirmEmail(
            page.tenant,
            page.ask,
            request.params.enrolment,
            page.field('code') ?? '',
            { nextBrowser: page.nextBrowser }
          )
          return await confirmed(page, result, async () => page.see(page.url('settings')), again)
        },
        again
      )
    })

    app.get(
      '/settings/email/remove',
      async (request, reply) =>
        await entered(request, reply, 'settings/email/remove', async page =>
          showConfirm(page, 'settings/email/remove', emailRemoval(page))
        )
    )

    app.post('/settings/email/remove', async (request, reply) => {
      const page = renderer.page(request, reply)
      return await changing(
        page,
        'settings/email/remove',
        async () => {
          await enrolments.removeEmail(page.tenant, page.ask)
          return await show(page, { kind: 'info', text: page.words.say('done.email_disabled') })
        },
        async (banner, status) => showConfirm(page, 'settings/email/remove', emailRemoval(page), banner, status)
      )
    })

    app.get(
      '/settings/backup-codes',
      async (request, reply) =>
        await entered(request, reply, 'settings/backup-codes', async page =>
          showConfirm(page, 'settings/backup-codes', newCodes(page))
        )
    )

    app.post('/settings/backup-codes', async (request, reply) => {
      const page = renderer.page(request, reply)
      return await changing(
        page,
        'settings/backup-codes',
        async () =>
          showCodes(
            page,
            await enrolments.newBackupCodes(page.tenant, page.ask),
            page.words.say('codes.made'),
            page.url('settings')
          ),
        async (banner, status) => showConfirm(page, 'settings/backup-codes', newCodes(page), banner, status)
      )
    })

    app.post('/settings/proof', async (request, reply) => {
      const page = renderer.page(request, reply)
      const begin = page.field('for') === 'email' ? 'email' : 'totp'
      return await changing(
        page,
        `settings/${begin}`,
        async () => {
          const sent = await enrolments.sendProof(page.tenant, page.ask)
          return showProof(page, await settingsOf(page), begin, {
            sent: true,
            banner: { kind: 'info', text: page.words.say('proof.sent', { address: sent.maskedAddress }) }
          })
        },
        async (banner, status) => showProof(page, await settingsOf(page), begin, { banner, sent: true, status })
      )
    })

    app.post('/settings/notices/:id', { schema: { params: NoticeParams } }, async (request, reply) => {
      const page = renderer.page(request, reply)
      return await changing(
        page,
        'settings',
        async () => {
          await enrolments.dismissNotice(page.tenant, page.ask, request.params.id)
          return page.see(page.url('settings'))
        },
        async (banner, status) => await show(page, banner, { status })
      )
    })
  }
}
