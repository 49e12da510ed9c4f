// Threat: somebody who has a page of another origin, a link or a header, but no second factor. One table a row.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { bindingName, cookies, lines, makeVerified, raw, startConsole, type Answered } from '../helpers/console.ts'
import { BROWSER, DOCUMENT, fieldsOf, FORM, mounted, ORIGIN, OWN_FORM, who } from '../helpers/doors.ts'
import { startFakeService } from '../helpers/fake-service.ts'

t.test('what the browser sends to the console does not reach the service, neither on a page nor on a question', async t => {
  const fake = await startFakeService(t)
  const console = await startConsole(t, { service: { url: fake.url, tenantKey: fake.tenantKey } })
  const sid = 'ann.canary-session'
  const mine = 'canary-binding-12345678'.slice(0, 22)
  makeVerified(fake, sid, mine)
  const names = [
    'X-Secret', 'X-Api-Key', 'X-CSRF-Token', 'Proxy-Authorization', 'X-Forwarded-For', 'X-Forwarded-Host', 'Forwarded', 'Via',
    'X-Real-IP', 'X-Request-Id', 'X-Correlation-Id', 'Traceparent', 'Idempotency-Key', 'If-None-Match', 'Range', 'Pragma', 'TE',
    'Postern-Subject', 'Postern-Session', 'Postern-Browser', 'Postern-Next-Browser', 'Postern-About', 'Postern-Notes',
    'Postern_Subject', 'Postern-Prefix', 'Postern-Lang', 'Referer', 'DNT', 'X-HTTP-Method-Override'
  ]
  const headers = [
    ...names.map(name => `${name}: canary-${name}`),
    `Cookie: sid=${sid}; ${bindingName()}=${mine}; other=canary-cookie; postern-lang=canary-lang; __Host-other=canary-host`,
    'User-Agent: seen-agent'
  ]
  for (const path of ['/2fa/settings', '/2fa/verify', '/2fa/enrol', '/2fa/assets/x/style.css', '/2fa/settings?x=canary-query', '/protected?x=canary-query']) {
    t.not((await raw(console.port, lines('GET', path, [...DOCUMENT, ...headers]))).status, 400, path)
  }
  const posted = await raw(console.port, lines('POST', '/2fa/settings/totp', [...OWN_FORM, ...headers], 'seen=field'))
  t.not(posted.status, 403)
  const text = fake.seen.flatMap(one => [
    one.url, one.body,
    ...Object.entries(one.headers).flatMap(([name, value]) => [`${name}: ${String(value)}`, Buffer.from(String(value), 'base64url').toString()])
  ]).join('\n')
  t.match(text, 'seen-agent', 'the recorder does see what is passed on')
  t.match(text, 'seen=field')
  t.notMatch(text, /canary/i)
  t.notOk(fake.seen.some(one => one.headers.cookie !== undefined), 'no cookie at all')
})

t.test('nor does it stand in the log or the database of the service', async t => {
  const { service, ask, file } = await mounted(t)
  const sid = 'ann.canary-session'
  await service.enrol(who(sid))
  const headers = [`${cookies(sid, BROWSER)}; other=canary-cookie`, 'X-Secret: canary-header', 'User-Agent: seen-agent', 'X-Forwarded-For: canary-address']
  for (const path of ['/protected', '/2fa/settings?x=canary-query', '/2fa/verify']) await ask('GET', path, [...DOCUMENT, ...headers])
  await ask('POST', '/2fa/settings/totp', [...OWN_FORM, ...headers], 'csrf=x')
  const database = ['', '-wal'].map(end => {
    try {
      return readFileSync(file + end, 'latin1')
    } catch {
      return ''
    }
  }).join('')
  t.ok(database.includes(who(sid).session) || database.includes('ann'), 'the database was written where we look')
  t.ok(service.log.length > 0)
  for (const secret of ['canary', BROWSER]) {
    t.notOk(database.includes(secret), `database: ${secret}`)
    t.notOk(service.log.join('').includes(secret), `log: ${secret}`)
  }
})

