// postern.js in Chromium: the dialog comes before the page learns of a refusal, and the request arrives exactly once.

import { gzipSync } from 'node:zlib'
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { createServer } from 'node:http'
import { until } from '../helpers/browser.ts'
import { listening } from '../helpers/gateway.ts'
import { startScriptConsole } from '../helpers/script-console.ts'

const world = await startScriptConsole(t)
const { console } = world
const post = (url: string, more = ''): string => `fetch('${url}', { method: 'POST', ${more} }).then(async answer => [answer.status, await answer.text()])`
const JSON_BODY = "headers: { 'content-type': 'application/json', 'x-own': 'kept' }, body: JSON.stringify({ name: 'Ann' })"
const hitsFrom = (before: number) => console.hits.slice(before)

t.test('one tag of less than 6 kB', async t => {
  const answer = await fetch(`http://127.0.0.1:${new URL(world.origin).port}/2fa/postern.js`)
  t.equal(answer.headers.get('content-type'), 'text/javascript; charset=utf-8')
  const size = gzipSync(await answer.text()).length
  t.comment(`${size} bytes gzipped`)
  t.ok(size < 6000, `${size} bytes`)
})

t.test('a wrong code, then the right one: the handler ran once, with body and headers, and without the code', async t => {
  const before = console.hits.length
  const { page, start, enter, said, code } = await world.visit(t, '/plain')
  const sent = start(`fetch('/settings', { method: 'PUT', ${JSON_BODY} }).then(async answer => [answer.status, await answer.text()])`)
  const dialog = page.getByRole('dialog', { name: 'Enter your code' })
  await dialog.waitFor()
  t.match(await dialog.innerText(), /You are about to: change your name/)
  t.equal(await page.evaluate('document.activeElement.shadowRoot.activeElement.id'), 'code', 'the field has the focus')
  await enter('12 34')
  await until('the sentence', async () => /does not look like a code/.test(await said()) || undefined)
  await enter('000000')
  await until('the sentence', async () => /not right. 4 tries left/.test(await said()) || undefined)
  t.equal(await dialog.getByRole('textbox').getAttribute('aria-invalid'), 'true')
  t.equal(hitsFrom(before).length, 0)
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'))
  const { violations } = await page.evaluate<{ violations: { id: string }[] }>('axe.run(document, { rules: { region: { enabled: false } } })')
  t.same(violations.map(one => one.id).filter(id => !/^(landmark|page-has)/.test(id)), [])
  await enter(code())
  t.match(await sent.result(), [200, /"step_up"|"age":0/i])
  const [hit, ...more] = hitsFrom(before)
  t.match(hit, { method: 'PUT', body: { name: 'Ann' }, headers: { 'x-own': 'kept', '2fa-code': undefined } })
  t.equal(more.length, 0)
  await dialog.waitFor({ state: 'detached' })
})

t.test('cancelled, the page sees the refusal that came first', async t => {
  const before = console.hits.length
  const { page, start, enter, said } = await world.visit(t, '/plain')
  const sent = start(post('/settings', JSON_BODY))
  await enter('000000')
  await until('the sentence', async () => /4 tries left/.test(await said()) || undefined)
  await page.keyboard.press('Escape')
  const [status, body] = (await sent.result()) as [number, string]
  t.equal(status, 401)
  t.match(JSON.parse(body), { code: 'step_up_required', attempts_left: 5 })
  t.equal(hitsFrom(before).length, 0)
  const again = start(post('/settings', JSON_BODY))
  await page.getByRole('button', { name: 'Cancel' }).click()
  t.match(await again.result(), [401])
})

t.test('requests in parallel share one dialog and one code; where a code is asked each time, each takes its own', async t => {
  const { page, start, enter, code } = await world.visit(t, '/plain')
  const before = console.hits.length
  const shared = start(`Promise.all([${[1, 2, 3].map(() => post('/settings', JSON_BODY)).join()}])`)
  await enter(code())
  t.match(await shared.result(), [[200], [200], [200]])
  t.equal(hitsFrom(before).length, 3)
  const each = start(`Promise.all([${[1, 2].map(() => post('/export', JSON_BODY)).join()}])`)
  await enter(code())
  await until('the first of them', async () => hitsFrom(before).length === 4 || undefined)
  await until('an empty field', async () => await page.getByRole('dialog').getByRole('textbox').inputValue() === '' || undefined)
  await enter(code())
  t.match(await each.result(), [[200], [200]])
  t.equal(hitsFrom(before).length, 5)
})

