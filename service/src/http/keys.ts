// Tenant keys: `Authorization: Bearer pk_<tenant>_<key id>_<secret>` → request.tenant.

import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { checkedSubject } from '../domain/model.ts'
import { Problem } from '../domain/problems.ts'
import type { Clock } from '../domain/ports.ts'
import type { Records } from '../domain/records.ts'
import type { TenantConfig } from '../tenants.ts'
import { fromBase64url } from './ask.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The tenant whose key the call carries. Reading it without a key is a 401. */
    readonly tenant: TenantConfig
    /** The key's id and scope. */
    readonly tenantKey: { readonly id: string; readonly scope: 'gate' | 'admin' }
  }
}

interface Holder {
  readonly tenant: TenantConfig
  readonly key: { readonly id: string; readonly scope: 'gate' | 'admin' }
}

// On the request itself: a weak map of all requests is dear to collect.
const HOLDER = Symbol('holder of the tenant key')

interface Held {
  [HOLDER]?: Holder
}

/** Who a key belongs to; `undefined` for any that is missing, malformed, unknown or of a tenant that is gone. */
export function holderOf (
  tenants: ReadonlyMap<string, TenantConfig>,
  authorization: string | undefined
): Holder | undefined {
  const match = /^Bearer (pk_([a-z0-9-]{1,40})_([a-z0-9-]{1,16})_[A-Za-z0-9_-]{32,64})$/.exec(authorization ?? '')
  const tenant = tenants.get(match?.[2] ?? '')
  const key = tenant?.keys.find(one => one.id === match?.[3])
  if (match === null || tenant === undefined || key === undefined) return undefined
  const digest = hash('sha256', match[1] ?? '', 'buffer')
  return timingSafeEqual(digest, Buffer.from(key.sha256, 'hex')) ? { tenant, key } : undefined
}

/** Adds `request.tenant` to a scope; every route of it needs a key. */
export function requireKey (app: FastifyInstance, tenants: () => ReadonlyMap<string, TenantConfig>): void {
  const of = (request: FastifyRequest & Held): Holder => {
    const holder = request[HOLDER]
    if (holder === undefined) throw new Problem('unauthenticated')
    return holder
  }
  app.decorateRequest('tenant', {
    getter () {
      return of(this).tenant
    }
  })
  app.decorateRequest('tenantKey', {
    getter () {
      return of(this).key
    }
  })
  app.addHook('onRequest', async (request: FastifyRequest & Held) => {
    const holder = holderOf(tenants(), request.headers.authorization)
    if (holder === undefined) throw new Problem('unauthenticated')
    request[HOLDER] = holder
  })
}

/** The subject that a refused call was about, where its path names one that can be. */
function aimedAt (params: unknown): string {
  if (typeof params !== 'object' || params === null || !('subject' in params)) return ''
  return typeof params.subject === 'string' ? checkedSubject(fromBase64url(params.subject)) ?? '' : ''
}

/** A hook for administrative routes: a gate key is refused, and the attempt is kept. */
export function adminOnly ({ records, clock }: { readonly records: Records; readonly clock: Clock }) {
  return async (request: FastifyRequest): Promise<void> => {
    if (request.tenantKey.scope === 'admin') return
    await records.writeEvent(
      request.tenant.id,
      {
        kind: 'administration',
        subject: aimedAt(request.params),
        outcome: 'refused',
        reason: 'gate_key',
        actor: `gate:${request.tenantKey.id}`,
        requestId: request.id
      },
      clock.now()
    )
    throw new Problem('forbidden')
  }
}