const ELSEWHERE = [
  '/\\evil.example', '//evil.example', '///evil.example', '\\\\evil.example', '/\t/evil.example', '/\r\n/evil.example', ' //evil.example',
  '\t//evil.example', '/ /evil.example', '/%09/evil.example', '/%20/evil.example', '/%0d%0aLocation:%20//evil.example', '/%5cevil.example',
  '/%2fevil.example', '/.//evil.example', '/..//evil.example', '//127.0.0.1:1@evil.example/', '/@evil.example', '@evil.example',
  'https://evil.example/', 'HTTPS:evil.example', 'http:/\\evil.example', `${ORIGIN}@evil.example/`, `${ORIGIN}.evil.example/`,
  'javascript:alert(1)', 'data:text/html,x', '//evil.example/%2f..', '/\u2028/evil.example', '/\u00a0/evil.example', '//evil%E3%80%82example',
  '/2fa/../../..//evil.example', '/' + 'x'.repeat(600)
]

t.test('no return path leads to another origin, wherever it is put', async t => {
  const fake = await startFakeService(t)
  const console = await startConsole(t, { service: { url: fake.url, tenantKey: fake.tenantKey } })
  let count = 0
  let redirects = 0
  const check = (answer: Answered, what: string): string | undefined => {
    const { location } = answer.headers
    if (location === undefined) return undefined
    redirects++
    t.match(location, /^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/, what)
    t.equal(new URL(location, ORIGIN).origin, ORIGIN, what)
    return location
  }
  for (const target of ELSEWHERE) {
    const [plain, form] = [target.replaceAll(/[\r\n]/g, ''), encodeURIComponent(target)]
    for (const [path, headers] of [
      [plain.includes(' ') || plain.includes('\t') ? '/protected' : Buffer.from(plain).toString('latin1'), []],
      [`/protected?next=${form}`, []],
      ...['target', 'return', 'return_path', 'next', 'url', 'lang'].map(name => [`/2fa/verify?${name}=${form}`, []] as const),
      ['/2fa/verify', [`Referer: ${plain}`]],
      ['/2fa/verify', [`Referer: ${ORIGIN}${plain}`]],
      ['/2fa/verify', [`Referer: ${ORIGIN}/2fa/..${plain}`]],
      [`/2fa${plain.startsWith('/') && !/\s/.test(plain) ? Buffer.from(plain).toString('latin1') : '/x'}?lang=de`, []]
    ] as const) {
      const sid = `ann.${++count}`
      const what = encodeURI([path, ...headers].join(' '))
      const sent = check(await raw(console.port, lines('GET', path, [...DOCUMENT, ...headers, cookies(sid, BROWSER)])), what)
      if (sent?.startsWith('/2fa/verify/') !== true) continue
      const body = `code=123456&target=${form}&return_path=${form}&next=${form}`
      const answer = await raw(console.port, lines('POST', sent, [...OWN_FORM, cookies(sid, BROWSER)], body))
      check(answer, `after the code: ${what}`)
    }
    makeVerified(fake, 'ann.pass', BROWSER)
    const passed = await raw(console.port, lines('POST', '/2fa/own/pass', [...OWN_FORM, cookies('ann.pass', BROWSER)], `2fa-code=123456&target=${form}`))
    t.equal(passed.status, 303, `own/pass: ${form}`)
    check(passed, `own/pass: ${form}`)
  }
  t.ok(redirects > 500, `${redirects} redirects were looked at`)
  t.comment(`open redirect: ${count} requests, ${redirects} redirects`)
})

t.test('a service that sends a browser elsewhere is not followed', async t => {
  const fake = await startFakeService(t)
  const console = await startConsole(t, { service: { url: fake.url, tenantKey: fake.tenantKey } })
  makeVerified(fake, 'ann.1', BROWSER)
  for (const location of ['//evil.example', 'https://evil.example/', '/\\evil.example', '/x']) {
    fake.state.page = (_request, response) => {
      response.writeHead(303, { location }).end()
      return true
    }
    const answer = await raw(console.port, lines('GET', '/2fa/settings', [...DOCUMENT, cookies('ann.1', BROWSER)]))
    t.match([answer.status, answer.headers['location']], location === '/x' ? [303, '/x'] : [502, undefined], location)
  }
})

