// Web consoles written from their wire formats: what they answer and hand out, and the pages that a browser gets.

import { createHash, randomBytes } from 'node:crypto'
import { startUpstream } from './gateway.ts'
import type { Teardown } from './service.ts'

type Body = Record<string, any> // eslint-disable-line @typescript-eslint/no-explicit-any -- read field by field

/** The console's single page: hash routes, a token in storage, a toast for what went wrong, a reload at `code: 403`. */
const LEJIANWEN_PAGE = `<!doctype html><title>console</title><p id="toast"></p><main></main><script>
async function call (method, path, body) {
  const token = localStorage.getItem('access_token')
  const answer = await fetch('/api/admin' + path, { method, headers: { 'content-type': 'application/json', ...(token ? { 'api-token': token } : {}) }, body })
  const said = await answer.json()
  if (said.code === 0) return said.data
  document.querySelector('#toast').textContent = said.message
  if (said.code === 403) { localStorage.removeItem('access_token'); location.reload() }
  throw new Error(said.message)
}
const main = document.querySelector('main')
async function start () {
  if (localStorage.getItem('access_token') === null) {
    main.innerHTML = '<form><input id="username"><input id="password" type="password"><button>Log in</button></form>'
    main.querySelector('form').onsubmit = async event => {
      event.preventDefault()
      const data = await call('POST', '/login', JSON.stringify({ username: username.value, password: password.value, platform: 'web' }))
      for (const key of ['access_token', 'wc-option:local:access_token']) localStorage.setItem(key, data.token)
      start()
    }
    return
  }
  const { username: name } = await call('GET', '/user/current')
  main.innerHTML = '<h1>Hello ' + name + '</h1><button id="change">Change password</button><p id="saved"></p>'
  change.onclick = async () => { await call('POST', '/user/changeCurPwd', JSON.stringify({ old_password: 'a', new_password: 'b' })); saved.textContent = 'changed' }
}
start().catch(() => {})
</script>`

export async function startLejianwen (t: Teardown) {
  const tokens = new Map<string, string>()
  const upstream = await startUpstream(t, (request, response, body) => {
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(value))
    }
    const issued = (name: string): string => {
      const token = createHash('md5').update(randomBytes(16)).digest('hex')
      tokens.set(token, name)
      return token
    }
    const payload = (name: string, token: string): void => {
      json(200, { code: 0, message: 'success', data: { username: name, email: `${name}@console.example`, avatar: '', token, route_names: ['*'], nickname: '' } })
    }
    void body().then(text => {
      const path = (request.url ?? '').split('?')[0] ?? ''
      const client = tokens.get((request.headers.authorization ?? '').slice(7))
      const admin = tokens.get(String(request.headers['api-token'] ?? ''))
      const fields = (): Body => JSON.parse(text) as Body
      if (path === '/') response.writeHead(302, { location: '/_admin/' }).end()
      else if (path === '/_admin/') response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(LEJIANWEN_PAGE)
      else if (path === '/api/admin/login' || path === '/api/login') {
        const name = String(fields()['username']).toLowerCase().replaceAll(' ', '')
        const right = fields()['password'] === `${name}-password`
        if (path === '/api/login') {
          if (right) json(200, { type: 'access_token', access_token: issued(name), user: { name, email: '', note: '', is_admin: false, status: 1, info: {} } })
          else json(400, { error: 'UsernameOrPasswordError' })
        } else if (right) payload(name, issued(name))
        else json(200, { code: 101, message: 'UsernameOrPasswordError', data: null })
      } else if (path === '/api/admin/user/register') payload(String(fields()['username']), issued(String(fields()['username'])))
      else if (path === '/api/admin/oidc/auth-query') {
        if (request.url?.includes('code=ready') === true) payload('sam', issued('sam'))
        else json(200, { message: 'pending', error: 'No authed oidc is found' })
      } else if (path === '/api/oidc/auth-query') {
        json(200, { type: 'access_token', access_token: issued('sam'), user: { name: 'sam', info: {} } })
      } else if (path.startsWith('/api/admin/')) {
        if (admin === undefined) json(200, { code: 403, message: 'NeedLogin', data: null })
        else if (path === '/api/admin/user/current') payload(admin, request.headers['x-swap'] === undefined ? String(request.headers['api-token']) : issued('alice'))
        else json(200, { code: 0, message: 'success', data: { seen: path, user: admin } })
      } else if (client === undefined) json(401, { error: 'Unauthorized' })
      else if (path === '/api/currentUser') json(200, { name: client, email: '', is_admin: false })
      else json(200, { seen: path, user: client })
    })
  })
  const asked = new Set(['/api/currentUser'])
  return { ...upstream, tokens, reached: () => upstream.hits.filter(hit => !asked.has(hit.url)).map(hit => `${hit.method} ${hit.url}`) }
}

