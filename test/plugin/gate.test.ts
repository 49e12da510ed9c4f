// What the gate decides, for whom it opens, and how a denial looks to documents, forms and scripts.

import { setTimeout as delay } from 'node:timers/promises'
import { connect } from 'node:net'
import session from '@fastify/session'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { startFakeService, type FakeService } from '../helpers/fake-service.ts'
import {
  binding,
  bindingName,
  cookies,
  identifyBySid,
  lines,
  makeVerified,
  raw,
  startConsole
} from '../helpers/console.ts'

const DOCUMENT = ['Accept: text/html', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin']
const FORM = [...DOCUMENT, 'Content-Type: application/x-www-form-urlencoded', 'Origin: http://127.0.0.1:1']
const JSON_BODY = ['Content-Type: application/json']
const BROWSER = binding('my browser')

const problem = (body: string) => JSON.parse(body)

async function both (
  t: { teardown: (fn: () => unknown) => void },
  options: Partial<Parameters<typeof startConsole>[1]> = {}
): Promise<{ fake: FakeService; console: Awaited<ReturnType<typeof startConsole>> }> {
  const fake = await startFakeService(t)
  return {
    fake,
    console: await startConsole(t, { service: { url: fake.url, tenantKey: fake.tenantKey }, ...options })
  }
}

t.test(
  'a request without any credential passes, and a verified session reaches everything that asks for no step-up',
  async t => {
    const { fake, console } = await both(t)
    t.equal((await raw(console.port, lines('GET', '/protected'))).status, 200)
    t.match(console.hits[0]?.route, 'protected')
    makeVerified(fake, 'ann.1', BROWSER)
    const answer = await raw(console.port, lines('GET', '/protected', [cookies('ann.1', BROWSER)]))
    t.equal(answer.status, 200)
    t.match(problem(answer.body), { postern: { status: 'verified', totp: 'enabled', stepUp: null } })
    makeVerified(fake, 'ann.2', BROWSER)
    fake.state.expiresIn = 0
    const last = await raw(console.port, lines('GET', '/protected', [cookies('ann.2', BROWSER)]))
    t.match(problem(last.body), { postern: { status: 'verified', expiresIn: 0 } }, 'in its last second, and never less')
  }
)

t.test(
  'a session that is not verified reaches nothing: documents are sent to the verification page, scripts get a problem',
  async t => {
    const { console } = await both(t)
    const document = await raw(console.port, lines('GET', '/protected?a=1', [...DOCUMENT, cookies('ann.1')]))
    t.equal(document.status, 303)
    t.match(document.headers['location'], /^\/2fa\/verify\/[A-Za-z0-9_-]{16,}$/)
    t.match(
      document.cookies[0],
      new RegExp(`^${bindingName()}=[A-Za-z0-9_-]{22}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=\\d+$`)
    )
    t.match(document.headers['cache-control'], 'no-store')
    for (const accept of ['application/json', '*/*', 'text/html']) {
      for (const method of ['GET', 'POST', 'HEAD', 'OPTIONS', 'DELETE']) {
        if (accept === 'text/html' && method === 'GET') continue
        const answer = await raw(console.port, lines(method, '/protected', [`Accept: ${accept}`, cookies('ann.1')]))
        t.equal(answer.status, 401, `${method} ${accept}`)
        t.equal(answer.cookies.length, 0, "a script's answer sets no binding")
      }
    }
    const script = await raw(console.port, lines('GET', '/protected', [cookies('ann.1')]))
    t.match(problem(script.body), {
      type: 'urn:postern:problem:login_required',
      status: 401,
      code: 'login_required',
      verify_url: '/2fa/verify'
    })
    t.match(script.headers['content-type'], /^application\/problem\+json/)
    t.equal(
      (await raw(console.port, lines('GET', '/nowhere', [cookies('ann.1')]))).status,
      401,
      'what is not found is gated too'
    )
    t.equal((await raw(console.port, lines('GET', '/', [cookies('ann.1')]))).status, 200, 'a public route passes')
    t.same(console.routes(), ['home'])
  }
)

t.test(
  'who finishes on the page is bound to a fresh cookie, and the one from before the code opens nothing',
  async t => {
    const { console } = await both(t)
    const first = await raw(console.port, lines('GET', '/protected?a=1', [...DOCUMENT, cookies('ann.1')]))
    const before = /=([^;]+)/.exec(first.cookies[0] ?? '')?.[1] ?? ''
    const path = first.headers['location'] ?? ''
    t.equal((await raw(console.port, lines('GET', path, [...DOCUMENT, cookies('ann.1', before)]))).status, 200)
    const done = await raw(console.port, lines('POST', path, [...FORM, cookies('ann.1', before)], 'code=123456'))
    t.equal(done.status, 303)
    t.equal(done.headers['location'], '/protected?a=1')
    const after = /=([^;]+)/.exec(done.cookies[0] ?? '')?.[1] ?? ''
    t.not(after, before)
    t.equal(done.cookies.length, 1, 'the service sets no cookie')
    t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1', after)]))).status, 200)
    t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1', before)]))).status, 401)
    t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1')]))).status, 401)
    t.equal(
      (await raw(console.port, lines('GET', '/protected', [cookies('ann.2', after)]))).status,
      401,
      'another session in the same browser'
    )
    t.equal(
      (await raw(console.port, lines('GET', '/protected', [cookies('bob.1', after)]))).status,
      401,
      'another subject'
    )
  }
)

t.test('a browser that does not send the cookie back gets a page that says so, not another redirect', async t => {
  const { console } = await both(t)
  const first = await raw(console.port, lines('GET', '/protected', [...DOCUMENT, cookies('ann.1')]))
  const second = await raw(
    console.port,
    lines('GET', first.headers['location'] ?? '', [...DOCUMENT, cookies('ann.1')])
  )
  t.equal(second.status, 400)
  t.match(second.body, 'Cookies are needed')
  t.equal(second.cookies.length, 0)
})

t.test('a page post from another origin, from `null` or from nowhere changes nothing', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  for (const origin of [
    ['Origin: http://evil.example'],
    ['Origin: null', 'Sec-Fetch-Site: same-origin'],
    [],
    ['Sec-Fetch-Site: same-site'],
    ['Sec-Fetch-Site: cross-site']
  ]) {
    const answer = await raw(
      console.port,
      lines(
        'POST',
        '/2fa/settings/totp',
        ['Content-Type: application/x-www-form-urlencoded', ...origin, cookies('ann.1', BROWSER)],
        'a=1'
      )
    )
    t.equal(answer.status, 403, origin.join())
  }
  t.equal(fake.seen.filter(one => one.url.startsWith('/pages/')).length, 0)
})

