// What the gate does while the service is away or slow: for whom it goes on, how it says so to all others, and how
// little it asks of a service that is in trouble.

import { mock } from 'node:test'
import t from 'tap'
import { createAssurances } from '../../plugin/src/assurances.ts'
import { createClient } from '../../plugin/src/client.ts'
import { within } from '../../plugin/src/deadline.ts'
import { whoIs } from '../../plugin/src/gate.ts'
import { binding, cookies, lines, makeVerified, raw, startConsole, type Answered } from '../helpers/console.ts'
import { startFakeService, type Trouble } from '../helpers/fake-service.ts'
import { until } from '../helpers/redis-shapes.ts'
import type { Teardown } from '../helpers/service.ts'

const BROWSER = binding('mine')
const DOCUMENT = ['Accept: text/html', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin']
const FORM = [...DOCUMENT, 'Content-Type: application/x-www-form-urlencoded', 'Origin: http://127.0.0.1:1']
const GRACE_MS = 300_000

/** The gate's questions alone, on a clock that the test moves. */
async function questions (t: Teardown, timeoutMs = 10_000) {
  const fake = await startFakeService(t)
  let time = 0
  const now = (): number => time
  const client = createClient({ service: fake.url, tenantKey: fake.tenantKey, timeoutMs, now })
  const assurances = createAssurances({ client, now, size: 100, graceMs: GRACE_MS })
  t.teardown(async () => { await assurances.stop() })
  const who = (sid: string) => whoIs({ subject: sid.split('.')[0] ?? '', session: sid, kind: 'cookie' }, BROWSER)
  makeVerified(fake, 'ann.1', BROWSER)
  return { fake, assurances, ann: who('ann.1'), who, at: (ms: number) => { time = ms } }
}

t.test('a session that was verified passes for the grace while nobody answers, and not a moment longer', async t => {
  for (const trouble of ['reset', 'unavailable', 'hang'] as const) {
    const { fake, assurances, ann, who, at } = await questions(t, 300)
    t.match(await assurances.ask(ann), { standing: 'passed', grace: false })
    fake.state.trouble = trouble
    at(GRACE_MS - 1)
    t.match(await assurances.ask(ann), { standing: 'passed', grace: true }, trouble)
    t.match(await assurances.ask(who('bob.1')), { standing: 'away' }, 'who was never seen verified')
    t.match(await assurances.ask(who('ann.2')), { standing: 'away' }, 'another session of the same user')
    at(GRACE_MS)
    t.match(await assurances.ask(ann), { standing: 'away' }, trouble)
  }
})

t.test('an answer that is not about the question is no outage: there is no grace, and what was known is forgotten', async t => {
  for (const trouble of ['failing', 'unauthenticated', 'nonsense'] as const) {
    const { fake, assurances, ann, at } = await questions(t)
    await assurances.ask(ann)
    fake.state.trouble = trouble
    at(10_000)
    t.match(await assurances.ask(ann), { standing: 'unclear' }, trouble)
    fake.state.trouble = 'unavailable'
    t.match(await assurances.ask(ann), { standing: 'away' }, `${trouble}, then nobody`)
  }
})

t.test('grace ends with the record, and with every end that this gate saw', async t => {
  const short = await questions(t)
  short.fake.state.expiresIn = 60
  await short.assurances.ask(short.ann)
  short.fake.state.trouble = 'unavailable'
  short.at(59_999)
  t.match(await short.assurances.ask(short.ann), { standing: 'passed', grace: true })
  short.at(60_000)
  t.match(await short.assurances.ask(short.ann), { standing: 'away' }, 'past the end of the record')

  for (const [what, end] of [
    ['log-out', one => { one.assurances.forgetSession('cookie', 'ann.1') }],
    ['changed credentials', one => { one.assurances.forgetSubject('ann') }]
  ] as const satisfies [string, (one: Awaited<ReturnType<typeof questions>>) => void][]) {
    const one = await questions(t)
    await one.assurances.ask(one.ann)
    one.fake.state.trouble = 'unavailable'
    end(one)
    t.match(await one.assurances.ask(one.ann), { standing: 'away' }, what)
  }

  const told = await questions(t)
  told.assurances.start()
  await until('the stream is heard', async () => told.assurances.live())
  await told.assurances.ask(told.ann)
  told.fake.change('subject', 'ann')
  await until('it is forgotten', async () => told.assurances.size() === 0)
  told.fake.state.trouble = 'unavailable'
  t.match(await told.assurances.ask(told.ann), { standing: 'away' }, 'a change that the stream told')
})

t.test('while the service is away everybody else is told when to come back, and nobody is sent in circles', async t => {
  for (const trouble of ['reset', 'unavailable', 'hang'] as const satisfies readonly Trouble[]) {
    const fake = await startFakeService(t)
    const console = await startConsole(t, {
      service: { url: fake.url, tenantKey: fake.tenantKey },
      postern: { timeoutMs: 300 }
    })
    makeVerified(fake, 'ann.1', BROWSER, 1)
    const mine = cookies('ann.1', BROWSER)
    // What a gate learnt before it hears the stream is forgotten when the stream begins.
    await until('the stream is heard', async () => console.app.postern.live())
    t.equal((await raw(console.port, lines('GET', '/protected', [mine]))).status, 200)
    const sent = await raw(console.port, lines('GET', '/protected', [...DOCUMENT, cookies('bob.1', BROWSER)]))
    t.match(sent.headers['location'], /^\/2fa\/verify\//)

    fake.state.trouble = trouble
    const refused = (answer: Answered, what: string): void => {
      t.equal(answer.status, 503, `${trouble}: ${what}`)
      t.match(answer.headers['retry-after'], /^[1-9]\d*$/, what)
      t.notOk('location' in answer.headers, what)
    }
    const pages = [sent.headers['location'] ?? '', '/2fa/verify', '/2fa/settings', '/2fa/enrol']
    for (const target of ['/protected', '/settings', '/nowhere', ...pages]) {
      const page = await raw(console.port, lines('GET', target, [...DOCUMENT, cookies('bob.1', BROWSER)]))
      refused(page, target)
      t.match(page.headers['content-type'], /^text\/html/, target)
      const script = await raw(console.port, lines('GET', target, ['Accept: application/json', cookies('bob.1', BROWSER)]))
      refused(script, target)
      t.match(JSON.parse(script.body), { status: 503, code: 'unavailable' }, target)
    }
    for (const target of ['/protected', sent.headers['location'] ?? '']) {
      refused(await raw(console.port, lines('POST', target, [...FORM, cookies('bob.1', BROWSER)], 'code=123456')), `a form to ${target}`)
    }
    t.equal((await raw(console.port, lines('GET', '/protected', [mine]))).status, 200, 'who was verified goes on')
    t.equal((await raw(console.port, lines('GET', '/', [cookies('bob.1', BROWSER)]))).status, 200, 'public stays public')
    t.equal((await raw(console.port, lines('GET', '/protected'))).status, 200, 'and the console\'s own login can be reached')
    for (const more of [[], ['2fa-code: 123456']]) {
      refused(await raw(console.port, lines('POST', '/export', [...more, mine])), 'there is no step-up by grace')
    }
    t.same(console.routes(), ['protected', 'protected', 'home', 'protected'])
    fake.state.trouble = 'none'
    await until('it is asked again', async () => (await raw(console.port, lines('GET', '/protected', [cookies('bob.1', BROWSER)]))).status === 401)
  }
})

t.test('there is no step-up by grace, however fresh the last one is', async t => {
  const fake = await startFakeService(t)
  const console = await startConsole(t, { service: { url: fake.url, tenantKey: fake.tenantKey } })
  await until('the stream is heard', async () => console.app.postern.live())
  makeVerified(fake, 'ann.1', BROWSER, 1)
  const status = async (target: string): Promise<number> =>
    (await raw(console.port, lines('GET', target, [cookies('ann.1', BROWSER)]))).status
  t.equal(await status('/settings'), 200)
  fake.state.trouble = 'unavailable'
  fake.state.frozen = true
  await until('what was remembered is too old to pass a step-up', async () => await status('/settings') === 503, 20_000)
  t.equal(await status('/protected'), 200, 'login goes on')
  t.equal(await status('/inside'), 503, 'a handler that asks for one gets none either')
})

/** A console that counts what has come to its gate. */
async function counted (t: Teardown, timeoutMs: number) {
  const fake = await startFakeService(t)
  let come = 0
  const console = await startConsole(t, {
    service: { url: fake.url, tenantKey: fake.tenantKey },
    postern: { timeoutMs },
    before: app => {
      app.addHook('onRequest', async () => { come++ })
    }
  })
  // A question that is under way when the stream begins is asked anew.
  await until('the stream is heard', async () => console.app.postern.live())
  const ask = async (sid: string): Promise<Answered> => await raw(console.port, lines('GET', '/protected', [cookies(sid, BROWSER)]), 60_000)
  return { fake, console, ask, allHaveCome: async (many: number) => { await until('all have come', async () => come === many) } }
}

t.test('many requests of one session are one question', async t => {
  const { fake, console, ask, allHaveCome } = await counted(t, 10_000)
  makeVerified(fake, 'ann.1', BROWSER)
  let release = (): void => {}
  const slow = new Promise<void>(resolve => { release = resolve })
  fake.state.beforeAnswer = async () => { await slow }
  const answers = Promise.all(Array.from({ length: 100 }, async () => await ask('ann.1')))
  await allHaveCome(100)
  release()
  t.same([...new Set((await answers).map(({ status }) => status))], [200])
  t.equal(console.hits.length, 100)
  t.equal(fake.questions(), 1)
})

t.test('a service that hangs is asked so many questions at once and no more, and everybody is answered', async t => {
  const { fake, console, ask, allHaveCome } = await counted(t, 2_000)
  fake.state.trouble = 'hang'
  const answers = Promise.all(Array.from({ length: 400 }, async (_, index) => await ask(`ann.${index}`)))
  await allHaveCome(400)
  const answered = await answers
  t.same([...new Set(answered.map(({ status }) => status))], [503])
  t.ok(answered.every(({ headers }) => /^[1-9]\d*$/.test(headers['retry-after'] ?? '')))
  t.same(console.hits, [])
  t.ok(fake.questions() >= 1)
  // The 64 that were under way, those that the first time-out let through before the next was noticed, and no queue.
  t.ok(fake.questions() <= 128, `${fake.questions()} of 400`)
  fake.state.trouble = 'none'
  await until('it is asked again', async () => (await ask('ann.1')).status === 401)
})

t.test('asking for more than fits is no outage: without the stream, nobody goes on by grace because others crowd', async t => {
  const { fake, assurances, ann, who, at } = await questions(t)
  await assurances.ask(ann)
  at(10_000)
  let release = (): void => {}
  const slow = new Promise<void>(resolve => { release = resolve })
  fake.state.beforeAnswer = async () => { await slow }
  const crowd = Promise.all(Array.from({ length: 320 }, async (_, index) => await assurances.ask(who(`bob.${index}`))))
  await until('the service is full', async () => fake.questions() === 65)
  t.match(await assurances.ask(ann), { standing: 'away' })
  release()
  for (const { standing } of await crowd) t.equal(standing, 'verification_required')
  t.match(await assurances.ask(ann), { standing: 'passed', grace: false })
})

t.test('a deadline ends work that goes on, and nothing of it is left behind work that is done', async t => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => { mock.timers.reset() })
  const signals: AbortSignal[] = []
  const asking = async (work: (signal: AbortSignal) => Promise<string>) => await within(100, async signal => {
    signals.push(signal)
    return await work(signal)
  })
  t.equal(await asking(async () => 'answered'), 'answered')
  await t.rejects(asking(async () => { throw new Error('refused') }), { message: 'refused' })
  const hanging = asking(async signal => await new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => { reject(new Error('late')) })
  }))
  mock.timers.tick(99)
  t.equal(signals[2]?.aborted, false)
  mock.timers.tick(1_000)
  await t.rejects(hanging, { message: 'late' })
  t.strictSame(signals.map(one => one.aborted), [false, false, true])
})
