// The real service on embedded adapters, with a clock that tests move and a mailbox they read. Verbs, not HTTP details.

import { createHash, randomBytes } from 'node:crypto'
import { Secret, TOTP } from 'otpauth'
import { pino } from 'pino'
import { buildApp, type App, type Overrides } from '../../service/src/app.ts'
import { readConfig } from '../../service/src/config.ts'
import type { Mail } from '../../service/src/domain/ports.ts'

/** What tap's `t` offers for cleaning up. */
export interface Teardown {
  readonly teardown: (fn: () => unknown) => void
}

export interface WireBy {
  readonly subject: string
  readonly session: string
  readonly browser: string
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | number | string[] | undefined>>
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- bodies are looked into by tests, field by field
  readonly body: any
  readonly text: string
}

const name43 = (text: string) => createHash('sha256').update(text).digest('base64url')

/** A wire `by`: any words do for session and browser. */
export function by (subject: string, session = `session of ${subject}`, browser = `browser of ${subject}`): WireBy {
  return { subject, session: name43(session), browser: browser === 'none' ? 'none' : name43(browser) }
}

export const name = name43

/** A code for the key at an instant, made by another library than the product's. */
export function totpCode (key: string, at: number): string {
  return new TOTP({ secret: Secret.fromBase32(key), digits: 6, period: 30 }).generate({ timestamp: at })
}

export function tenantKey (tenant: string, id: string): { readonly key: string; readonly sha256: string } {
  const key = `pk_${tenant}_${id}_${randomBytes(32).toString('base64url')}`
  return { key, sha256: createHash('sha256').update(key).digest('hex') }
}

/** Keeps what would be mailed, so that a test can read it. */
function mailboxMailer (mails: Mail[]): NonNullable<Overrides['mailer']> {
  return {
    code: mail => {
      mails.push(mail)
      return true
    },
    wake: () => {},
    start: () => {},
    close: async () => {},
    state: () => ({ ok: true, queued: 0 })
  }
}

export interface StartOptions {
  /** Settings of the tenant `t1`, as in the configuration file. */
  readonly tenant?: Record<string, unknown>
  readonly overrides?: Overrides
  readonly database?: string
  readonly env?: Record<string, string>
  /** Mail goes out by SMTP as `env` says, instead of into `mails`. */
  readonly smtp?: boolean
}

