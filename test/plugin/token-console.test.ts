// A console that keeps its token in script: a cookie stands for the token on the plugin's pages, and nowhere else.

import { randomBytes } from 'node:crypto'
import t from 'tap'
import { createPageCookie } from '../../plugin/src/page-cookie.ts'
import { createSeal, type SealKey } from '../../plugin/src/seal.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import { binding, bindingName, lines, makeVerified, raw, startConsole } from '../helpers/console.ts'
import type { Teardown } from '../helpers/service.ts'

const DOCUMENT = ['Accept: text/html', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin']
const OWN = ['Origin: http://127.0.0.1:1']
const BROWSER = binding('one')

async function both (t: Teardown, tokenInScript: object | null = { key: 'access_token' }) {
  const fake = await startFakeService(t)
  const console = await startConsole(t, {
    service: { url: fake.url, tenantKey: fake.tenantKey },
    postern: {
      ...(tokenInScript === null ? {} : { tokenInScript: tokenInScript as never }),
      credentials: {},
      identify: request => {
        const token = /^Bearer (\w+\.\w+)$/.exec(request.headers.authorization ?? '')?.[1]
        return token === undefined ? null : { subject: token.split('.')[0] ?? '', session: token, kind: 'bearer' }
      }
    }
  })
  return { fake, console }
}

const valueOf = (cookies: readonly string[], part: string): string =>
  cookies.find(cookie => cookie.includes(part))?.split(';')[0]?.split('=').slice(1).join('=') ?? ''

t.test('a token handed over once opens the pages, and only the pages', async t => {
  const { fake, console } = await both(t)
  const bearer = 'Authorization: Bearer ann.1'
  t.equal((await raw(console.port, lines('GET', '/protected', [bearer]))).status, 401)

  const page = await raw(console.port, lines('GET', '/2fa/settings', DOCUMENT))
  t.equal(page.status, 401)
  t.match(page.body, /data-key="access_token" data-header="Authorization" data-scheme="Bearer "/)
  t.match(page.headers['content-security-policy'], /connect-src 'self'/)
  t.match((await raw(console.port, lines('GET', '/2fa/own/session.js', []))).body, /localStorage/)

  t.equal((await raw(console.port, lines('POST', '/2fa/session', OWN))).status, 401, 'nobody')
  t.equal((await raw(console.port, lines('POST', '/2fa/session', [bearer]))).status, 403, 'from nowhere')
  t.equal((await raw(console.port, lines('POST', '/2fa/session', [bearer, 'Origin: http://evil.example']))).status, 403)
  const given = await raw(console.port, lines('POST', '/2fa/session', [...OWN, bearer]))
  t.equal(given.status, 200)
  t.match(JSON.parse(given.body), { verify_url: '/2fa/verify', settings_url: '/2fa/settings' })
  t.equal(given.cookies.length, 2)
  for (const cookie of given.cookies) t.match(cookie, /^__Host-postern-.*; Path=\/; Secure; HttpOnly; SameSite=Lax/)
  t.notMatch(given.cookies.join(), /ann/)
  const sealed = valueOf(given.cookies, 'postern-page-')
  const bound = valueOf(given.cookies.filter(cookie => !cookie.includes('postern-page-')), 'postern-')
  const pageName = bindingName().replace('postern-', 'postern-page-')
  const cookies = `Cookie: ${pageName}=${sealed}; ${bindingName()}=${bound}`

  const verify = await raw(console.port, lines('GET', '/2fa/verify', [...DOCUMENT, cookies, 'Referer: http://127.0.0.1:1/devices?x=1']))
  t.equal(verify.status, 303)
  t.match(verify.headers['location'], /^\/2fa\/verify\/[\w-]+$/)
  const opened = fake.seen.find(one => one.url === '/v1/challenges')
  t.match(JSON.parse(opened?.body ?? ''), { by: { subject: 'ann' }, return_path: '/devices?x=1' })

  makeVerified(fake, 'ann.1', bound, undefined, 'bearer')
  const settings = await raw(console.port, lines('GET', '/2fa/settings', [...DOCUMENT, cookies]))
  t.equal(settings.status, 200)
  t.ok(settings.cookies.some(cookie => cookie.includes('postern-page-')), 'renewed while the pages are used')

  t.equal((await raw(console.port, lines('GET', '/protected', [cookies]))).status, 200, 'to the console it is nobody')
  t.same(console.hits.map(one => one.body), [undefined])
  t.notOk(JSON.stringify(console.hits).includes('"subject"'), 'and the handler learns of nobody')
  t.equal((await raw(console.port, lines('GET', '/protected', [bearer, `Cookie: ${bindingName()}=${bound}`]))).status, 200)
  t.equal((await raw(console.port, lines('GET', '/protected', [bearer, `Cookie: ${bindingName()}=${BROWSER}`]))).status, 401)
})

t.test('a sealed cookie that is old, changed, doubled or of another tenant stands for nobody', async t => {
  let now = 0
  const old = { id: 'old', key: randomBytes(32) }
  const ring = (...keys: readonly SealKey[]) => createSeal(keys, 'pk_t1_a_secret')
  const parts = { tenant: 't1', seal: ring(old), insecure: false, today: () => now }
  const cookie = createPageCookie(parts)
  const value = cookie.cookie({ subject: 'ann', session: 's', kind: 'bearer', exempt: 'sso' }).split(';')[0] ?? ''
  const read = (header: string, by = cookie) => by.read({ headers: { cookie: header } } as never)
  t.match(read(`a=b; ${value}; c=d`), { subject: 'ann', session: 's', kind: 'bearer' })
  t.equal(read(value)?.exempt, undefined, 'an exemption does not travel')
  now = 599_999
  t.ok(read(value))
  now = 600_000
  t.equal(read(value), undefined)
  now = 0
  for (const wrong of [`${value}; ${value}`, `${value}x`, value.slice(0, -4), `${cookie.name}=`, '', 'x=y', value.replace('=', '=A')]) {
    t.equal(read(wrong), undefined)
  }
  const fresh = { id: 'new', key: randomBytes(32) }
  t.match(read(value, createPageCookie({ ...parts, seal: ring(fresh, old) })), { subject: 'ann' }, 'a ring opens what its older key sealed')
  for (const other of [ring(fresh), ring({ ...fresh, id: 'old' }), ring()]) t.equal(read(value, createPageCookie({ ...parts, seal: other })), undefined)
  t.equal(read(value, createPageCookie({ ...parts, tenant: 't2' })), undefined)
  t.equal(read(value.replace(/=.*/, `=${ring(old).close('held', '{"until":9e15}')}`)), undefined, 'sealed for another thing')
  const insecure = createPageCookie({ ...parts, insecure: true })
  t.match(insecure.cookie({ subject: 'a', session: 's', kind: 'bearer' }), /^postern-page-\w+=[\w.-]+; Path=\/; HttpOnly/)
  t.equal(read(value.replace('__Host-', ''), insecure), undefined, 'the name is sealed in')
  t.throws(() => cookie.cookie({ subject: 'a', session: 's'.repeat(4000), kind: 'bearer' }), /too long for a cookie/)
})

t.test('a console with a session cookie hands nothing over', async t => {
  const { console } = await both(t, null)
  const page = await raw(console.port, lines('GET', '/2fa/settings', DOCUMENT))
  t.notMatch(page.body, 'data-token')
  t.match(page.body, 'Nobody is logged in')
})
