// What the gateway shares with the gate that it runs, on the same server.

import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Assurances } from './assurances.ts'
import type { Binding } from './binding.ts'
import type { Answering } from './carry.ts'
import type { Client } from './client.ts'
import type { Passage } from './gate.ts'
import type { About, Who } from './model.ts'
import type { Settings } from './options.ts'
import type { OwnPages } from './own-pages.ts'
import type { Signing } from './page-answers.ts'
import type { PageCookie } from './page-cookie.ts'
import type { Releasing } from './page-proxy.ts'
import type { Seal } from './seal.ts'

/** One client, one binding, one reading of each request. */
export interface Inside {
  readonly client: Client
  readonly assurances: Assurances
  readonly binding: Binding
  readonly pageCookie: PageCookie
  readonly seal: Seal
  readonly tokenInScript: Settings['tokenInScript']
  readonly answering: Answering
  readonly about: (request: FastifyRequest, who: Who) => About
  readonly pages: OwnPages
  readonly passageOf: (raw: IncomingMessage) => Passage | undefined
  readonly addressOf: (raw: IncomingMessage) => string
  /** How the pages read what a gateway held, once its challenge is answered on one of them. */
  readonly releasedBy: (unsealed: Releasing['unsealed']) => void
  /** How somebody without a login logs in on these pages. */
  readonly signedInBy: (signIn: NonNullable<Signing['in']>) => void
  readonly enforcing: () => boolean
}

/** Under this symbol a server keeps it, so that no console reaches it by name. */
export const INSIDE = Symbol('postern.inside')

// The one narrowing of this boundary: decorators under symbols have no merged type.
export function insideOf (app: FastifyInstance): Inside {
  const inside: unknown = Reflect.get(app, INSIDE)
  if (inside === undefined) throw new Error('postern: the plugin is not registered on this server')
  return inside as Inside
}