t.test(
  'a denied handler never runs, whatever hooks do: asynchronous onSend, asynchronous session store, a client that hangs up',
  async t => {
    const store = new Map<string, unknown>()
    const slow = {
      set: (id: string, value: unknown, done: (error?: unknown) => void) => {
        setTimeout(() => {
          store.set(id, value)
          done()
        }, 5)
      },
      get: (id: string, done: (error: unknown, value?: never) => void) => {
        setTimeout(() => {
          done(null, (store.get(id) ?? null) as never)
        }, 5)
      },
      destroy: (id: string, done: (error?: unknown) => void) => {
        setTimeout(() => {
          store.delete(id)
          done()
        }, 5)
      }
    }
    let ran = 0
    for (const order of ['before', 'after'] as const) {
      const sessions = async (app: FastifyInstance): Promise<void> => {
        await app.register(session, {
          secret: 'x'.repeat(32),
          cookieName: 'session',
          cookie: { secure: false },
          saveUninitialized: true,
          store: slow
        })
        app.addHook('onSend', async (_request: unknown, _reply: unknown, payload: unknown) => {
          await delay(20)
          return payload
        })
      }
      const { console } = await both(t, {
        ...(order === 'before'
          ? { before: sessions }
          : {
              after: async app => {
                await sessions(app)
                app.post('/late', async () => {
                  ran++
                  return {}
                })
              }
            })
      })
      for (const [method, target] of [
        ['GET', '/protected'],
        ['POST', '/protected'],
        ['POST', '/settings'],
        ['GET', '/inside'],
        ['GET', '/2fa/settings'],
        ['GET', '/nowhere']
      ] as const) {
        for (const headers of [DOCUMENT, ['Accept: application/json']]) {
          const answer = await raw(console.port, lines(method, target, [...headers, cookies('ann.1')]))
          t.ok([303, 401].includes(answer.status), `${order} ${method} ${target}: ${answer.status}`)
        }
        // Fastify counts a hung-up client as answered; a hook that only returned the reply would go on to the handler.
        await new Promise<void>(resolve => {
          const socket = connect(console.port, '127.0.0.1', () => {
            socket.write(lines(method, target, [cookies('ann.1')]))
            setTimeout(() => {
              socket.destroy()
              resolve()
            }, 15)
          })
        })
      }
      await delay(120)
      t.same(console.hits, [], 'no handler ran')
      t.equal((await raw(console.port, lines('GET', '/'))).status, 200, 'and the server still stands')
    }
    t.equal(ran, 0)
  }
)