export async function startService (t: Teardown, options: StartOptions = {}) {
  // Five seconds into a time step, and still: no test depends on when in a step it happens to run.
  const start = Math.floor(Date.now() / 30_000) * 30_000 + 5_000
  let offset = 0
  const clock = { now: () => start + offset }
  const mails: Mail[] = []
  const keys = {
    gate: tenantKey('t1', 'g1'),
    admin: tenantKey('t1', 'a1'),
    other: tenantKey('t2', 'g1'),
    otherAdmin: tenantKey('t2', 'a1')
  }
  const secrets = {
    POSTERN_ENCRYPTION_KEYS: `k1:${randomBytes(32).toString('base64')}`,
    POSTERN_SERVER_KEY: `s1:${randomBytes(32).toString('base64')}`
  }
  const config = readConfig({
    ...secrets,
    POSTERN_DATABASE: options.database ?? 'sqlite::memory:',
    POSTERN_LOG_LEVEL: 'silent',
    // What a busy machine does to a test is no load of the service.
    POSTERN_SHED_AFTER_MS: '10000',
    POSTERN_TENANTS: JSON.stringify([
      {
        id: 't1',
        name: 'Console One',
        keys: [
          { id: 'g1', scope: 'gate', sha256: keys.gate.sha256 },
          { id: 'a1', scope: 'admin', sha256: keys.admin.sha256 }
        ],
        ...options.tenant
      },
      {
        id: 't2',
        name: 'Console Two',
        keys: [
          { id: 'g1', scope: 'gate', sha256: keys.other.sha256 },
          { id: 'a1', scope: 'admin', sha256: keys.otherAdmin.sha256 }
        ]
      }
    ]),
    ...options.env
  })
  const log: string[] = []
  const app: App = await buildApp(config, {
    clock,
    ...(options.smtp === true ? {} : { mailer: mailboxMailer(mails) }),
    logger: pino(
      { level: 'debug' },
      {
        write: (line: string) => {
          log.push(line)
        }
      }
    ),
    ...options.overrides
  })
  await app.api.ready()
  await app.operations.ready()
  t.teardown(async () => {
    await app.close()
  })

  const call = async (
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    url: string,
    body?: unknown,
    headers: Record<string, string> = {}
  ): Promise<Answer> => {
    const response = await app.api.inject({
      method,
      url,
      headers: { authorization: `Bearer ${keys.gate.key}`, ...headers },
      ...(body === undefined
        ? {}
        : {
            payload: JSON.stringify(body),
            headers: { authorization: `Bearer ${keys.gate.key}`, 'content-type': 'application/json', ...headers }
          })
    })
    let parsed: unknown
    try {
      parsed = response.payload === '' ? undefined : JSON.parse(response.payload)
    } catch {
      parsed = undefined
    }
    return { status: response.statusCode, headers: response.headers, body: parsed, text: response.payload }
  }
  const encoded = (subject: string) => Buffer.from(subject).toString('base64url')
  const admin = { authorization: `Bearer ${keys.admin.key}` }

  const open = async (who: WireBy, purpose: 'login' | 'step_up' = 'login', more: Record<string, unknown> = {}) =>
    await call('POST', '/v1/challenges', { by: who, purpose, ...more })
  const answer = async (
    who: WireBy,
    id: string,
    code: string,
    more: Record<string, unknown> = {},
    headers: Record<string, string> = {}
  ) => await call('POST', `/v1/challenges/${id}/verification`, { by: who, code, ...more }, headers)
  const question = async (who: WireBy, headers: Record<string, string> = {}) =>
    await call('GET', `/v1/assurances/${who.session}`, undefined, {
      'postern-subject': encoded(who.subject),
      'postern-browser': who.browser,
      ...headers
    })
  const begin = async (who: WireBy, more: Record<string, unknown> = {}) =>
    await call('POST', `/v1/subjects/${encoded(who.subject)}/totp`, { by: who, ...more })
  const confirm = async (who: WireBy, id: string, code: string, more: Record<string, unknown> = {}) =>
    await call('POST', `/v1/subjects/${encoded(who.subject)}/totp/${id}/confirm`, { by: who, code, ...more })

  return {
    app,
    config,
    /** The keys as settings, for another process or service on the same data. */
    secrets,
    clock,
    mails,
    log,
    keys,
    admin,
    call,
    encoded,
    open,
    answer,
    question,
    begin,
    confirm,
    /** Moves the clock of the service, embedded store included. */
    advance: (ms: number) => {
      offset += ms
    },
    /** The next time step, so that a code of the last one is not needed twice. */
    nextStep: () => {
      offset += 30_000
    },
    code: (key: string, stepsOff = 0) => totpCode(key, clock.now() + stepsOff * 30_000),
    /** Enrols TOTP for a subject that has nothing, from `who`; answers its key and backup codes. */
    enrol: async (
      who: WireBy,
      more: Record<string, unknown> = {}
    ): Promise<{ readonly key: string; readonly backupCodes: readonly string[] }> => {
      const begun = await begin(who, more)
      if (begun.status !== 200) throw new Error(`begin: ${begun.text}`)
      const confirmed = await confirm(who, begun.body.id, totpCode(begun.body.key, clock.now()))
      if (confirmed.status !== 200) throw new Error(`confirm: ${confirmed.text}`)
      return { key: begun.body.key, backupCodes: confirmed.body.backup_codes }
    },
    /** Turns e-mail login verification on. */
    enrolEmail: async (who: WireBy, address: string): Promise<void> => {
      const begun = await call('POST', `/v1/subjects/${encoded(who.subject)}/email`, { by: who, address })
      if (begun.status !== 200) throw new Error(`begin: ${begun.text}`)
      const confirmed = await call('POST', `/v1/subjects/${encoded(who.subject)}/email/${begun.body.id}/confirm`, {
        by: who,
        code: mails.at(-1)?.values.code
      })
      if (confirmed.status !== 200) throw new Error(`confirm: ${confirmed.text}`)
    },
    /** Opens a challenge and answers it. */
    verify: async (
      who: WireBy,
      purpose: 'login' | 'step_up',
      code: string,
      more: Record<string, unknown> = {}
    ): Promise<Answer> => {
      const opened = await open(who, purpose)
      if (opened.body.status !== 'open') return opened
      return await answer(who, opened.body.challenge.id, code, more)
    }
  }
}

export type Service = Awaited<ReturnType<typeof startService>>
