// The OpenAPI document, made of the routes when somebody first asks for it: its library is 8 % of a start, and few ask.

import fastify, { type FastifyInstance, type RouteOptions } from 'fastify'

export interface Openapi {
  /** Notes a route of the interface. */
  readonly routeAdded: (route: RouteOptions) => void
  readonly document: () => Promise<unknown>
}

export function createOpenapi (): Openapi {
  const routes: Pick<RouteOptions, 'method' | 'url' | 'schema'>[] = []
  let made: Promise<unknown> | undefined
  return {
    routeAdded: ({ method, url, schema }) => {
      // The framework adds a HEAD to each GET.
      if (method !== 'HEAD') routes.push({ method, url, ...(schema === undefined ? {} : { schema }) })
    },
    document: async () => await (made ??= documentOf(routes))
  }
}

/** The routes once more in a server that only describes them. */
async function documentOf (routes: readonly Pick<RouteOptions, 'method' | 'url' | 'schema'>[]): Promise<unknown> {
  const { default: swagger } = await import('@fastify/swagger')
  const app: FastifyInstance = fastify({ exposeHeadRoutes: false })
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => JSON.stringify)
  await app.register(swagger, {
    // The pages are for people; what they post to is not an interface.
    transform: ({ schema, url }) => ({ schema: url.startsWith('/pages') ? { ...schema, hide: true } : schema, url }),
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Postern', version: '1', description: 'Two-factor verification that several consoles share' }
    }
  })
  for (const route of routes) app.route({ ...route, handler: async () => {} })
  await app.ready()
  return app.swagger()
}