t.test('a step-up route asks for a fresh verification as RFC 9470 has it', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER, 400)
  const mine = cookies('ann.1', BROWSER)
  const script = await raw(console.port, lines('POST', '/settings', [...JSON_BODY, mine], '{"name":"x"}'))
  t.equal(script.status, 401)
  t.match(script.headers['www-authenticate'], /error="insufficient_user_authentication".*max_age=300$/)
  t.match(problem(script.body), {
    code: 'step_up_required',
    max_age: 300,
    methods: ['totp', 'backup_code'],
    csrf: 'token',
    challenge: /^[\w-]{16,}$/,
    verify_url: /^\/2fa\/verify\//
  })
  const document = await raw(console.port, lines('GET', '/settings', [...DOCUMENT, mine]))
  t.equal(document.status, 303)
  t.match(document.headers['location'], /^\/2fa\/verify\//)
  t.same(console.hits, [])
  makeVerified(fake, 'ann.1', BROWSER, 200)
  t.equal(
    (await raw(console.port, lines('POST', '/settings', [...JSON_BODY, mine], '{"name":"x"}'))).status,
    200,
    'within max_age'
  )
  t.equal(
    (await raw(console.port, lines('POST', '/export', [...JSON_BODY, mine], '{}'))).status,
    401,
    'max age 0 asks always'
  )
})

t.test('an inline code opens once, in a header or a field, and the handler never sees it', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  const mine = cookies('ann.1', BROWSER)
  const ask = async (target: string, headers: readonly string[], body: string) =>
    await raw(console.port, lines('POST', target, [...headers, mine], body))
  t.equal((await ask('/export', [...JSON_BODY, '2fa-code: 123456'], '{"a":1}')).status, 200)
  t.equal((await ask('/export', JSON_BODY, '{"a":2,"2fa-code":"123456"}')).status, 200)
  t.equal(
    (await ask('/export', ['Content-Type: application/x-www-form-urlencoded'], 'a=3&2fa-code=123456&b=4')).status,
    200
  )
  t.equal((await ask('/export', JSON_BODY, '{"a":5}')).status, 401, 'it left no step-up behind')
  t.same(
    console.hits.map(one => one.body),
    [{ a: 1 }, { a: 2 }, { a: '3', b: '4' }]
  )
  t.notMatch(JSON.stringify(console.hits), /123456|2fa-code/)
  const wrong = await ask('/export', [...JSON_BODY, '2fa-code: 000000'], '{}')
  t.equal(wrong.status, 401)
  t.match(problem(wrong.body), { code: 'code_rejected', attempts_left: 4, max_age: 0 })
  t.equal(
    (await ask('/export', [...JSON_BODY, '2fa-code: 123456', '2FA_Code: 123456'], '{}')).status,
    400,
    'two codes'
  )
  t.equal((await ask('/export', JSON_BODY, '{"2fa-code":["123456"]}')).status, 400)
  t.equal((await ask('/export', JSON_BODY, '{"2fa-code":123456}')).status, 400)
  t.equal(console.hits.length, 3)
  await ask('/settings', [...JSON_BODY, '2fa-code: 123456'], '{}')
  t.equal((await ask('/settings', JSON_BODY, '{}')).status, 200, 'a step-up of a route with max age is recorded')
})

