// Composition root: configuration → adapters → domain → routes. Tests override any adapter here.

import { hostname } from 'node:os'
import { createHash, randomUUID } from 'node:crypto'
import fastify, { LogController, type FastifyBaseLogger, type FastifyInstance } from 'fastify'
import { recurring } from './adapters/background.ts'
import { systemClock, unlessEnded } from './adapters/clock.ts'
import { createConnections } from './adapters/connections.ts'
import { createRandomness, createSealer } from './adapters/crypto.ts'
import { createLane } from './adapters/lane.ts'
import { createLogStream } from './adapters/log.ts'
import { createMailer, type RunningMailer } from './adapters/mail.ts'
import { createMemoryPending } from './adapters/memory.ts'
import { openRecords } from './adapters/open-records.ts'
import { connectRedis } from './adapters/redis-client.ts'
import { createRedisCalls } from './adapters/redis-calls.ts'
import { createRedisPending } from './adapters/redis.ts'
import { createSharedClock } from './adapters/shared-clock.ts'
import type { Config } from './config.ts'
import { createAdministration } from './domain/administration.ts'
import { createAssurances } from './domain/assurance.ts'
import { createAttempts } from './domain/attempt.ts'
import { createChallenges } from './domain/challenge.ts'
import { createEnrolments } from './domain/enrolment.ts'
import { FACTORS } from './domain/factors/index.ts'
import type { Factor } from './domain/model.ts'
import { createNotices } from './domain/notices.ts'
import type { Pending } from './domain/pending.ts'
import type { Clock, Randomness, Sealer } from './domain/ports.ts'
import type { Records } from './domain/records.ts'
import { limitAddresses } from './http/address-limit.ts'
import { administrationRoutes } from './http/administration.ts'
import { assurancesRoutes, sessionsRoutes } from './http/assurances.ts'
import { challengesRoutes } from './http/challenges.ts'
import { createChangeStream, READ_EVERY_MS } from './http/changes.ts'
import { createCompilers } from './http/compilers.ts'
import { holderOf, requireKey } from './http/keys.ts'
import { createMetrics } from './http/metrics.ts'
import { createOpenapi } from './http/openapi.ts'
import { operationsRoutes } from './http/operations.ts'
import { pages } from './http/pages.ts'
import { answerProblems } from './http/problem-document.ts'
import { shedLoad } from './http/shedding.ts'
import { subjectsRoutes } from './http/subjects.ts'
import type { TenantConfig } from './tenants.ts'

/** What tests put in place of what the configuration would make. */
export interface Overrides {
  readonly records?: Records
  readonly pending?: Pending
  readonly mailer?: RunningMailer
  readonly randomness?: Randomness
  readonly clock?: Clock
  readonly factors?: readonly Factor[]
  readonly logger?: FastifyBaseLogger
}

export interface App {
  readonly api: FastifyInstance
  readonly operations: FastifyInstance
  readonly records: Records
  readonly pending: Pending
  readonly sealer: Sealer
  /** Called when it listens. Starts the work that comes round: changes, lease, outbox, pruning; and shedding. */
  readonly start: () => void
  /** New rules and keys of tenants, without a restart. Gates are told of whose rules changed. */
  readonly reload: (tenants: readonly TenantConfig[]) => Promise<void>
  /** Rejects when another process took the embedded store over while this one was stopped. */
  readonly leaseLost: Promise<never>
  /** Readiness goes red; requests are still served. */
  readonly drain: () => void
  /** Closes what was opened, in order; resolves when nothing is under way. */
  readonly close: () => Promise<void>
}

/** Another process holds the embedded store. */
export class LeaseHeld extends Error {
  constructor (host: string, pid: number) {
    super(
      `The embedded store is in use by process ${pid} on ${host}. Without POSTERN_REDIS only one process may serve; stop that one first, or configure Redis.`
    )
    this.name = 'LeaseHeld'
  }
}

const LEASE_EVERY_MS = 5_000
const LEASE_STALE_MS = 15_000
const COMPILERS_AFTER_MS = 100

/** Two digests are equal where nothing differs that a gate's answer depends on. */
function digestOf ({ policy, name, issuer }: TenantConfig): string {
  return createHash('sha256').update(JSON.stringify([policy, name, issuer])).digest('base64url')
}