const DJANGO_LOGIN = `<!doctype html><title>login</title><form><input id="account"><input id="password" type="password"><button>Log in</button></form><script>
document.querySelector('form').onsubmit = async event => {
  event.preventDefault()
  const answer = await fetch('/api/user_action?action=login', { method: 'POST', body: new URLSearchParams({ account: account.value, password: password.value }) })
  const said = await answer.json()
  if (said.code === 1) location.href = said.url
}
</script>`

export async function startKingmo888 (t: Teardown) {
  const sessions = new Map<string, string>()
  const tokens = new Map<string, string>()
  const upstream = await startUpstream(t, (request, response, body) => {
    const json = (value: unknown, headers: Record<string, string> = {}): void => {
      response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
    }
    const issued = (name: string): Record<string, string> => {
      const session = randomBytes(16).toString('hex')
      sessions.set(session, name)
      return { 'set-cookie': `sessionid=${session}; HttpOnly; Path=/; SameSite=Lax` }
    }
    void body().then(text => {
      const url = new URL(request.url ?? '/', 'http://console')
      const user = sessions.get(/(?:^|; )sessionid=(\w+)/.exec(request.headers.cookie ?? '')?.[1] ?? '')
      const client = tokens.get((request.headers.authorization ?? '').split('Bearer ').at(-1) ?? '')
      const form = new URLSearchParams(text)
      // A database that folds case, as MySQL does.
      const name = (form.get('account') ?? form.get('username') ?? '').toLowerCase()
      if (url.pathname === '/api/user_action' && request.method === 'GET') response.writeHead(200, { 'content-type': 'text/html' }).end(DJANGO_LOGIN)
      else if (url.pathname === '/api/user_action') {
        if (form.get('password') === `${name}-password`) json({ code: 1, url: '/api/work' }, issued(name))
        else json({ code: 0, msg: 'wrong' })
      } else if (url.pathname === '/admin/login/') {
        if (form.get('password') === `${name}-password`) response.writeHead(302, { location: '/admin/', ...issued(name) }).end()
        else response.writeHead(200, { 'content-type': 'text/html' }).end('wrong')
      } else if (/^\/api\/login/.test(url.pathname)) {
        const { username, password } = JSON.parse(text) as Body
        if (password !== `${username}-password`) { json({ error: 'wrong' }); return }
        const token = randomBytes(16).toString('hex')
        tokens.set(token, String(username))
        json({ access_token: token, type: 'access_token', user: { name: username } })
      } else if (url.pathname === '/api/currentUser') json(client === undefined ? {} : { type: 'access_token', name: client })
      else if (url.pathname.startsWith('/api/ab')) json({ user: client })
      else if (user === undefined) response.writeHead(302, { location: '/api/user_action?action=login' }).end()
      else response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(`<!doctype html><h1>${url.pathname}</h1><div>设备统计 - 【用户名:${user.replace('&', '&amp;')}】</div>`)
    })
  })
  return { ...upstream, sessions, tokens }
}

export async function startLantongxue (t: Teardown) {
  const tokens = new Map<string, string>()
  const upstream = await startUpstream(t, (request, response, body) => {
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    void body().then(text => {
      const given = request.headers.authorization ?? ''
      const user = tokens.get(given.replace(/^Bearer /, ''))
      const login = (): string | undefined => {
        // Keys in any case, of two alike the last, as Go reads them; the type does not matter.
        const fields = JSON.parse(text) as Body
        const read = (wanted: string): unknown =>
          Object.entries(fields).findLast(([key]) => key.toUpperCase() === wanted)?.[1]
        // A database that folds case and ignores spaces at the end.
        const name = String(read('USERNAME')).toLowerCase().trimEnd()
        const password = read('PASSWORD')
        if (password !== `${name}-password`) return undefined
        const token = randomBytes(32).toString('hex')
        tokens.set(token, name)
        return token
      }
      if (request.url === '/') response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>panel</title><h1>panel</h1>')
      else if (request.url === '/admin/auth/captcha') json(200, { code: 200, message: 'ok', data: { id: 'c1', img: 'data:image/png;base64,AA==' } })
      else if (request.url === '/admin/auth/login') {
        const token = login()
        json(200, token === undefined ? { code: 500, message: 'wrong', data: null } : { code: 200, message: 'ok', data: { token } })
      } else if (request.url === '/api/login') {
        const token = login()
        // Everybody is called the same.
        json(200, token === undefined ? { error: 'wrong' } : { type: 'access_token', access_token: token, user: { name: 'The boss', email: '' } })
      } else if (user === undefined) response.writeHead(401).end('Unauthorized')
      else json(200, { code: 200, message: 'ok', data: { seen: request.url, user } })
    })
  })
  return { ...upstream, tokens }
}
