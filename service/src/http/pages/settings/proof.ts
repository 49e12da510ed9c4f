// Before a first enrolment: the code that a tenant asks for.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import type { SettingsView } from '../../../domain/enrolment.ts'
import type { Banner, Page, PagesNeed, Renderer } from '../page.ts'
import type { Changes } from './change.ts'
import type { Overview } from './overview.ts'

/** Asks for the code that `begin` needs. */
export function showProof (
  page: Page,
  view: SettingsView,
  begin: 'totp' | 'email',
  {
    banner,
    sent = false,
    status = 200
  }: { readonly banner?: Banner | undefined; readonly sent?: boolean; readonly status?: number } = {}
): FastifyReply {
  return page.show('proof', { title: page.words.say('proof.title'), proof: view.proof, begin, banner, sent }, status)
}

export function proofPages (
  { enrolments }: PagesNeed,
  renderer: Renderer,
  { settingsOf }: Overview,
  { changing }: Changes
): FastifyPluginAsyncTypebox {
  return async app => {
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
  }
}