function isAlive (pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

export async function buildApp (config: Config, overrides: Overrides = {}): Promise<App> {
  const own = overrides.clock ?? systemClock
  const randomness = overrides.randomness ?? createRandomness()
  const factors = overrides.factors ?? FACTORS
  const sealer = createSealer({ encryptionKeys: config.encryptionKeys, serverKey: config.serverKey })

  const log = createLogStream(process.stdout)
  const { compilersFactory, loadOnUse, load } = createCompilers()
  const api = fastify({
    ...(overrides.logger === undefined
      ? { logger: { level: config.logLevel, stream: log } }
      : { loggerInstance: overrides.logger }),
    logController: new LogController({ disableRequestLogging: true }),
    // Strict: the string "123456" is a code, the number is not; an unknown field is an error, not a wish.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allErrors: false } },
    schemaController: { compilersFactory },
    bodyLimit: 128 * 1024,
    requestTimeout: 10_000,
    // Slow requests are looked for this often, and found only where the head's time is no longer than the whole's.
    http: { connectionsCheckingInterval: 2_000, headersTimeout: 10_000 },
    keepAliveTimeout: 72_000,
    // What still comes on a connection that is open is answered, not refused.
    return503OnClosing: false,
    genReqId: request => {
      const given = request.headers['x-request-id']
      return typeof given === 'string' && /^[A-Za-z0-9._-]{8,64}$/.test(given) ? given : randomUUID()
    }
  })
  const onError = (what: string) => (error: unknown) => {
    api.log.error({ err: error }, `${what} failed`)
  }

  const records = overrides.records ?? (await openRecords(config, sealer, own.now())).records
  const redis =
    config.redis === undefined || overrides.pending !== undefined ? undefined : await connectRedis(config.redis)
  const pending =
    overrides.pending ??
    (redis === undefined
      ? createMemoryPending({ clock: own, sealer, randomness })
      : createRedisPending({ redis: redis.client, sealer, randomness }))
  // Replicas share Redis and its time; a process that shares nothing has its own.
  const shared = redis === undefined ? undefined : createSharedClock(own, pending.now)
  await shared?.set()
  const clock = shared ?? own
  const mailer =
    overrides.mailer ??
    createMailer({ smtp: config.smtp, from: config.mailFrom, records, sealer, clock, log: api.log })

  const holder = { id: randomUUID(), host: hostname(), pid: process.pid }
  const embedded = redis === undefined && overrides.pending === undefined
  const takeLease = async () => {
    const held = await records.lease.take(holder, clock.now(), LEASE_STALE_MS)
    if (held === undefined) return
    // A process of this host that was killed holds nothing; no need to wait for its lease to grow stale.
    if (
      held.host === holder.host &&
      (held.pid === holder.pid || !isAlive(held.pid)) &&
      (await records.lease.take(holder, clock.now(), -1)) === undefined
    ) { return }
    throw new LeaseHeld(held.host, held.pid)
  }
  let loseLease = (_held: LeaseHeld): void => {}
  const leaseLost = new Promise<never>((_resolve, reject) => { loseLease = reject })
  leaseLost.catch(() => {})
  if (embedded) await takeLease()

  const tenants = new Map<string, TenantConfig>()
  /** Puts the tenants of a configuration in place; who is missing is named, since its users would find nothing. */
  const install = async (given: readonly TenantConfig[]) => {
    const ids = new Set(given.map(tenant => tenant.id))
    const absent = (await records.tenants()).filter(id => !ids.has(id))
    if (absent.length > 0) {
      api.log.warn({ tenants: absent }, 'tenants have enrolments but are missing from the configuration')
    }
    for (const tenant of given) {
      const before = tenants.get(tenant.id)
      const digest = digestOf(tenant)
      tenants.set(tenant.id, tenant)
      const told = await records.changes.rules(tenant.id, digest, clock.now())
      if (before !== undefined && digestOf(before) !== digest && !told) {
        await records.changes.tenantChanged(tenant.id, clock.now())
      }
    }
    for (const id of tenants.keys()) if (!ids.has(id)) tenants.delete(id)
  }
  await install(config.tenants)
  const notices = createNotices({ records, sealer, wake: mailer.wake })
  const attempts = createAttempts({ records, pending, notices })
  const challenges = createChallenges({
    records,
    pending,
    sealer,
    randomness,
    mailer,
    clock,
    notices,
    attempts,
    rarely: createLane({ atOnce: 1, waiting: 1_000, ofOne: 128, rests: true }),
    factors
  })
  const enrolments = createEnrolments({
    records,
    pending,
    sealer,
    randomness,
    mailer,
    clock,
    notices,
    attempts,
    factors
  })
  const assurances = createAssurances({ records, pending, clock, factors })
  const administration = createAdministration({ records, pending, sealer, randomness, clock, notices })

  const stream = createChangeStream({ records, onError: onError('reading changes') })
  const metrics = createMetrics({
    streams: stream.listeners,
    mailQueue: () => mailer.state().queued,
    mailUp: () => Number(mailer.state().ok),
    clockOff: () => (shared?.offMs() ?? 0) / 1000,
    logDropped: log.dropped
  })

  loadOnUse(api)
  const openapi = createOpenapi()
  api.addHook('onRoute', openapi.routeAdded)
  answerProblems(api)
  const shedding = await shedLoad(api, config.shedAfterMs)
  // One client for all of the process; it is closed after the routes, by whom it was made.
  if (redis !== undefined) {
    const { default: fastifyRedis } = await import('@fastify/redis')
    await api.register(fastifyRedis, { client: redis.client, closeClient: false })
  }
  let draining = false
  // Whoever keeps a connection opens the next one elsewhere, so that none is closed under a request.
  api.addHook('onSend', (_request, reply, _payload, done) => {
    if (draining) reply.header('connection', 'close')
    done()
  })
  api.addHook('onResponse', (request, reply, done) => {
    metrics.answered(
      request.routeOptions.url ?? 'unknown',
      request.method,
      reply.statusCode,
      reply.elapsedTime / 1000
    )
    // The route, never the address: ids of challenges stand in it.
    request.log.debug(
      {
        route: request.routeOptions.url,
        method: request.method,
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime)
      },
      'answered'
    )
    done()
  })
  await api.register(async scope => {
    requireKey(scope, () => tenants)
    await limitAddresses(scope, {
      sealer,
      shared: redis === undefined ? undefined : { redis: redis.client, ...createRedisCalls(redis.client) }
    })
    await scope.register(assurancesRoutes({ assurances, sealer }), { prefix: '/v1/assurances' })
    await scope.register(sessionsRoutes({ records, sealer, clock }), { prefix: '/v1/sessions' })
    await scope.register(challengesRoutes({ challenges, sealer, clock }), { prefix: '/v1/challenges' })
    await scope.register(subjectsRoutes({ enrolments, assurances, sealer, clock }), { prefix: '/v1/subjects' })
    await scope.register(stream.routes, { prefix: '/v1/changes' })
    await scope.register(administrationRoutes({ administration, records, clock }), { prefix: '/v1' })
    await scope.register(pages({ challenges, enrolments, assurances, sealer, clock }), { prefix: '/pages' })
  })

  const operations = fastify({ logger: false, schemaController: { compilersFactory } })
  answerProblems(operations)
  await operations.register(
    operationsRoutes({
      checks: [
        { name: 'records', check: records.check, vital: true },
        {
          name: 'pending',
          check: async () => {
            await redis?.policy()
            await pending.check()
          },
          vital: true
        },
        {
          name: 'mail',
          check: async () => {
            if (!mailer.state().ok) throw new Error('mail')
          },
          vital: false
        },
        // Nothing is decided by the host's own clock, so this one only tells.
        ...(shared === undefined ? [] : [{ name: 'clock', check: shared.check, vital: false }])
      ],
      draining: () => draining,
      metrics,
      openapi: openapi.document
    })
  )

  const connections = { api: createConnections(api.server), operations: createConnections(operations.server) }
  const work: { readonly stop: () => Promise<void> }[] = []
  return {
    api,
    operations,
    records,
    pending,
    sealer,
    start: () => {
      shedding.begin()
      // Whoever asks whether we are ready comes first; a request that comes before loads them.
      unlessEnded(COMPILERS_AFTER_MS, () => { load().catch(onError('loading compilers')) })
      work.push(recurring(READ_EVERY_MS, stream.beat, onError('reading changes')))
      if (shared !== undefined) work.push(recurring(1_000, shared.set, onError('reading the shared clock')))
      if (embedded) {
        work.push(
          recurring(LEASE_EVERY_MS, takeLease, error => {
            onError('renewing the lease')(error)
            if (error instanceof LeaseHeld) loseLease(error)
          })
        )
      }
      work.push(
        recurring(
          3_600_000,
          async () => {
            await records.prune(clock.now(), config.eventRetentionDays * 86_400_000)
          },
          onError('pruning')
        )
      )
      mailer.start()
    },
    reload: async given => {
      await install(given)
      // Whose key was taken away hears no more.
      stream.recheck(authorization => holderOf(tenants, authorization) !== undefined)
    },
    leaseLost,
    drain: () => {
      draining = true
    },
    close: async () => {
      draining = true
      stream.close()
      await connections.api.endUntil(api.close())
      await Promise.all(
        work.map(async one => {
          await one.stop()
        })
      )
      await mailer.close()
      if (embedded) await records.lease.release(holder.id).catch(() => {})
      await connections.operations.endUntil(operations.close())
      await pending.close()
      redis?.close()
      await records.close()
      await log.flushed()
    }
  }
}
