// A new set of backup codes, shown once.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Page, PagesNeed, Renderer } from '../page.ts'
import type { Changes } from './change.ts'
import { showCodes, showConfirm } from './dialogs.ts'

const newCodes = (page: Page) => ({
  title: page.words.say('backup.confirm_title'),
  lines: [page.words.say('backup.confirm_text')],
  submit: page.words.say('backup.confirm_submit'),
  danger: false
})

export function backupCodePages (
  { enrolments }: PagesNeed,
  renderer: Renderer,
  { entered, changing }: Changes
): FastifyPluginAsyncTypebox {
  return async app => {
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
  }
}
