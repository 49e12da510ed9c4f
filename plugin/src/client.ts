// The service's HTTP interface, as narrow as a gate needs it: deadlines and bounded concurrency.

import { answerOf, openedOf, parsed, problemOf, recordedSubjectOf, verifiedOf, type Reply } from './answers.ts'
import { within } from './deadline.ts'
import type { About, Answer, Asked, By, Opened, Verified } from './model.ts'

export interface Client {
  readonly question: (by: By, exempt: string | undefined) => Promise<Asked<Answer>>
  readonly open: (ask: OpenAsk) => Promise<Asked<Opened>>
  /** Answers a challenge; `key` makes an equal repeat get the same answer. */
  readonly verify: (ask: VerifyAsk) => Promise<Asked<Verified>>
  /** The subject recorded with a session; `problem` with status 404 where there is none. */
  readonly subjectOf: (session: string) => Promise<Asked<string>>
  readonly move: (session: string, to: string) => Promise<Asked<null>>
  readonly end: (session: string) => Promise<Asked<null>>
  readonly credentialsChanged: (subject: string, keep: By | undefined) => Promise<Asked<null>>
  readonly page: (ask: PageAsk) => Promise<Asked<PageAnswer>>
  /** The stream of changes; ends with the signal. */
  readonly changes: (after: number | undefined, signal: AbortSignal) => Promise<Response>
}

export interface OpenAsk {
  readonly by: By
  readonly purpose: 'login' | 'step_up'
  readonly about: About
  readonly returnPath?: string | undefined
  /** A login answer that is kept with the challenge, sealed. Always opens a challenge of its own. */
  readonly held?: string | undefined
  readonly code?: string | undefined
  readonly record?: boolean | undefined
}

export interface VerifyAsk {
  readonly challenge: string
  readonly by: By
  readonly about: About
  readonly code: string
  readonly key: string
  /** Keyed name of the browser that the assurance will belong to. */
  readonly nextBrowser?: string | undefined
}

export interface PageAsk {
  readonly method: string
  /** Below `/pages/`, canonical. */
  readonly rest: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer | undefined
}

export interface PageAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: Buffer
}

export interface ClientOptions {
  readonly service: string
  readonly tenantKey: string
  readonly timeoutMs: number
  readonly now: () => number
  readonly fetch?: typeof fetch
}

/** Calls that are under way at once; further ones wait in a queue, and past that are told that the service is away. */
const IN_FLIGHT = 64
const QUEUE = 256
/** After a call that nobody answered, others are not tried for so long. */
const PAUSE = 500
const PAGE_LIMIT = 2_000_000

