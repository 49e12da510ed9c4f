// Finds out which console answers at an address, by calls that change nothing and carry no login.

import { at } from '../gateway/calls.ts'

export interface Probed {
  /** Name of a preset; undefined: nothing answers there. */
  readonly preset: string | undefined
  /** What could be found out for the preset `generic`. */
  readonly cookie?: string | undefined
  readonly who?: string | undefined
}

interface Heard {
  readonly status: number
  readonly text: string
  readonly cookies: readonly string[]
}

const PATIENCE_MS = 5_000

/** What gives a console away; the first that fits is it. */
const SIGNS: readonly {
  readonly preset: string
  readonly method: string
  readonly path: string
  readonly fits: (heard: Heard) => boolean
}[] = [
  { preset: 'lejianwen', method: 'GET', path: '/api/admin/user/current', fits: ({ text }) => typeof at(parsed(text), 'code') === 'number' && typeof at(parsed(text), 'message') === 'string' },
  { preset: 'kingmo888', method: 'GET', path: '/api/user_action?action=login', fits: ({ status, text }) => status === 200 && text.includes('user_action') },
  { preset: 'lantongxue', method: 'GET', path: '/admin/auth/captcha', fits: ({ text }) => typeof at(parsed(text), 'data.id') === 'string' && typeof at(parsed(text), 'data.img') === 'string' },
  { preset: 'rustdesk', method: 'POST', path: '/api/currentUser', fits: ({ status, text }) => status < 500 && status !== 404 && typeof at(parsed(text), 'error') === 'string' }
]

/** Calls that consoles often have for "who am I". */
const WHO = ['/api/me', '/api/user', '/api/users/me', '/api/v1/me', '/me', '/whoami']

export async function probe (url: string): Promise<Probed> {
  if (await ask(url, 'GET', '/') === undefined) return { preset: undefined }
  for (const { preset, method, path, fits } of SIGNS) {
    const heard = await ask(url, method, path)
    if (heard !== undefined && fits(heard)) return { preset }
  }
  let who: string | undefined
  const cookies = new Set<string>()
  for (const path of ['/', '/login', ...WHO]) {
    const heard = await ask(url, 'GET', path)
    for (const cookie of heard?.cookies ?? []) cookies.add(cookie)
    const refuses = heard?.status === 401 || heard?.status === 403
    const knows = refuses || (heard?.status === 200 && isJson(heard.text))
    if (WHO.includes(path) && knows) who ??= `GET ${path}`
  }
  return { preset: 'generic', who, cookie: [...cookies].find(name => /sess|sid/i.test(name)) ?? [...cookies][0] }
}

async function ask (url: string, method: string, path: string): Promise<Heard | undefined> {
  try {
    const answer = await fetch(url + path, {
      method,
      redirect: 'manual',
      signal: AbortSignal.timeout(PATIENCE_MS),
      headers: { accept: 'application/json, text/html', ...(method === 'POST' ? { 'content-type': 'application/json' } : {}) },
      ...(method === 'POST' ? { body: '{}' } : {})
    })
    const cookies = answer.headers.getSetCookie().map(one => one.split('=', 1)[0] ?? '')
    return { status: answer.status, text: (await answer.text()).slice(0, 65_536), cookies }
  } catch {
    return undefined
  }
}

function isJson (text: string): boolean {
  return parsed(text) !== undefined
}

function parsed (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
