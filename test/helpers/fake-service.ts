// A small service that speaks docs/interface.md and does what a test tells it: for what the real one cannot be made
// to do.

import { createHash, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Teardown } from './service.ts'

export interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

interface Passed {
  subject: string
  browser: string
  loginAt: number
  stepUpAt: number | null
}
interface Challenge {
  id: string
  purpose: string
  key: string
  returnPath: string | undefined
  left: number
  by: By
}
interface By {
  subject: string
  session: string
  browser: string
}
interface Stream {
  response: ServerResponse
  after: number
}

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

export type Trouble = 'none' | 'hang' | 'unavailable' | 'failing' | 'unauthenticated' | 'nonsense' | 'reset' | 'rate_limited'

/** Subjects are enrolled unless named in `plain`; the right code of everybody is `123456`, and it stays right. */
export async function startFakeService (t: Teardown, options: { readonly heartbeatMs?: number } = {}) {
  const tenantKey = `pk_t1_g1_${randomBytes(24).toString('base64url')}`
  const passed = new Map<string, Passed>()
  const challenges = new Map<string, Challenge>()
  const plain = new Set<string>()
  const mustEnrol = new Set<string>()
  const seen: Seen[] = []
  const streams = new Set<Stream>()
  const changes: { number: number; kind: string; session_ref?: string; subject?: string }[] = []
  const state = {
    trouble: 'none' as Trouble,
    /** Heartbeats and changes are held back, the socket stays open. */
    frozen: false,
    /** Awaited before a question is answered, after its answer was made. */
    beforeAnswer: async (): Promise<void> => {},
    page: undefined as ((request: Seen, response: ServerResponse) => boolean) | undefined,
    /** Seconds that a verified login has left. */
    expiresIn: 86_400
  }

  const key = (by: By): string => `${by.session}\n${by.browser}\n${by.subject}`

  function change (kind: 'session' | 'subject' | 'tenant', name?: string): void {
    changes.push({
      number: changes.length + 1,
      kind,
      ...(kind === 'session' ? { session_ref: name ?? '' } : kind === 'subject' ? { subject: name ?? '' } : {})
    })
    flush()
  }

  function flush (): void {
    if (state.frozen) return
    for (const stream of streams) {
      for (const one of changes.filter(row => row.number > stream.after)) {
        stream.response.write(`event: change\nid: ${one.number}\ndata: ${JSON.stringify(one)}\n\n`)
        stream.after = one.number
      }
    }
  }

  function beat (): void {
    flush()
    if (!state.frozen) { for (const stream of streams) stream.response.write(`event: newest\ndata: {"number":${stream.after}}\n\n`) }
  }

  function answer (by: By) {
    const record = passed.get(by.session)
    if (record !== undefined && record.subject !== by.subject) passed.delete(by.session)
    const good = record !== undefined && record.subject === by.subject && record.browser === by.browser
    const status = plain.has(by.subject)
      ? 'not_required'
      : mustEnrol.has(by.subject)
        ? 'enrolment_required'
        : good
          ? 'verified'
          : 'verification_required'
    return {
      status,
      login: good ? { expires_in: state.expiresIn } : null,
      step_up:
        good && record.stepUpAt !== null
          ? { age: Math.floor((Date.now() - record.stepUpAt) / 1000), factor: 'totp' }
          : null,
      totp: plain.has(by.subject) ? 'not_enabled' : 'enabled',
      session_ref: hash(`ref ${by.session}`),
      change: changes.length
    }
  }

  function open (by: By, purpose: string, returnPath: string | undefined): Challenge {
    const slot = `${key(by)}\n${purpose}`
    const live = [...challenges.values()].find(one => one.key === slot && one.left > 0)
    const challenge = live ?? {
      id: randomBytes(20).toString('base64url'),
      purpose,
      key: slot,
      returnPath,
      left: 5,
      by
    }
    if (returnPath !== undefined) challenge.returnPath = returnPath
    challenges.set(challenge.id, challenge)
    return challenge
  }

  /** Answers a challenge as the service would: the status of the problem, or nothing. */
  function submit (
    challenge: Challenge,
    code: string,
    record: boolean,
    nextBrowser?: string
  ): [number, string, Record<string, unknown>?] | undefined {
    if (challenge.left <= 0) return [410, 'challenge_gone']
    if (!/^\d{6}$/.test(code)) return [400, 'code_malformed']
    challenge.left--
    if (code !== '123456') return [403, 'code_rejected', { attempts_left: challenge.left }]
    challenges.delete(challenge.id)
    const { by } = challenge
    if (challenge.purpose === 'login') {
      passed.set(by.session, {
        subject: by.subject,
        browser: nextBrowser ?? by.browser,
        loginAt: Date.now(),
        stepUpAt: null
      })
    } else if (record) {
      const login = passed.get(by.session)
      if (login !== undefined) login.stepUpAt = Date.now()
    }
    return undefined
  }

  const json = (response: ServerResponse, status: number, body: unknown): void => {
    response.writeHead(status, { 'content-type': status >= 400 ? 'application/problem+json' : 'application/json' })
    response.end(body === undefined ? '' : JSON.stringify(body))
  }
  const problem = (
    response: ServerResponse,
    status: number,
    code: string,
    more: Record<string, unknown> = {}
  ): void => json(response, status, { type: `urn:postern:problem:${code}`, title: code, status, code, ...more })
  const plainText = (name: unknown): string => Buffer.from(String(name ?? ''), 'base64url').toString()

  async function handle (request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part)
    const one: Seen = {
      method: request.method ?? '',
      url: request.url ?? '',
      headers: request.headers,
      body: Buffer.concat(parts).toString()
    }
    seen.push(one)
    switch (state.trouble) {
      case 'hang':
        return
      case 'reset':
        request.socket.destroy()
        return
      case 'unavailable':
        return problem(response, 503, 'unavailable')
      case 'failing':
        return problem(response, 500, 'internal')
      case 'unauthenticated':
        return problem(response, 401, 'unauthenticated')
      case 'nonsense':
        return json(response, 200, { status: 'sure' })
      case 'rate_limited':
        // Questions are not counted.
        if (request.method === 'POST') return problem(response, 429, 'rate_limited', { retry_after: 17 })
    }
    if (request.headers.authorization !== `Bearer ${tenantKey}`) return problem(response, 401, 'unauthenticated')
    const { pathname } = new URL(one.url, 'http://service')
    const body =
      one.headers['content-type']?.startsWith('application/json') === true && one.body !== ''
        ? JSON.parse(one.body)
        : undefined
    const [, , resource = '', id = '', action = ''] = pathname.split('/')

    if (pathname === '/v1/changes') {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const stream = { response, after: Number(request.headers['last-event-id'] ?? changes.length) }
      response.on('close', () => streams.delete(stream))
      streams.add(stream)
      response.write(`event: newest\ndata: {"number":${stream.after}}\n\n`)
      return
    }
    if (resource === 'assurances' && request.method === 'GET') {
      const made = answer({
        subject: plainText(request.headers['postern-subject']),
        session: id,
        browser: String(request.headers['postern-browser'])
      })
      await state.beforeAnswer()
      return json(response, 200, made)
    }
    if (resource === 'assurances' && request.method === 'DELETE') {
      passed.delete(id)
      change('session', hash(`ref ${id}`))
      return json(response, 204, undefined)
    }
    if (resource === 'assurances' && action === 'move') {
      const record = passed.get(id)
      passed.delete(id)
      if (record !== undefined) passed.set(body.to, record)
      return json(response, 200, { moved: record !== undefined })
    }
    if (action === 'credentials-changed') {
      const subject = plainText(id)
      for (const [session, record] of passed) {
        if (record.subject === subject && session !== body.keep?.session) passed.delete(session)
      }
      change('subject', subject)
      return json(response, 204, undefined)
    }
    if (pathname === '/v1/challenges') {
      const { by, purpose, return_path: returnPath, code, record } = body
      const { status } = answer(by)
      if (status === 'enrolment_required') return problem(response, 403, 'enrolment_required')
      if (status === 'not_required') return json(response, 200, { status: 'not_required' })
      if (purpose === 'login' && status === 'verified') return json(response, 200, { status: 'verified' })
      if (purpose === 'step_up' && status !== 'verified') return problem(response, 401, 'login_required')
      const challenge = open(by, purpose, returnPath)
      if (code !== undefined) {
        const wrong = submit(challenge, code, record !== false)
        if (wrong !== undefined) return problem(response, ...wrong)
        return json(response, 200, {
          status: 'accepted',
          verification: {
            assurance: { purpose, factor: 'totp', expires_in: 900, bound_to_next: false, backup_codes_left: null }
          }
        })
      }
      return json(response, 200, {
        status: 'open',
        challenge: {
          id: challenge.id,
          purpose,
          methods: ['totp', 'backup_code'],
          attempts_left: challenge.left,
          expires_in: 600,
          wait_for: 0,
          locked: false,
          masked_address: null,
          mailed: false,
          resend_in: 0,
          csrf: 'token'
        }
      })
    }
    if (pathname.startsWith('/pages/')) return pages(one, pathname.slice('/pages/'.length), response)
    problem(response, 404, 'not_found')
  }

  function pages (request: Seen, rest: string, response: ServerResponse): void {
    if (state.page?.(request, response) === true) return
    const by: By = {
      subject: plainText(request.headers['postern-subject']),
      session: String(request.headers['postern-session']),
      browser: String(request.headers['postern-browser'])
    }
    const html = (text: string): void => {
      response
        .writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'set-cookie': 'service=never' })
        .end(`<!doctype html><title>${text}</title><h1>${text}</h1>`)
    }
    const [page, id = ''] = rest.split('/')
    if (page === 'verify') {
      const challenge = challenges.get(id)
      if (challenge === undefined || key(challenge.by) !== key(by)) return problem(response, 410, 'challenge_gone')
      if (request.method === 'GET') return html('Enter your code')
      const code = new URLSearchParams(request.body).get('code') ?? ''
      const wrong = submit(challenge, code, true, String(request.headers['postern-next-browser']))
      if (wrong !== undefined) return html('That code is not right')
      response
        .writeHead(303, {
          location: challenge.returnPath ?? '/',
          ...(challenge.purpose === 'login' ? { 'postern-bind': 'next' } : {})
        })
        .end()
      return
    }
    if (page === 'settings' || page === 'enrol' || page === 'assets') return html(page)
    problem(response, 404, 'not_found')
  }

  const server = createServer((request, response) => {
    handle(request, response).catch(() => {
      response.destroy()
    })
  })
  await new Promise<void>(resolve => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  const heart = setInterval(beat, options.heartbeatMs ?? 100)
  heart.unref()

  async function close (): Promise<void> {
    clearInterval(heart)
    server.closeAllConnections()
    if (server.listening) await new Promise(resolve => server.close(resolve))
  }
  t.teardown(close)

  return {
    url: `http://127.0.0.1:${port}`,
    tenantKey,
    state,
    seen,
    passed,
    challenges,
    plain,
    mustEnrol,
    streams,
    change,
    flush,
    close,
    /** Questions asked by gates so far. */
    questions: () => seen.filter(one => one.method === 'GET' && one.url.startsWith('/v1/assurances/')).length
  }
}

export type FakeService = Awaited<ReturnType<typeof startFakeService>>