export function createClient ({ service, tenantKey, timeoutMs, now, fetch: call = fetch }: ClientOptions): Client {
  const authorization = `Bearer ${tenantKey}`
  const waiting: (() => void)[] = []
  let inFlight = 0
  let awayUntil = -Infinity

  async function bounded<T> (work: () => Promise<Asked<T>>): Promise<Asked<T>> {
    if (now() < awayUntil) return away()
    if (inFlight >= IN_FLIGHT) {
      if (waiting.length >= QUEUE) return { ...away(), busy: true }
      await new Promise<void>(resolve => waiting.push(resolve))
      if (now() < awayUntil) {
        waiting.shift()?.()
        return away()
      }
    }
    inFlight++
    try {
      const asked = await work()
      if (asked.outcome === 'away') awayUntil = now() + PAUSE
      return asked
    } finally {
      inFlight--
      waiting.shift()?.()
    }
  }

  async function json<T> (
    method: string,
    path: string,
    headers: Record<string, string>,
    body: unknown,
    read: (reply: Reply) => T | undefined
  ): Promise<Asked<T>> {
    return await bounded(async () => {
      let retryAfter: string | null = null
      let reply: Reply | undefined
      try {
        reply = await within(timeoutMs, async signal => {
          const response = await call(service + path, {
            method,
            redirect: 'manual',
            signal,
            headers: {
              authorization,
              accept: 'application/json',
              ...(body === undefined ? {} : { 'content-type': 'application/json' }),
              ...headers
            },
            ...(body === undefined ? {} : { body: JSON.stringify(body) })
          })
          if (gone(response.status)) {
            await response.body?.cancel()
            retryAfter = response.headers.get('retry-after')
            return undefined
          }
          const text = await response.text()
          return { status: response.status, body: text === '' ? undefined : parsed(text) }
        })
      } catch {
        // Refused, reset, timed out: nobody answered.
      }
      if (reply === undefined) return away(retryAfter)
      const answer = reply.status >= 200 && reply.status < 300 ? read(reply) : undefined
      return answer === undefined ? { outcome: 'problem', problem: problemOf(reply) } : { outcome: 'answer', answer }
    })
  }

  return {
    question: async (by, exempt) =>
      await json(
        'GET',
        `/v1/assurances/${by.session}`,
        {
          'postern-subject': base64url(by.subject),
          'postern-browser': by.browser,
          ...(exempt === undefined ? {} : { 'postern-exempt': exempt })
        },
        undefined,
        reply => (reply.status === 200 ? answerOf(reply.body) : undefined)
      ),

    open: async ({ by, purpose, about, returnPath, held, code, record }) =>
      await json(
        'POST',
        '/v1/challenges',
        {},
        {
          by,
          purpose,
          about,
          ...(returnPath === undefined ? {} : { return_path: returnPath }),
          ...(held === undefined ? {} : { held }),
          ...(code === undefined ? {} : { code }),
          ...(record === undefined ? {} : { record })
        },
        reply => openedOf(reply.body)
      ),

    verify: async ({ challenge, by, about, code, key, nextBrowser }) =>
      await json(
        'POST',
        `/v1/challenges/${challenge}/verification`,
        { 'idempotency-key': key },
        { by, about, code, ...(nextBrowser === undefined ? {} : { next_browser: nextBrowser }) },
        reply => (reply.status === 200 ? verifiedOf(reply.body) : undefined)
      ),

    subjectOf: async session =>
      await json('GET', `/v1/sessions/${session}`, {}, undefined, reply => recordedSubjectOf(reply.body)),

    move: async (session, to) => await json('POST', `/v1/assurances/${session}/move`, {}, { to }, () => null),
    end: async session => await json('DELETE', `/v1/assurances/${session}`, {}, undefined, () => null),
    credentialsChanged: async (subject, keep) =>
      await json(
        'POST',
        `/v1/subjects/${base64url(subject)}/credentials-changed`,
        {},
        keep === undefined ? {} : { keep },
        () => null
      ),

    page: async ({ method, rest, headers, body }) =>
      await bounded(async () => {
        try {
          return await within(timeoutMs * 4, async signal => {
            const response = await call(`${service}/pages/${rest}`, {
              method,
              redirect: 'manual',
              signal,
              headers: { ...headers, authorization },
              ...(body === undefined ? {} : { body: new Uint8Array(body) })
            })
            // A 503 that is a page of the service's own says more than ours; one without is a proxy's.
            if (gone(response.status) && !(response.headers.get('content-type') ?? '').startsWith('text/html')) {
              await response.body?.cancel()
              return away(response.headers.get('retry-after'))
            }
            const bytes = Buffer.from(await response.arrayBuffer())
            if (bytes.length > PAGE_LIMIT) return away()
            return { outcome: 'answer', answer: { status: response.status, headers: response.headers, body: bytes } }
          })
        } catch {
          return away()
        }
      }),

    changes: async (after, signal) =>
      await call(`${service}/v1/changes`, {
        redirect: 'manual',
        signal,
        headers: {
          authorization,
          accept: 'text/event-stream',
          ...(after === undefined ? {} : { 'last-event-id': String(after) })
        }
      })
  }
}

export function base64url (text: string): string {
  return Buffer.from(text).toString('base64url')
}

function away (retryAfter?: string | null): { readonly outcome: 'away'; readonly retryAfter: number } {
  const seconds = Number(retryAfter ?? '')
  return { outcome: 'away', retryAfter: Number.isInteger(seconds) && seconds > 0 && seconds <= 600 ? seconds : 5 }
}

function gone (status: number): boolean {
  return status === 502 || status === 503 || status === 504
}