t.test(
  'a form posted with a stale step-up is carried by the page, in order, with duplicates, in its charset, and reaches the console once',
  async t => {
    const { fake, console } = await both(t)
    makeVerified(fake, 'ann.1', BROWSER)
    const mine = cookies('ann.1', BROWSER)
    const page = await raw(
      console.port,
      lines('POST', '/settings', [...FORM, mine], 'b=2&a=%3Cscript%3E&b=1%0D%0Ax&n=%E4%BD%A0')
    )
    t.equal(page.status, 401)
    t.match(page.headers['content-security-policy'], /default-src 'none'.*frame-ancestors 'none'/)
    t.match(page.headers['cache-control'], 'no-store')
    const fields = [...page.body.matchAll(/type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, name, value]) => [
      name,
      value
    ])
    t.same(
      fields.map(([name]) => name),
      ['b', 'a', 'b', 'n']
    )
    t.equal(fields[1]?.[1], '&#60;script&#62;')
    t.match(page.body, 'action="/settings"')
    t.notMatch(page.body, '<script>alert')
    t.same(console.hits, [])
    const done = await raw(
      console.port,
      lines('POST', '/settings', [...FORM, mine], 'b=2&a=%3Cscript%3E&b=1%0D%0Ax&n=%E4%BD%A0&2fa-code=123456')
    )
    t.equal(done.status, 200)
    t.same(
      console.hits.map(one => one.body),
      [{ a: '<script>', b: ['2', '1\r\nx'], n: '你' }]
    )
    t.equal(
      fake.seen.some(one => one.body.includes('script')),
      false,
      'the service never sees what was typed'
    )

    makeVerified(fake, 'ann.1', BROWSER)
    const latin = await raw(console.port, lines('POST', '/settings', [...FORM, mine], 'name=caf%E9'))
    t.match(latin.headers['content-type'], 'windows-1252')
    t.match(latin.body, 'value="caf&#233;"')
    const planted = await raw(
      console.port,
      lines(
        'POST',
        '/settings',
        [
          ...DOCUMENT.slice(0, 2),
          'Content-Type: application/x-www-form-urlencoded',
          'Origin: http://evil.example',
          mine
        ],
        'name=planted'
      )
    )
    t.equal(planted.status, 401)
    t.notMatch(planted.body, 'planted', 'a post from elsewhere is not carried')
    const large = await raw(console.port, lines('POST', '/settings', [...FORM, mine], `a=${'x'.repeat(70_000)}`))
    t.equal(large.status, 413)
    const file = await raw(
      console.port,
      lines(
        'POST',
        '/settings',
        [...DOCUMENT, 'Origin: http://127.0.0.1:1', 'Content-Type: multipart/form-data; boundary=x', mine],
        '--x--'
      )
    )
    t.equal(file.status, 401)
    t.match(file.body, 'Verify first')
    t.equal(console.hits.length, 1)
  }
)

