// Threat: somebody with the password, or with a copied session id, gets through by what the owner proved. Real service.

import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { binding, boundIn, cookies, identifyBySid, lines, makeVerified, raw, startConsole, type Answered } from '../helpers/console.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import { startService, type Teardown } from '../helpers/service.ts'
import { browserName, sessionName } from '../../plugin/src/binding.ts'

const ORIGIN = 'http://127.0.0.1:1'
const DOCUMENT = ['Accept: text/html', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin']
const FORM = [...DOCUMENT, 'Content-Type: application/x-www-form-urlencoded', `Origin: ${ORIGIN}`]

async function everything (t: Teardown, more: object = {}) {
  const service = await startService(t)
  await service.app.api.listen({ port: 0, host: '127.0.0.1' })
  service.app.start()
  const url = `http://127.0.0.1:${(service.app.api.server.address() as AddressInfo).port}`
  const console = await startConsole(t, {
    service: { url, tenantKey: service.keys.gate.key },
    postern: { timeoutMs: 10_000 },
    after: (app: FastifyInstance) => {
      app.post('/rotate', async (request, reply) => {
        const { from, to } = request.query as { readonly from: string, readonly to: string }
        await reply.posternRotate(from, to)
        return {}
      })
    },
    ...more
  })
  const who = (sid: string, browser: string) => ({
    subject: identifyBySid({ cookies: { sid } } as never)?.subject ?? '',
    session: sessionName('cookie', sid),
    browser: browserName(browser)
  })
  const ask = async (method: string, target: string, headers: readonly string[], body = ''): Promise<Answered> =>
    await raw(console.port, lines(method, target, headers, body), 20_000)
  const get = async (sid: string, browser?: string, target = '/protected'): Promise<number> =>
    (await ask('GET', target, [cookies(sid, browser)])).status
  /** Goes to the page that asks for a code; answers its path and the hidden fields of its form. */
  async function page (sid: string, browser: string, target = '/protected') {
    const sent = await ask('GET', target, [...DOCUMENT, cookies(sid, browser)])
    const location = sent.headers['location'] ?? ''
    const shown = await ask('GET', location, [...DOCUMENT, cookies(sid, browser)])
    const fields = new URLSearchParams()
    for (const [input] of shown.body.matchAll(/<input[^>]*type="hidden"[^>]*>/g)) {
      fields.append(/name="([^"]*)"/.exec(input)?.[1] ?? '', /value="([^"]*)"/.exec(input)?.[1] ?? '')
    }
    return { location, fields, status: shown.status }
  }
  type Page = Awaited<ReturnType<typeof page>>
  const submit = async (sid: string, browser: string, at: Page, code: string): Promise<Answered> => {
    const fields = new URLSearchParams(at.fields)
    fields.set('code', code)
    return await ask('POST', at.location, [...FORM, cookies(sid, browser)], fields.toString())
  }
  const boundBy = boundIn
  /** The code was accepted: the browser got a fresh binding. */
  const accepted = (answer: Answered, browser: string): boolean => ![undefined, browser].includes(boundBy(answer))
  return { service, console, who, ask, get, page, submit, boundBy, accepted }
}

t.test('cookies that were copied before the code was typed are worth nothing, nor are those of another browser', async t => {
  const { service, console, who, get, page, submit, boundBy, accepted } = await everything(t)
  const { key } = await service.enrol(who('ann.0', binding('enrolled')))
  service.nextStep()
  const before = binding('before')
  const at = await page('ann.1', before)
  t.equal(at.status, 200)
  const answer = await submit('ann.1', before, at, service.code(key))
  t.ok(accepted(answer, before))
  const after = boundBy(answer) ?? ''
  t.not(after, before, 'a fresh binding comes with the answer')
  t.equal(await get('ann.1', after), 200)
  t.equal(await get('ann.1', before), 401, 'the copy from before')
  t.equal(await get('ann.1'), 401, 'the session id alone')
  t.equal(await get('ann.1', binding('thief')), 401, 'the session id in another browser')
  t.equal(await get('ann.2', after), 401, 'another session in the same browser')
  t.equal(await get('bob.1', after), 200, 'somebody without a factor, in this browser, as himself')
  t.same(console.routes(), ['protected', 'protected'])
})

t.test('a challenge answers for who opened it: not for another user, session or browser, and a link opens nothing twice', async t => {
  const { service, who, ask, get, page, submit, boundBy, accepted } = await everything(t)
  const keys = { ann: (await service.enrol(who('ann.0', binding('e')))).key, mal: (await service.enrol(who('mal.0', binding('e')))).key }
  service.nextStep()
  const [mine, theirs] = [binding('ann\'s'), binding('mal\'s')]
  const at = await page('ann.1', mine)
  const trap = await page('mal.1', theirs)
  for (const [sid, browser] of [['mal.1', theirs], ['ann.1', theirs], ['ann.2', mine], ['mal.1', mine]] as const) {
    const own = await page(sid, browser)
    const swapped = { ...own, location: at.location }
    for (const key of [keys.ann, keys.mal]) {
      t.notOk(accepted(await submit(sid, browser, swapped, service.code(key)), browser), `${sid} with the challenge of ann`)
    }
  }
  const led = await submit('ann.1', mine, { ...at, location: trap.location }, service.code(keys.ann))
  t.notOk(accepted(led, mine), 'ann sent to a page that mal opened')
  for (const [sid, browser] of [['ann.1', mine], ['ann.1', theirs], ['mal.1', theirs], ['mal.1', mine]] as const) t.not(await get(sid, browser), 200, sid)
  const answer = await submit('ann.1', mine, at, service.code(keys.ann))
  t.ok(accepted(answer, mine), 'her own still counts, and her code was not used up')
  const after = boundBy(answer) ?? ''
  t.equal(await get('ann.1', after), 200)
  service.nextStep()
  t.notOk(accepted(await submit('ann.1', after, at, service.code(keys.ann)), after), 'the same link once more')
  t.not((await ask('GET', at.location, [...DOCUMENT, cookies('ann.2', after)])).status, 303)
  t.equal(await get('ann.2', after), 401)
})

t.test('a session fixed before login gains nothing, and another login in it is challenged anew', async t => {
  let current = 'ann'
  const { service, who, ask, get, page, submit, boundBy } = await everything(t, {
    postern: {
      timeoutMs: 10_000,
      identify: (request: Parameters<typeof identifyBySid>[0]) => {
        const id = identifyBySid(request)
        return id === null ? null : current === '' ? { session: id.session, kind: 'cookie', subject: null } : { ...id, subject: current }
      }
    }
  })
  const key = (await service.enrol(who('ann.0', binding('e')))).key
  await service.enrol(who('bob.0', binding('e')))
  service.nextStep()
  const planted = binding('planted')
  const answer = await submit('x.1', planted, await page('x.1', planted), service.code(key))
  const owner = boundBy(answer) ?? ''
  t.equal(await get('x.1', owner), 200)
  t.equal(await get('x.1', planted), 401, 'who planted the session and the binding')
  current = 'bob'
  t.equal(await get('x.1', owner), 401, 'B in the same session and browser is challenged')
  current = 'ann'
  t.equal(await get('x.1', owner), 401, 'and what A had passed there has ended')
  service.nextStep()
  const again = boundBy(await submit('x.1', owner, await page('x.1', owner), service.code(key))) ?? ''
  t.equal(await get('x.1', again), 200)
  current = ''
  t.equal((await ask('GET', '/', [cookies('x.1', again)])).status, 200, 'logged out')
  current = 'ann'
  t.equal(await get('x.1', again), 401, 'and in again with the same session id')
})

t.test('a console that gives out a new session id at login, after verification and at step-up asks for one code each', async t => {
  const { service, who, ask, get, page, submit, boundBy } = await everything(t)
  const { key } = await service.enrol(who('ann.0', binding('e')))
  service.nextStep()
  const first = binding('first')
  t.equal((await ask('POST', '/rotate?from=anonymous.1&to=ann.1', [])).status, 200, 'at login: nothing had passed')
  const bound = boundBy(await submit('ann.1', first, await page('ann.1', first), service.code(key))) ?? ''
  t.equal((await ask('POST', '/rotate?from=ann.1&to=ann.2', [cookies('ann.1', bound)])).status, 200, 'after verification')
  t.equal(await get('ann.2', bound), 200, 'no second code')
  t.equal(await get('ann.1', bound), 401, 'the old id opens nothing')
  service.nextStep()
  const stepped = await ask('POST', '/settings', [cookies('ann.2', bound), 'Content-Type: application/json', `2fa-code: ${service.code(key)}`], '{}')
  t.equal(stepped.status, 200)
  t.equal((await ask('POST', '/rotate?from=ann.2&to=ann.3', [cookies('ann.2', bound)])).status, 200, 'at step-up')
  t.equal(await get('ann.3', bound, '/settings'), 200, 'the step-up moved along')
  t.equal(await get('ann.2', bound), 401)
  t.equal(await get('ann.3', binding('thief')), 401, 'and only for this browser')
})

t.test('a console whose session changes hands while the service is asked: what is kept is kept for whom it was asked', async t => {
  const fake = await startFakeService(t)
  // One object for the session, which the console changes at login.
  const user = { subject: 'ann', session: 'ann.1', kind: 'cookie' }
  const console = await startConsole(t, {
    service: { url: fake.url, tenantKey: fake.tenantKey },
    postern: { identify: () => user }
  })
  const browser = binding('a browser')
  const get = async (): Promise<number> =>
    (await raw(console.port, lines('GET', '/protected', [cookies('ann.1', browser)]))).status
  for (const round of ['first seen', 'known from before']) {
    makeVerified(fake, 'ann.1', browser)
    fake.state.beforeAnswer = async () => { user.subject = 'bob' }
    t.equal(await get(), 200, round)
    fake.state.beforeAnswer = async () => {}
    user.subject = 'ann'
    t.equal(await get(), 200)
    await console.app.postern.credentialsChanged('ann')
    t.equal(await get(), 401, 'nothing of ann is kept under another name')
  }
})