t.test('every page, redirect and error says that it is not framed, stored or told of elsewhere', async t => {
  const { service, ask } = await mounted(t)
  await service.enrol(who('ann.1'))
  const mine = cookies('ann.1', BROWSER)
  const json = ['Accept: application/json', mine]
  const page = [...DOCUMENT, mine]
  const opened = await ask('GET', '/protected', [...DOCUMENT, cookies('ann.2', BROWSER)])
  const verify = opened.headers['location'] ?? ''
  const challenge = await ask('GET', verify, [...DOCUMENT, cookies('ann.2', BROWSER)])
  const csrf = fieldsOf(await ask('GET', '/2fa/settings', page)).toString()
  const table: Array<readonly [string, Answered]> = [['opened', opened], ['challenge', challenge]]
  for (const path of ['', '/totp', '/totp/remove', '/email', '/email/remove', '/backup-codes', '?lang=de', '/nothing', '/%41', '/../x']) {
    for (const [kind, headers] of [['page', page], ['json', json], ['nobody', DOCUMENT], ['unverified', [...DOCUMENT, cookies('ann.3', BROWSER)]]] as const) {
      table.push([`GET settings${path} ${kind}`, await ask('GET', `/2fa/settings${path}`, headers)])
    }
  }
  for (const path of ['/2fa/verify', '/2fa/verify/AAAAAAAAAAAAAAAAAAAAAAAAAAA', '/2fa/enrol', '/2fa/enrol?lang=zh-CN', '/2fa/assets/x/missing.css', '/2fa/', '/2fa/x', '/settings', '/export', '/protected//x', '/pro;tected']) {
    for (const headers of [page, json]) table.push([`GET ${path}`, await ask('GET', path, headers)])
  }
  for (const path of ['/totp', '/totp/AAAAAAAAAAAAAAAAAAAAAAAAAAA', '/totp/remove', '/email', '/email/remove', '/backup-codes', '/proof', '/nothing']) {
    for (const [kind, headers, body] of [
      ['own', [...OWN_FORM, mine], csrf], ['stale', [...OWN_FORM, mine], 'csrf=x'], ['foreign', [...FORM, mine], csrf]
    ] as const) table.push([`POST settings${path} ${kind}`, await ask('POST', `/2fa/settings${path}`, headers, body)])
  }
  for (const path of [verify, `${verify}/email`, '/2fa/own/pass', '/2fa/session', '/settings', '/2fa/assets/x/style.css']) {
    for (const headers of [[...OWN_FORM, mine], [...FORM, mine]]) table.push([`POST ${path}`, await ask('POST', path, headers, 'code=000000&2fa-code=000000')])
  }
  const [statuses, bad] = [new Set<number>(), [] as string[]]
  for (const [what, answer] of table) {
    statuses.add(answer.status)
    const { headers } = answer
    // A console's own answer, not ours.
    if (answer.body.startsWith('{"route":')) continue
    const html = /html/.test(headers['content-type'] ?? '')
    const wanted: Record<string, string> = {
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'same-origin',
      ...(html ? { 'x-frame-options': 'DENY', 'cross-origin-opener-policy': 'same-origin' } : {})
    }
    for (const [name, value] of Object.entries(wanted)) if (headers[name] !== value) bad.push(`${what} ${answer.status}: ${name}: ${headers[name]}`)
    const policy = headers['content-security-policy'] ?? ''
    if (html && !(policy.includes("default-src 'none'") && policy.includes("frame-ancestors 'none'") && policy.includes("base-uri 'none'") && !/unsafe|\*|https?:/.test(policy))) bad.push(`${what} ${answer.status}: ${policy}`)
    if (html && (/<script(?![^>]*\ssrc=)/.test(answer.body) || /\son[a-z]+="|\sstyle="/.test(answer.body))) bad.push(`${what}: something inline`)
  }
  t.same(bad, [])
  for (const status of [200, 303, 400, 401, 403, 404, 410]) t.ok(statuses.has(status), `an answer with ${status} was looked at`)
  t.comment(`headers: ${table.length} answers`)
})