t.test('what a request carries arrives as it was when it was sent', async t => {
  const bodies: Record<string, [string, RegExp]> = {
    FormData: ["(() => { const form = new FormData(); form.append('a', '1'); form.append('file', new Blob(['hello file']), 'a.txt'); return { body: form } })()", /name="a"\r\n\r\n1\r\n[\s\S]*filename="a.txt"[\s\S]*hello file/],
    Blob: ["{ body: new Blob(['a blob'], { type: 'x/y' }) }", /^a blob$/],
    Request: ["new Request('/settings', { method: 'POST', body: 'of a request', headers: { 'content-type': 'x/y' } })", /^of a request$/],
    buffer: ["(() => { const bytes = new Uint8Array([97, 98]); setTimeout(() => bytes.fill(0)); return { body: bytes, headers: { 'content-type': 'x/y' } } })()", /^ab$/]
  }
  for (const [name, [init, expected]] of Object.entries(bodies)) {
    const { start, enter, code } = await world.visit(t, '/plain')
    const before = console.hits.length
    const call = name === 'Request' ? `fetch(${init})` : `fetch('/settings', { method: 'POST', ...${init} })`
    const sent = start(`${call}.then(answer => answer.status)`)
    await enter(code())
    t.equal(await sent.result(), 200, name)
    t.match(hitsFrom(before).map(one => String(one.body)), [expected], name)
  }
})

t.test('an XMLHttpRequest hears of one answer, in every way it can ask', async t => {
  const xhr = (more: string): string => `new Promise(resolve => {
    const heard = []; const xhr = new XMLHttpRequest()
    xhr.onreadystatechange = () => { if (xhr.readyState === 4) heard.push('ready ' + xhr.status) }
    xhr.addEventListener('load', () => heard.push('load ' + xhr.status))
    xhr.onloadend = () => { heard.push('end'); resolve([heard, xhr.response, xhr.responseType, xhr instanceof XMLHttpRequest]) }
    xhr.onerror = xhr.ontimeout = () => heard.push('error'); xhr.onabort = () => heard.push('abort')
    xhr.open('POST', '/settings'); xhr.setRequestHeader('content-type', 'application/json'); xhr.timeout = 60000
    window.xhr = xhr
    ${more}; xhr.send(JSON.stringify({ name: 'Ann' }))
  })`
  const { page, start, enter, said, code, makeStale } = await world.visit(t, '/plain')
  const before = console.hits.length
  const cancelled = start(xhr("xhr.responseType = 'json'"))
  await enter('000000')
  await until('the sentence', async () => /tries left/.test(await said()) || undefined)
  await page.getByRole('button', { name: 'Cancel' }).click()
  t.match(await cancelled.result(), [['ready 401', 'load 401', 'end'], { code: 'step_up_required' }, 'json', true])
  const aborted = start(xhr(''))
  await page.getByRole('dialog').waitFor()
  await page.evaluate('window.xhr.abort()')
  t.match(await aborted.result(), [['abort', 'end']])
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  t.equal(hitsFrom(before).length, 0)
  for (const type of ['', 'json', 'blob', 'arraybuffer', 'document']) {
    const sent = start(xhr(type === '' ? '' : `xhr.responseType = '${type}'`))
    await enter(code())
    t.match(await sent.result(), { 0: ['ready 200', 'load 200', 'end'], 2: type, 3: true }, type)
    makeStale()
  }
  t.equal(hitsFrom(before).length, 5)
})

t.test('a React app that imports the module, and never sees a key that was typed in the dialog', async t => {
  const { page, enter, code, makeStale } = await world.visit(t, '/react')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByRole('dialog').getByRole('textbox').press('1')
  await enter(code())
  await page.getByText('saved').waitFor()
  t.equal(await page.title(), 'React console')
  makeStale()
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
  await page.getByText('refused with 401').waitFor()
})