t.test('a document that needs a code with the very request gets one single-use pass', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER, 1)
  const mine = cookies('ann.1', BROWSER)
  const page = await raw(console.port, lines('GET', '/export?x=1', [...DOCUMENT, mine]))
  t.equal(page.status, 401)
  t.match(page.body, 'name="target" value="/export?x=1"')
  const wrong = await raw(
    console.port,
    lines('POST', '/2fa/own/pass', [...FORM, mine], 'target=%2Fexport%3Fx%3D1&2fa-code=000000')
  )
  t.equal(wrong.status, 401)
  t.match(wrong.body, 'That code is not right. 4 tries left.')
  t.equal(
    (
      await raw(
        console.port,
        lines(
          'POST',
          '/2fa/own/pass',
          [...FORM.filter(line => !line.startsWith('Origin')), 'Origin: http://evil.example', mine],
          'target=%2Fexport&2fa-code=123456'
        )
      )
    ).status,
    403
  )
  const given = await raw(
    console.port,
    lines('POST', '/2fa/own/pass', [...FORM, mine], 'target=%2Fexport%3Fx%3D1&2fa-code=123456')
  )
  t.equal(given.status, 303)
  t.equal(given.headers['location'], '/export?x=1')
  t.equal(
    (await raw(console.port, lines('GET', '/export?x=2', [...DOCUMENT, mine]))).status,
    401,
    'not another target'
  )
  t.equal((await raw(console.port, lines('GET', '/export?x=1', [...DOCUMENT, mine]))).status, 200)
  t.equal((await raw(console.port, lines('GET', '/export?x=1', [...DOCUMENT, mine]))).status, 401, 'once')
  const elsewhere = await raw(
    console.port,
    lines('POST', '/2fa/own/pass', [...FORM, mine], 'target=%2F%2Fevil.example&2fa-code=123456')
  )
  t.equal(elsewhere.headers['location'], '/', 'never to another origin')
})

t.test('a handler may ask for a step-up itself, and nothing after it runs', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  const mine = cookies('ann.1', BROWSER)
  const denied = await raw(console.port, lines('GET', '/inside', [mine]))
  t.equal(denied.status, 401)
  t.match(problem(denied.body), { code: 'step_up_required' })
  t.same(console.hits, [])
  t.equal((await raw(console.port, lines('GET', '/inside', ['2fa-code: 123456', mine]))).status, 200)
})

t.test('log-out ends what the session passed, and so does a session in which nobody is logged in', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  const mine = cookies('ann.1', BROWSER)
  t.equal((await raw(console.port, lines('POST', '/logout', [mine]))).status, 200)
  t.equal(
    (await raw(console.port, lines('GET', '/protected', [mine]))).status,
    401,
    'logged in again with the same session id'
  )
  makeVerified(fake, 'ann.1', BROWSER)
  t.equal((await raw(console.port, lines('GET', '/protected', [mine]))).status, 200)

  const nobody = await startConsole(t, {
    service: { url: fake.url, tenantKey: fake.tenantKey },
    postern: {
      identify: request => {
        const id = identifyBySid(request)
        return id === null || request.headers['x-out'] === undefined
          ? id
          : { session: id.session, kind: 'cookie', subject: null }
      }
    }
  })
  t.equal((await raw(nobody.port, lines('GET', '/protected', [mine]))).status, 200)
  fake.state.trouble = 'unavailable'
  t.equal(
    (await raw(nobody.port, lines('GET', '/protected', ['X-Out: 1', mine]))).status,
    200,
    "nobody passes on to the console's own login"
  )
  fake.state.trouble = 'none'
  await delay(600)
  t.equal(
    (await raw(nobody.port, lines('GET', '/protected', [mine]))).status,
    401,
    'the end was owed while the service was away'
  )
})

t.test('a password change ends every session but the one that made it', async t => {
  const { fake, console } = await both(t, {
    after: (app, hit) => {
      app.post('/password', async request => {
        await app.postern.credentialsChanged('ann', { keep: request })
        return hit('password')(request)
      })
    }
  })
  for (const sid of ['ann.1', 'ann.2', 'bob.1']) makeVerified(fake, sid, BROWSER)
  for (const sid of ['ann.1', 'ann.2', 'bob.1']) { t.equal((await raw(console.port, lines('GET', '/protected', [cookies(sid, BROWSER)]))).status, 200) }
  t.equal((await raw(console.port, lines('POST', '/password', [cookies('ann.1', BROWSER)]))).status, 200)
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.2', BROWSER)]))).status, 401)
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1', BROWSER)]))).status, 200)
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('bob.1', BROWSER)]))).status, 200)
})

