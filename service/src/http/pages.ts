// The hosted pages: the same domain calls as /v1, as HTML for people and JSON for scripts.

import formbody from '@fastify/formbody'
import type { FastifyPluginAsync } from 'fastify'
import { Problem } from '../domain/problems.ts'
import { createRenderer, type PagesNeed } from './pages/page.ts'
import { settingsPages } from './pages/settings.ts'
import { verifyPages } from './pages/verify.ts'
import { problemFrom, sendProblem } from './problem-document.ts'

export function pages (need: PagesNeed): FastifyPluginAsync {
  return async app => {
    const renderer = createRenderer(need)
    await app.register(formbody, { bodyLimit: 64 * 1024 })

    app.setErrorHandler(async (error, request, reply) => {
      if (renderer.wantsJson(request)) return sendProblem(error, request, reply)
      const problem = problemFrom(error)
      if (problem.statusCode >= 500) request.log.error({ err: error }, 'page failed')
      return renderer.failure(request, reply, problem)
    })
    app.setNotFoundHandler(async () => {
      throw new Problem('not_found')
    })

    app.get('/assets/:hash/:name', async (request, reply) => {
      const { name } = request.params as { readonly name: string }
      const asset = renderer.assets.find(one => one.name === name)
      if (asset === undefined) throw new Problem('not_found')
      return await reply
        .headers({
          'content-type': asset.type,
          'cache-control': 'public, max-age=31536000, immutable',
          'x-content-type-options': 'nosniff'
        })
        .send(asset.body)
    })
    await app.register(verifyPages(need, renderer))
    await app.register(settingsPages(need, renderer))
  }
}
