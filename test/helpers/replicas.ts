// Several served replicas of one service, each call to the next of them, and people who are enrolled there.

import { request } from 'node:http'
import { dataFolder, serve, settingsIn } from './processes.ts'
import { by, totpCode, type Teardown, type WireBy } from './service.ts'

export const STEP_MS = 30_000
/** No answer may take longer. The product's own bounds are far below: this machine does other things too. */
export const ANSWER_MS = 20_000

export interface Answered {
  /** 0: the connection broke, or nothing came in time. */
  readonly status: number
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- bodies are looked into by tests, field by field
  readonly body: any
  readonly retryAfter: string | undefined
  readonly ms: number
}

/** One call over a connection of its own, so that no call meets a socket that another fault left behind. */
async function call (
  url: string,
  key: string,
  method: string,
  body?: unknown,
  headers: Record<string, string> = {}
): Promise<Answered> {
  const began = performance.now()
  return await new Promise(resolve => {
    const done = (status: number, text = '', retryAfter?: string): void => {
      let parsed: unknown = {}
      try { parsed = JSON.parse(text) } catch { /* no document */ }
      resolve({ status, body: parsed, retryAfter, ms: performance.now() - began })
    }
    const asking = request(url, {
      agent: false,
      method,
      signal: AbortSignal.timeout(ANSWER_MS),
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers
      }
    }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', data => { text += String(data) })
        .on('end', () => { done(response.statusCode ?? 0, text, response.headers['retry-after']) })
        .on('error', () => { done(0) })
    })
    asking.on('error', () => { done(0) }).end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export const encoded = (subject: string): string => Buffer.from(subject).toString('base64url')

/** A code that is wrong now and in the next steps too. */
export function wrongCode (key: string, salt: number): string {
  const right = new Set([-3, -2, -1, 0, 1, 2, 3].map(off => totpCode(key, Date.now() + off * STEP_MS)))
  for (let code = salt % 1_000_000; ; code = (code + 7919) % 1_000_000) {
    const text = String(code).padStart(6, '0')
    if (!right.has(text)) return text
  }
}

export type Replica = Awaited<ReturnType<typeof serve>>

/** Replicas of one service, and one caller of them all. */
export async function startReplicas (
  t: Teardown,
  more: Readonly<Record<string, string>>,
  { count = 3, folder = dataFolder(t) }: { count?: number, folder?: string } = {}
) {
  const { settings, gate, admin } = settingsIn(folder, {
    // A machine that runs all of this at once is late for other reasons than load.
    POSTERN_SHED_AFTER_MS: '10000',
    ...more
  }, { limits: { calls_per_minute: 100_000 } })
  const died: string[] = []
  const start = async (): Promise<Replica> => {
    const replica = await serve(t, settings)
    void replica.ended.then(({ code, signal, out }) => { died.push(`${code ?? signal}: ${out.slice(-2_000)}`) })
    return replica
  }
  const replicas: Replica[] = [await start()]
  const others = Array.from({ length: count - 1 }, start)
  replicas.push(...await Promise.all(others))
  let turn = 0
  /** By the replica whose turn it is, or by the one that is named. */
  const ask = async (
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
    index = turn++
  ) =>
    await call((replicas[index % replicas.length] as Replica).url + path, gate, method, body, headers)
  const ready = async (): Promise<boolean> => {
    const probes = await Promise.all(replicas.map(async one => await call(`${one.operations}/readyz`, gate, 'GET')))
    return probes.every(({ status }) => status === 200)
  }
  return {
    settings,
    gate,
    admin,
    replicas,
    ask,
    ready,
    /** How each replica ended that did, with its last words. */
    died,
    restart: async (index: number) => { replicas[index] = await start() },
    open: async (who: WireBy, index?: number) =>
      await ask('POST', '/v1/challenges', { by: who, purpose: 'login' }, {}, index),
    answer: async (who: WireBy, id: string, code: string, key?: string, index?: number) =>
      await ask('POST', `/v1/challenges/${id}/verification`, { by: who, code },
        key === undefined ? {} : { 'idempotency-key': key }, index),
    question: async (who: WireBy, index?: number) =>
      await ask('GET', `/v1/assurances/${who.session}`, undefined,
        { 'postern-subject': encoded(who.subject), 'postern-browser': who.browser }, index),
    asAdmin: async (method: string, path: string, body?: unknown) =>
      await call((replicas[turn++ % replicas.length] as Replica).url + path, admin, method, body)
  }
}

export type Replicas = Awaited<ReturnType<typeof startReplicas>>

export interface Person {
  readonly name: string
  readonly key: string
  readonly backupCodes: readonly string[]
  /** The last time step whose code went out; none is ever sent for a second login. */
  step: number
  /** By step: the challenges that its code was accepted for. */
  readonly accepted: Map<number, Set<string>>
}

/** Enrols somebody with the code of the step before, so that the next two are still good. */
export async function enrolled (service: Replicas, name: string): Promise<Person> {
  const who = by(name, `enrolment of ${name}`)
  const path = `/v1/subjects/${encoded(name)}/totp`
  for (;;) {
    const begun = await service.ask('POST', path, { by: who })
    if (begun.status !== 200) throw new Error(`begin: ${begun.status} ${JSON.stringify(begun.body)}`)
    const step = Math.floor(Date.now() / STEP_MS) - 1
    const code = totpCode(begun.body.key, step * STEP_MS)
    const confirmed = await service.ask('POST', `${path}/${begun.body.id}/confirm`, { by: who, code })
    if (confirmed.status === 200) {
      return { name, key: begun.body.key, backupCodes: confirmed.body.backup_codes, step, accepted: new Map() }
    }
    // The step may have ended on the way; what is counted for that is cleared by the next success.
    if (confirmed.body.code !== 'code_rejected') throw new Error(`confirm: ${confirmed.status} ${JSON.stringify(confirmed.body)}`)
  }
}