t.test('a console that rotates its session id keeps what was passed', async t => {
  const { fake, console } = await both(t, {
    after: app => {
      app.post('/rotate', async (_request, reply) => {
        await reply.posternRotate('ann.1', 'ann.9')
        return {}
      })
    }
  })
  makeVerified(fake, 'ann.1', BROWSER)
  t.equal((await raw(console.port, lines('POST', '/rotate', [cookies('ann.1', BROWSER)]))).status, 200)
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.9', BROWSER)]))).status, 200)
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1', BROWSER)]))).status, 401)
})

t.test('a rotated id is of the kind that the request shows, or of the one that is named where it shows none', async t => {
  const { fake, console } = await both(t, {
    postern: {
      identify: request => {
        const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
        return token === undefined ? null : { subject: token.split('.')[0] ?? '', session: token, kind: 'bearer' }
      },
      credentials: { headers: ['authorization'] }
    },
    after: app => {
      app.post('/refresh/:from/:to', async (request, reply) => {
        const { from, to, kind } = { kind: undefined, ...Object(request.params), ...Object(request.query) }
        await reply.posternRotate(from, to, kind === undefined ? undefined : { kind })
        return {}
      })
    }
  })
  const ask = async (method: string, path: string, token?: string): Promise<number> => {
    const headers = [...(token === undefined ? [] : [`Authorization: Bearer ${token}`]), `Cookie: ${bindingName()}=${BROWSER}`]
    return (await raw(console.port, lines(method, path, headers))).status
  }
  makeVerified(fake, 'ann.1', BROWSER, undefined, 'bearer')
  t.equal(await ask('POST', '/refresh/ann.1/ann.2', 'ann.1'), 200)
  t.equal(await ask('GET', '/protected', 'ann.2'), 200, 'the kind of this request')
  t.equal(await ask('POST', '/refresh/ann.2/ann.3'), 200)
  t.equal(await ask('GET', '/protected', 'ann.3'), 401, 'a request that shows no login says nothing of the kind')
  t.equal(await ask('GET', '/protected', 'ann.2'), 200)
  t.equal(await ask('POST', '/refresh/ann.2/ann.4?kind=bearer'), 200)
  t.equal(await ask('GET', '/protected', 'ann.4'), 200, 'a kind that is named')
  t.equal(await ask('GET', '/protected', 'ann.2'), 401)
})

t.test('an identify that throws, says nothing or says nonsense refuses', async t => {
  for (const answer of [
    () => {
      throw new Error('x')
    },
    () => undefined,
    () => ({}),
    () => 'ann',
    () => ({ subject: '', session: 's', kind: 'cookie' }),
    () => ({ subject: 'a\n', session: 's', kind: 'cookie' }),
    () => ({ subject: 'ann', session: 7, kind: 'cookie' }),
    async () => {
      throw new Error('x')
    },
    async () => undefined
  ]) {
    const { console } = await both(t, { postern: { identify: answer as never } })
    for (const target of ['/protected', '/', '/settings']) { t.equal((await raw(console.port, lines('GET', target))).status, 500) }
    t.same(console.hits, [])
  }
})

t.test(
  'a console that loads its session after the gate refuses everybody instead of passing them as nobody',
  async t => {
    for (const hook of ['preParsing', 'preValidation', 'preHandler'] as const) {
      const { console } = await both(t, {
        before: app => {
          app.decorateRequest('late', null)
        },
        postern: { identify: request => Reflect.get(request, 'late') },
        after: app => {
          app.addHook(hook as 'preHandler', async request => {
            Reflect.set(request, 'late', identifyBySid(request))
          })
        }
      })
      const answer = await raw(console.port, lines('GET', '/protected', [cookies('ann.1')]))
      t.equal(answer.status, 500, hook)
      t.same(console.hits, [], hook)
    }
  }
)

