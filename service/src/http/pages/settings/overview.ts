// The settings at a glance, which every change returns to; notices that wait there.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import { settingsBody } from '../../subjects.ts'
import { Type } from '../../type.ts'
import type { Banner, Page, PagesNeed, Renderer } from '../page.ts'
import type { Changes } from './change.ts'

const NoticeParams = Type.Object(
  { id: Type.String({ pattern: '^[A-Za-z0-9-]{8,64}$' }) },
  { additionalProperties: false }
)

export function createOverview ({ enrolments }: PagesNeed) {
  const settingsOf = async (page: Page) => await enrolments.settings(page.tenant, page.ask)

  const show = async (
    page: Page,
    banner?: Banner,
    { status = 200, address = '' }: { readonly status?: number; readonly address?: string } = {}
  ): Promise<FastifyReply> => {
    const {
      words: { say, date },
      tenant
    } = page
    const view = await settingsOf(page)
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

  return { settingsOf, show }
}

export type Overview = ReturnType<typeof createOverview>

export function overviewPages (
  { enrolments, clock }: PagesNeed,
  renderer: Renderer,
  { settingsOf, show }: Overview,
  { entered, changing }: Changes
): FastifyPluginAsyncTypebox {
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
