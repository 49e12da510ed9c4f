// The settings pages: status of everything, and each change as a page of its own that works without a script.

import type { FastifyPluginAsync } from 'fastify'
import type { PagesNeed, Renderer } from './page.ts'
import { backupCodePages } from './settings/backup-codes.ts'
import { createChanges } from './settings/change.ts'
import { emailPages } from './settings/email.ts'
import { createOverview, overviewPages } from './settings/overview.ts'
import { proofPages } from './settings/proof.ts'
import { totpPages } from './settings/totp.ts'

export function settingsPages (need: PagesNeed, renderer: Renderer): FastifyPluginAsync {
  const changes = createChanges(need, renderer)
  const overview = createOverview(need)
  return async app => {
    await app.register(overviewPages(need, renderer, overview, changes))
    await app.register(proofPages(need, renderer, overview, changes))
    await app.register(totpPages(need, renderer, overview, changes))
    await app.register(emailPages(need, renderer, overview, changes))
    await app.register(backupCodePages(need, renderer, changes))
  }
}