t.test('mode observe refuses nothing and counts, mode off passes until its end', async t => {
  const { fake, console } = await both(t, { postern: { mode: 'observe' } })
  t.equal((await raw(console.port, lines('POST', '/settings', [...JSON_BODY, cookies('ann.1')], '{}'))).status, 200)
  makeVerified(fake, 'ann.1', BROWSER)
  t.equal(
    (await raw(console.port, lines('POST', '/settings', [...JSON_BODY, cookies('ann.1', BROWSER)], '{}'))).status,
    200
  )
  t.same(console.app.posternReport().observed, { login: 1, step_up: 1 })
  t.equal(fake.seen.filter(one => one.url === '/v1/challenges').length, 0, 'nothing is opened')
  const off = await both(t, { postern: { mode: { off: { until: new Date(Date.now() + 60_000).toISOString() } } } })
  t.equal(
    (await raw(off.console.port, lines('POST', '/settings', [...JSON_BODY, cookies('ann.1')], '{}'))).status,
    200
  )
  const over = await both(t, { postern: { mode: { off: { until: new Date(Date.now() - 1).toISOString() } } } })
  t.equal(
    (await raw(over.console.port, lines('POST', '/settings', [...JSON_BODY, cookies('ann.1')], '{}'))).status,
    401
  )
})

t.test('a subject who must enrol reaches only the pages', async t => {
  const { fake, console } = await both(t)
  fake.mustEnrol.add('eve')
  const document = await raw(console.port, lines('GET', '/protected', [...DOCUMENT, cookies('eve.1')]))
  t.equal(document.headers['location'], '/2fa/enrol')
  t.equal((await raw(console.port, lines('GET', '/2fa/enrol', [...DOCUMENT, cookies('eve.1', BROWSER)]))).status, 200)
  const script = await raw(console.port, lines('GET', '/protected', [cookies('eve.1')]))
  t.equal(script.status, 403)
  t.match(problem(script.body), { code: 'enrolment_required', verify_url: '/2fa/enrol' })
  t.same(console.hits, [])
})

t.test('a subject without a factor passes step-up routes too, where the service says so', async t => {
  const { fake, console } = await both(t)
  fake.plain.add('joe')
  t.equal((await raw(console.port, lines('POST', '/settings', [...JSON_BODY, cookies('joe.1')], '{}'))).status, 200)
  t.equal((await raw(console.port, lines('POST', '/export', [...JSON_BODY, cookies('joe.1')], '{}'))).status, 200)
})

t.test('an address that the service counts too many calls of gets a page or a problem that says when to come back', async t => {
  const { fake, console } = await both(t)
  makeVerified(fake, 'ann.1', BROWSER)
  fake.state.trouble = 'rate_limited'
  const answers = {
    login: await raw(console.port, lines('GET', '/protected', [...DOCUMENT, cookies('bob.1')])),
    stepUp: await raw(console.port, lines('GET', '/settings', [...DOCUMENT, cookies('ann.1', BROWSER)])),
    pass: await raw(console.port, lines('POST', '/2fa/own/pass', [...FORM, cookies('ann.1', BROWSER)], 'target=%2Fexport&postern-code=123456')),
    script: await raw(console.port, lines('POST', '/settings', [...JSON_BODY, cookies('ann.1', BROWSER)], '{}')),
    code: await raw(console.port, lines('POST', '/settings', [...JSON_BODY, 'Postern-Code: 123456', cookies('ann.1', BROWSER)], '{}'))
  }
  for (const [what, { status, headers, body }] of Object.entries(answers)) {
    t.match([status, headers['retry-after']], [429, '17'], what)
    if (headers['content-type']?.startsWith('text/html') === true) t.match(body, /Too many requests[\s\S]*17 seconds/, what)
    else t.match(problem(body), { code: 'rate_limited', status: 429, retry_after: 17 }, what)
  }
  t.match(answers.script.headers['content-type'], 'application/problem+json')
  t.match(answers.login.headers['content-type'], 'text/html')
  t.same(console.hits, [])
  t.equal((await raw(console.port, lines('GET', '/protected', [cookies('ann.1', BROWSER)]))).status, 200, 'who is verified goes on')
})
