// E-mail verification: a test code proves the address; switched on and off.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import type { BegunEmail } from '../../../domain/enrolment.ts'
import type { Banner, Page, PagesNeed, Renderer } from '../page.ts'
import { confirmed, EnrolmentParams, type Changes } from './change.ts'
import { showConfirm } from './dialogs.ts'
import type { Overview } from './overview.ts'
import { showProof } from './proof.ts'

function showEmail (page: Page, begun: BegunEmail, banner?: Banner, status = 200): FastifyReply {
  return page.show(
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
}

const removal = (page: Page) => ({
  title: page.words.say('email_disable.title'),
  lines: [page.words.say('email_disable.text')],
  submit: page.words.say('email_disable.submit'),
  danger: true
})

export function emailPages (
  { enrolments }: PagesNeed,
  renderer: Renderer,
  { settingsOf, show }: Overview,
  { entered, changing }: Changes
): FastifyPluginAsyncTypebox {
  return async app => {
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
          showConfirm(page, 'settings/email/remove', removal(page))
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
        async (banner, status) => showConfirm(page, 'settings/email/remove', removal(page), banner, status)
      )
    })
  }
}
