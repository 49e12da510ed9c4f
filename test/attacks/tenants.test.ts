// Threat: whoever holds one tenant's keys reads or changes what is another's. Every call of the interface, with names
// that some key or separator in a store could take for another tenant's.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { by, startService } from '../helpers/service.ts'

interface Call {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly path: string
}

const OPENAPI = new URL('../../docs/openapi.json', import.meta.url)
const NAMES = ['t1}', '{t1', 't1', 'a:b', 't1:ann', '{t1}:ann', 'ANN', 'ann ', 'ａnn', '*', '%', '../ann', 'ann\' OR 1=1 --']

function calls (): readonly Call[] {
  const document: { readonly paths: Record<string, Record<string, unknown>> } = JSON.parse(readFileSync(OPENAPI, 'utf8'))
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => ({ method: method.toUpperCase() as Call['method'], path })))
}

t.test('with the keys of another tenant no call reads or changes anything of this one', async t => {
  const s = await startService(t)
  const ann = by('ann')
  const { key } = await s.enrol(ann)
  s.nextStep()
  const open = by('ann', 'a second session')
  const challenge: string = (await s.open(open)).body.challenge.id
  const bob = by('bob')
  const enrolment: string = (await s.begin(bob)).body.id
  const mine = async (): Promise<unknown> => [
    ...await Promise.all(['ann', 'bob'].map(async one => (await s.call('GET', `/v1/subjects/${s.encoded(one)}`)).body)),
    (await s.call('GET', `/v1/subjects/${s.encoded('ann')}/sessions`, undefined, s.admin)).body,
    (await s.call('GET', '/v1/events?limit=200', undefined, s.admin)).body,
    (await s.call('GET', `/v1/sessions/${ann.session}`, undefined, s.admin)).status,
    (await s.question(ann)).body.status,
    (await s.question(open)).body.status,
    s.mails.length
  ]
  const before = JSON.stringify(await mine())
  t.match(before, /"verified"/, 'there is something to read and to lose')
  const secrets = [ann.session, open.session, key]
  let sent = 0
  const reached = new Set<string>()
  for (const subject of ['ann', 'bob', ...NAMES]) {
    for (const { method, path } of calls()) {
      if (path === '/v1/changes') continue
      const who = { ...ann, subject }
      const asked = { ...open, subject }
      const actor = 'mallory'
      const body = path.endsWith('/move')
        ? { to: by('x').session }
        : path === '/v1/challenges'
          ? { by: asked, purpose: 'login', code: s.code(key) }
          : path.endsWith('/verification') || path.endsWith('/confirm')
            ? { by: path.endsWith('/confirm') ? { ...bob, subject } : asked, code: s.code(key) }
            : path.endsWith('/requirement')
              ? { actor, from: null }
              : path.endsWith('/address')
                ? { actor, address: null }
                : path.endsWith('/rename')
                  ? { actor, to: 'somebody else' }
                  : path.endsWith('/credentials-changed')
                    ? {}
                    : /\/(?:unlock|reset|enrolment-code)$/.test(path) || (method === 'DELETE' && path === '/v1/subjects/{subject}')
                      ? { actor }
                      : { by: who }
      const url = path
        .replace('{subject}', s.encoded(subject))
        .replace('{session}', ann.session)
        .replace('{id}', challenge)
        .replace('{enrolment}', enrolment)
      for (const bearer of [s.keys.other.key, s.keys.otherAdmin.key]) {
        const answer = await s.call(method, url, method === 'GET' || (method === 'DELETE' && path.includes('assurances')) ? undefined : body, {
          authorization: `Bearer ${bearer}`,
          'postern-subject': s.encoded(subject),
          'postern-browser': ann.browser,
          'idempotency-key': 'the-same-key-everywhere'
        })
        sent++
        if (answer.status < 500 && answer.status !== 400) reached.add(`${method} ${path}`)
        t.ok(answer.status < 500, `${method} ${path} ${answer.status}`)
        t.not(answer.body?.status, 'verified', `${method} ${path} as ${subject}`)
        t.notOk(/\/(?:verification|confirm)$/.test(path) && answer.status < 400, `${method} ${path} opens nothing`)
        for (const secret of secrets) t.notOk(answer.text.includes(secret), `${method} ${path} tells ${secret}`)
      }
    }
  }
  t.same([...reached].sort(), calls().filter(one => one.path !== '/v1/changes').map(one => `${one.method} ${one.path}`).sort(), 'every call was understood at least once')
  t.equal(JSON.stringify(await mine()), before)
  const own = await s.answer(open, challenge, s.code(key))
  t.equal(own.status, 200, 'and the challenge still answers to its owner')
  t.comment(`tenants: ${sent} calls`)
})

t.test('a name that is too long is refused, whoever asks', async t => {
  const s = await startService(t)
  const long = 'x'.repeat(1024)
  t.equal((await s.open({ ...by('ann'), subject: long })).status, 400)
  const { status } = await s.call('GET', `/v1/subjects/${s.encoded(long)}`)
  t.ok([400, 404, 414].includes(status), `in a path: ${status}`)
  t.equal((await s.question({ ...by('ann'), subject: long })).status, 400)
})
