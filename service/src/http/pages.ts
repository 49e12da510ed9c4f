import type { FastifyPluginAsync } from 'fastify'

export function pages (_: unknown): FastifyPluginAsync {
  return async () => {}
}
