// A browser without a page: keeps cookies, follows nothing by itself, fills in a form of ours.

import { once } from 'node:events'
import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'

interface Answered {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly location: string
  readonly text: string
}

/** Keeps cookies and asks as a browser does; redirects are left to the test. */
export function createBrowser (origin: string, url: string) {
  const cookies = new Map<string, string>()

  async function go (path: string, form?: Record<string, string>, accept = 'text/html'): Promise<Answered> {
    // Not fetch(), which sends `sec-fetch-mode: cors` whatever it is told.
    const asking = request(new URL(path, url), {
      method: form === undefined ? 'GET' : 'POST',
      headers: {
        accept,
        origin,
        'sec-fetch-site': 'same-origin',
        'sec-fetch-mode': accept === 'text/html' ? 'navigate' : 'cors',
        cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; '),
        ...(form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' })
      }
    })
    asking.end(form === undefined ? undefined : new URLSearchParams(form).toString())
    const [response] = await once(asking, 'response') as [IncomingMessage]
    for (const line of response.headers['set-cookie'] ?? []) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      cookies.set(name, value)
    }
    const text = Buffer.concat(await response.toArray()).toString()
    return { status: response.statusCode ?? 0, headers: response.headers, location: response.headers.location ?? '', text }
  }

  return {
    go,
    script: async (path: string, form?: Record<string, string>) => await go(path, form, 'application/json'),
    logIn: async (name: string, password: string) => await go('/login', { name, password }),
    /** Types a code into the page that a redirect led to. */
    answer: async (path: string, code: string): Promise<Answered> => {
      const { text: page } = await go(path)
      const hidden = [...page.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)]
      return await go(path, { ...Object.fromEntries(hidden.map(([, name = '', value = '']) => [name, value])), code })
    }
  }
}
