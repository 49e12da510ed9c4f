// The authenticator app: a key is shown, confirmed with a code, renewed and removed.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import type { BegunTotp, SettingsView } from '../../../domain/enrolment.ts'
import { Problem } from '../../../domain/problems.ts'
import { qrSvg } from '../../qr.ts'
import type { Banner, Page, PagesNeed, Renderer } from '../page.ts'
import { confirmed, EnrolmentParams, type Changes } from './change.ts'
import { showCodes, showConfirm } from './dialogs.ts'
import type { Overview } from './overview.ts'
import { showProof } from './proof.ts'

async function showTotp (
  page: Page,
  view: SettingsView,
  begun: BegunTotp,
  banner?: Banner,
  status = 200
): Promise<FastifyReply> {
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

const removal = (page: Page, view: SettingsView) => ({
  title: page.words.say('disable.title'),
  lines: [page.words.say(view.email.on ? 'disable.text_email' : 'disable.text')],
  submit: page.words.say('disable.submit'),
  danger: true
})

export function totpPages (
  { enrolments }: PagesNeed,
  renderer: Renderer,
  { settingsOf, show }: Overview,
  { entered, changing }: Changes
): FastifyPluginAsyncTypebox {
  return async app => {
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
            : showConfirm(page, 'settings/totp/remove', removal(page, view))
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
          showConfirm(page, 'settings/totp/remove', removal(page, await settingsOf(page)), banner, status)
      )
    })
  }
}
