// The second port: probes, metrics, the OpenAPI document. Never reachable by consoles' users.

import type { FastifyPluginAsync } from 'fastify'
import type { Metrics } from './metrics.ts'

/** One thing the service needs, as `/readyz` shows it. */
export interface Check {
  readonly name: string
  /** Resolves, or rejects with what is wrong. */
  readonly check: () => Promise<void>
  /** A failing one is shown but does not turn readiness red (mail). */
  readonly vital: boolean
}

export interface OperationsNeed {
  readonly checks: readonly Check[]
  readonly draining: () => boolean
  readonly metrics: Metrics
  /** The OpenAPI document of the interface; made on first use. */
  readonly openapi: () => Promise<unknown>
}

export function operationsRoutes ({ checks, draining, metrics, openapi }: OperationsNeed): FastifyPluginAsync {
  return async app => {
    app.get('/livez', async () => ({ status: 'live' }))

    app.get('/readyz', async (_request, reply) => {
      const results = await Promise.all(
        checks.map(async ({ name, check, vital }) => {
          const failed = await check().then(
            () => undefined,
            () => 'unavailable'
          )
          return { name, vital, ok: failed === undefined }
        })
      )
      const ready = !draining() && results.every(result => result.ok || !result.vital)
      return await reply.code(ready ? 200 : 503).send({
        status: draining() ? 'draining' : ready ? 'ready' : 'not_ready',
        checks: Object.fromEntries(results.map(result => [result.name, result.ok ? 'ok' : 'failed']))
      })
    })

    app.get('/metrics', async (_request, reply) => await reply.type(metrics.contentType).send(await metrics.text()))

    app.get(
      '/openapi.json',
      async (_request, reply) => await reply.type('application/json').send(JSON.stringify(await openapi()))
    )
  }
}