t.test('nobody but the gate of this origin is answered, and what a redirect did is not done again', async t => {
  const { page, start, enter, code } = await world.visit(t, '/plain')
  const problem = JSON.stringify({ type: 'urn:postern:problem:step_up_required', code: 'step_up_required', challenge: 'x', methods: ['totp'], csrf: 'c', max_age: 300, verify_url: '/2fa/verify/x' })
  const headers = { 'content-type': 'application/problem+json', 'www-authenticate': 'Bearer error="insufficient_user_authentication"' }
  await page.route('**/evil', async route => { await route.fulfill({ status: 401, headers, body: problem.replace('/2fa/verify/x', '//elsewhere.example/verify/x') }) })
  t.match(await start(post('/evil')).result(), [401])
  const before = console.hits.length
  t.match(await start(post('/moved')).result(), [401], 'a form that was redirected')
  t.same(hitsFrom(before).map(one => one.route), ['moving'])
  t.equal(await page.getByRole('dialog').count(), 0)
  const read = start("fetch('/moved').then(answer => answer.status)")
  await enter(code())
  t.equal(await read.result(), 200)
})

t.test('another origin that speaks like the gate is not answered: no dialog, no second request, no code', async t => {
  const heard: Array<{ method: string | undefined, code: unknown }> = []
  const elsewhere = await listening(t, createServer((request, response) => {
    heard.push({ method: request.method, code: request.headers['2fa-code'] })
    response.writeHead(request.method === 'OPTIONS' ? 204 : 401, {
      'access-control-allow-origin': '*',
      'access-control-allow-headers': '*',
      'access-control-expose-headers': '*',
      'content-type': 'application/problem+json',
      'www-authenticate': 'Bearer error="insufficient_user_authentication"'
    })
    response.end(request.method === 'OPTIONS'
      ? ''
      : JSON.stringify({
        type: 'urn:postern:problem:step_up_required', code: 'step_up_required', challenge: 'x', methods: ['totp'], csrf: 'c', max_age: 300, verify_url: `${world.origin}/2fa/verify/x`
      }))
  }))
  const { page, start, enter, code } = await world.visit(t, '/plain', { bypassCSP: true })
  const own = start(post('/settings', JSON_BODY))
  await enter(code())
  t.match(await own.result(), [200], 'this origin is')
  const there = `${elsewhere}/settings`
  t.match(await start(post(there)).result(), [401])
  t.match(await start(post(there, JSON_BODY)).result(), [401])
  t.equal(await start(`new Promise(resolve => { const xhr = new XMLHttpRequest(); xhr.onloadend = () => resolve(xhr.status); xhr.open('POST', '${there}'); xhr.send('a=1') })`).result(), 401)
  t.equal(await page.getByRole('dialog').count(), 0)
  t.same(heard.filter(({ method }) => method === 'POST'), Array(3).fill({ method: 'POST', code: undefined }), 'each once')
})

for (const bearer of [false, true]) {
  t.test(`a code by mail: shown where it went, sent again after its wait, and good once${bearer ? ', with a token in script' : ''}`, async t => {
    const before = console.hits.length
    const { page, start, enter, said, sid } = await world.visit(t, '/plain', { factor: 'email', bearer })
    const { mails } = world.service
    const headers = bearer ? `headers: { authorization: 'Bearer ${sid}', 'content-type': 'application/json' }, body: '{}'` : JSON_BODY
    const sent = start(post('/settings', headers))
    const dialog = page.getByRole('dialog')
    await dialog.getByRole('status').filter({ hasText: '@' }).waitFor()
    t.match(await dialog.innerText(), /on its way to a•••@c•••\.example/, 'where it went, masked')
    const first = String(mails.at(-1)?.values.code)
    const again = dialog.getByRole('button', { name: /^Send another code/ })
    t.ok(await again.isDisabled(), 'not at once')
    await page.clock.fastForward(61_000)
    world.service.advance(61_000)
    await until('the button', async () => await again.isEnabled() || undefined)
    const count = mails.length
    await again.click()
    await until('another mail', async () => mails.length === count + 1 || undefined)
    await until('its wait', async () => await again.isDisabled() || undefined)
    const second = String(mails.at(-1)?.values.code)
    if (first !== second) {
      await enter(first)
      await until('the sentence', async () => /not right/.test(await said()) || undefined)
    }
    t.equal(hitsFrom(before).length, 0)
    await enter(second)
    t.match(await sent.result(), [200])
    t.match(hitsFrom(before), [{ headers: { '2fa-code': undefined } }])
  })
}

t.test('locked: the dialog says so and lets nothing through, also not the right code', async t => {
  const before = console.hits.length
  const { page, by, start, enter, said, code } = await world.visit(t, '/plain')
  for (let i = 0; i < 10; i++) {
    world.service.advance(3_700_000)
    await world.service.verify(by, 'step_up', '000000')
  }
  const sent = start(post('/settings', JSON_BODY))
  await until('the sentence', async () => /locked/i.test(await said()) || undefined)
  await enter(code())
  await until('the sentence', async () => /locked/i.test(await said()) || undefined)
  t.equal(hitsFrom(before).length, 0)
  await page.getByRole('button', { name: 'Cancel' }).click()
  t.match(await sent.result(), [401])
})

