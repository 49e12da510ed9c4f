// How often one client address may call. Counted is every call that names one: those that open, send, answer and enrol,
// and the pages, but not the gate's question.

import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Sealer } from '../domain/ports.ts'
import { Problem } from '../domain/problems.ts'
import { readAbout } from './ask.ts'

/** Addresses that are counted at once where this process does it. */
const KEPT = 50_000

export interface AddressLimitNeed {
  readonly sealer: Sealer
  /** What counts for all replicas; without it this process counts. */
  readonly shared:
    | {
      readonly redis: object
      /** Rejects with Problem `unavailable` where the count cannot be had: no count is no pass. */
      readonly twice: <T>(call: () => Promise<T>) => Promise<T>
    }
    | undefined
}

/** The client's address as the console named it, in one spelling; of IPv6 the /64 that one client has. */
export function clientAddress (request: Pick<FastifyRequest, 'body' | 'headers'>): string | undefined {
  const { body, headers } = request
  const header = headers['postern-about']
  const about: unknown =
    typeof header === 'string'
      ? readAbout(header)
      : typeof body === 'object' && body !== null && 'about' in body ? body.about : undefined
  if (typeof about !== 'object' || about === null || !('address' in about)) return undefined
  return typeof about.address === 'string' ? normalizeIP(about.address, 64) : undefined
}

/** Refuses calls of the scope beyond the tenant's limit with Problem `rate_limited`. */
export async function limitAddresses (scope: FastifyInstance, { sealer, shared }: AddressLimitNeed): Promise<void> {
  await scope.register(rateLimit, {
    global: false,
    nameSpace: 'postern:rate:',
    cache: KEPT,
    ...(shared === undefined ? {} : { redis: shared.redis })
  })
  const count = scope.createRateLimit({
    timeWindow: 60_000,
    max: request => request.tenant.policy.limits.callsPerMinute,
    // Addresses are of people: in Redis stands only a keyed name.
    keyGenerator: request => sealer.keyedHash('address', request.tenant.id, clientAddress(request) ?? '')
  })
  scope.addHook('preHandler', async request => {
    if (clientAddress(request) === undefined) return
    const counted = shared === undefined ? await count(request) : await shared.twice(async () => await count(request))
    if (!counted.isAllowed && counted.isExceeded) throw new Problem('rate_limited', { retry_after: counted.ttlInSeconds })
  })
}