t.test('an AbortSignal ends the waiting with its own reason, and the dialog goes', async t => {
  const before = console.hits.length
  const { page, start, enter, code } = await world.visit(t, '/plain')
  const call = (more: string): string => `(() => {
    window.leaving = new AbortController(); ${more}
    return fetch('/settings', { method: 'POST', body: 'a', signal: window.leaving.signal }).then(() => 'answered', error => String(error))
  })()`
  const sent = start(call(''))
  await page.getByRole('dialog').waitFor()
  await page.evaluate("window.leaving.abort(new Error('the page moved on'))")
  t.equal(await sent.result(), 'Error: the page moved on')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  t.equal(await start(call("window.leaving.abort(new Error('before'))")).result(), 'Error: before')
  t.equal(hitsFrom(before).length, 0)
  const plain = start(post('/settings', JSON_BODY))
  await enter(code())
  t.match(await plain.result(), [200], 'the next one is asked for as ever')
})

t.test('an XMLHttpRequest that runs out of time after the code says so once, and one that uploads tells how far it is', async t => {
  const { page, start, enter, code, makeStale } = await world.visit(t, '/plain')
  const before = console.hits.length
  const xhr = (url: string, more: string): string => `new Promise(resolve => {
    const heard = []; const xhr = new XMLHttpRequest()
    for (const name of ['load', 'error', 'abort', 'timeout']) xhr.addEventListener(name, () => heard.push(name))
    xhr.onloadend = () => resolve([heard, xhr.status])
    xhr.open('POST', '${url}'); ${more}
  })`
  const late = start(xhr('/slow', 'xhr.timeout = 5000; xhr.send()'))
  await page.getByRole('dialog').waitFor()
  await page.clock.fastForward(10_000)
  await enter(code())
  t.same(await late.result(), [['timeout'], 0], 'the time it took to type the code does not count')
  makeStale()
  const size = 1_000_000
  const upload = start(xhr('/settings', `xhr.upload.onprogress = event => heard.push(event.loaded / event.total === 1 ? 'all' : 'part')
    xhr.setRequestHeader('content-type', 'x/y'); xhr.send(new Blob([new Uint8Array(${size})]))`))
  await enter(code())
  const [heard, status] = (await upload.result()) as [string[], number]
  t.equal(status, 200)
  t.ok(heard.includes('all'), heard.join())
  t.same(heard.filter(one => one === 'load'), ['load'])
  t.same(hitsFrom(before).map(({ route, body }) => [route, String(body).length]), [['slow', String(undefined).length], ['sensitive', size]])
})

t.test('a login that is no longer verified goes to the verification page', async t => {
  const { page, start } = await world.visit(t, '/plain')
  await page.context().clearCookies({ name: /postern/ })
  start("fetch('/protected').then(answer => answer.status)")
  await page.waitForURL('**/2fa/verify/*')
  t.equal(await page.getByRole('textbox').count(), 1)
})

t.test('light, dark, narrow and Chinese: nothing is wider than the window, and nothing is refused by the policy', async t => {
  const looks = {
    light: {}, dark: { colorScheme: 'dark' }, narrow: { viewport: { width: 320, height: 640 } }, chinese: { locale: 'zh-CN' }
  } as const
  for (const [name, options] of Object.entries(looks)) {
    const { page, start, enter } = await world.visit(t, '/plain', options)
    if (name === 'chinese') await page.evaluate("document.documentElement.lang = ''")
    start(`fetch('/settings', { method: 'PUT', ${JSON_BODY} })`)
    await enter('000000')
    await page.getByRole('dialog').getByRole('alert').waitFor()
    const box = await page.getByRole('dialog').boundingBox()
    t.ok(box !== null && box.x >= 0 && box.x + box.width <= (page.viewportSize()?.width ?? 0), name)
    if (name === 'chinese') t.match(await page.getByRole('dialog').innerText(), /输入验证码[\s\S]*还可尝试 4 次/)
    if (process.env['POSTERN_TEST_PICTURES'] !== undefined) await page.screenshot({ path: `${process.env['POSTERN_TEST_PICTURES']}/dialog-${name}.png` })
  }
  t.same(world.complaints, [])
})
