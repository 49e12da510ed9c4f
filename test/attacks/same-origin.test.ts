// Threat: a page of another origin makes the owner's browser send a request. Every route of the pages that changes
// anything, in front of both kinds of console; the route tables say which there are, so that none is left out. B-35.

import t, { type Test } from 'tap'
import { listRoutes } from '../../plugin/src/report.ts'
import { boundIn, type Answered } from '../helpers/console.ts'
import { as, BROWSER, DOCUMENT, DOORS, fieldsOf, FORM, ORIGIN, OWN_FORM, who, type Door } from '../helpers/doors.ts'

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])
const writes = (method: string): boolean => !SAFE.has(method)

/** Every route below the prefix that changes something: the plugin's own, and the service's behind its wildcard. */
function writingRoutes ({ app, service }: Door): readonly string[] {
  const own = app.posternReport().routes.filter(({ rule, method }) => rule === 'own' && writes(method))
    .map(({ method, url }) => `${method} ${url}`)
  const behind = listRoutes(service.app.api).filter(({ url }) => url.startsWith('/pages/'))
    .flatMap(({ methods, url }) => methods.filter(writes).map(method => `${method} ${url.replace('/pages', '/2fa')}`))
  return [...own.filter(route => route !== 'POST /2fa/*'), ...behind].sort()
}

/** A request that works where it comes from a page of ours. */
interface Good {
  readonly target: string
  readonly body: string
  readonly headers?: readonly string[]
  /** What shows that it did its work. */
  readonly worked: (answer: Answered) => unknown
}

type Recipe = (door: Door, sid: string) => Promise<Good>

const filled = (fields: URLSearchParams, more: Readonly<Record<string, string>>): string => {
  for (const [name, value] of Object.entries(more)) fields.set(name, value)
  return fields.toString()
}
const page = async (door: Door, sid: string, target: string): Promise<Answered> => await door.ask('GET', target, [...DOCUMENT, as(sid)])
const enrolled = async ({ service }: Door, sid: string) => {
  const factor = await service.enrol(who(sid))
  service.nextStep()
  return factor
}
const addressOf = (sid: string): string => `${sid.split('.')[0] ?? ''}@elsewhere.example`
const settings = async ({ service }: Door, sid: string) =>
  (await service.call('GET', `/v1/subjects/${service.encoded(who(sid).subject)}`)).body
/** Nothing but one more mail tells that a code was sent. */
const mailed = ({ service }: Door): () => boolean => {
  const before = service.mails.length
  return () => service.mails.length === before + 1
}

const RECIPES: Readonly<Record<string, Recipe>> = {
  'POST /2fa/session': async (_door, sid) => ({
    target: '/2fa/session',
    body: '',
    worked: answer => answer.status === 200 && answer.cookies.some(cookie => cookie.includes('postern-page-')) && sid
  }),
  'POST /2fa/own/pass': async (door, sid) => {
    const { key } = await enrolled(door, sid)
    return {
      target: '/2fa/own/pass',
      body: filled(fieldsOf(await page(door, sid, '/export'), '/2fa/own/pass'), { '2fa-code': door.service.code(key) }),
      worked: async answer => answer.headers['location'] === '/export' && (await page(door, sid, '/export')).status === 200
    }
  },
  // Of these consoles people have pages to log in at.
  'POST /2fa/own/sign-in': async (_door, sid) => ({
    target: '/2fa/own/sign-in',
    body: `username=${sid}&password=right`,
    worked: answer => answer.status === 404
  }),
  'POST /2fa/verify/:id': async (door, sid) => {
    const { key } = await enrolled(door, `${sid}-enrolled`)
    const target = (await page(door, sid, '/protected')).headers['location'] ?? ''
    return {
      target,
      body: filled(fieldsOf(await page(door, sid, target)), { code: door.service.code(key) }),
      worked: answer => ![undefined, BROWSER].includes(boundIn(answer))
    }
  },
  'POST /2fa/verify/:id/email': async (door, sid) => {
    await door.service.enrolEmail(who(`${sid}-enrolled`), addressOf(sid))
    door.service.advance(61_000)
    const target = (await page(door, sid, '/protected')).headers['location'] ?? ''
    const body = fieldsOf(await page(door, sid, target)).toString()
    door.service.advance(61_000)
    return { target: `${target}/email`, body, worked: mailed(door) }
  },
  'POST /2fa/settings/totp': async (door, sid) => ({
    target: '/2fa/settings/totp',
    body: fieldsOf(await page(door, sid, '/2fa/settings'), '/2fa/settings/totp').toString(),
    worked: async answer => answer.headers['location'] === '/2fa/settings/totp' && /otpauth:/.test((await page(door, sid, '/2fa/settings/totp')).body)
  }),
  'POST /2fa/settings/totp/:enrolment': async (door, sid) => {
    const begun = await door.service.begin(who(sid))
    return {
      target: `/2fa/settings/totp/${String(begun.body.id)}`,
      body: filled(fieldsOf(await page(door, sid, '/2fa/settings/totp')), { code: door.service.code(begun.body.key) }),
      worked: async () => (await settings(door, sid)).totp.status === 'enabled'
    }
  },
  'POST /2fa/settings/totp/remove': async (door, sid) => {
    await enrolled(door, sid)
    return {
      target: '/2fa/settings/totp/remove',
      body: fieldsOf(await page(door, sid, '/2fa/settings/totp/remove')).toString(),
      worked: async () => (await settings(door, sid)).totp.status === 'not_enabled'
    }
  },
  'POST /2fa/settings/email': async (door, sid) => ({
    target: '/2fa/settings/email',
    body: filled(fieldsOf(await page(door, sid, '/2fa/settings')), { address: addressOf(sid) }),
    worked: mailed(door)
  }),
  'POST /2fa/settings/email/:enrolment': async (door, sid) => {
    const { service } = door
    const begun = await service.call('POST', `/v1/subjects/${service.encoded(who(sid).subject)}/email`, { by: who(sid), address: addressOf(sid) })
    return {
      target: `/2fa/settings/email/${String(begun.body.id)}`,
      body: filled(fieldsOf(await page(door, sid, '/2fa/settings/email')), { code: String(service.mails.at(-1)?.values.code) }),
      worked: async () => (await settings(door, sid)).email.on
    }
  },
  'POST /2fa/settings/email/remove': async (door, sid) => {
    await door.service.enrolEmail(who(sid), addressOf(sid))
    return {
      target: '/2fa/settings/email/remove',
      body: fieldsOf(await page(door, sid, '/2fa/settings/email/remove')).toString(),
      worked: async () => (await settings(door, sid)).email.on === false
    }
  },
  'POST /2fa/settings/backup-codes': async (door, sid) => {
    await enrolled(door, sid)
    return {
      target: '/2fa/settings/backup-codes',
      body: fieldsOf(await page(door, sid, '/2fa/settings/backup-codes')).toString(),
      worked: answer => (answer.body.match(/([0-9A-Z]{4}-){3}[0-9A-Z]{4}/g) ?? []).length >= 6
    }
  },
  'POST /2fa/settings/proof': async (door, sid) => ({
    target: '/2fa/settings/proof',
    body: filled(fieldsOf(await page(door, sid, '/2fa/settings/totp'), '/2fa/settings/proof'), { for: 'totp' }),
    worked: mailed(door)
  }),
  'POST /2fa/settings/notices/:id': async (door, sid) => {
    await enrolled(door, sid)
    const shown = await page(door, sid, '/2fa/settings')
    const target = /action="(\/2fa\/settings\/notices\/[^"]+)"/.exec(shown.body)?.[1] ?? ''
    return {
      target,
      body: fieldsOf(shown, target).toString(),
      worked: async answer => answer.status === 303 && !(await page(door, sid, '/2fa/settings')).body.includes(target)
    }
  }
}

/** What a browser, or somebody who steers one, can say of where a request comes from; none of it is a page of ours. */
const FOREIGN: ReadonlyArray<readonly string[]> = [
  ['Origin: https://evil.example'],
  ['Origin: https://evil.example', 'Sec-Fetch-Site: same-origin'],
  ['Origin: null'],
  ['Origin: null', 'Sec-Fetch-Site: same-origin'],
  ['Origin: http://127.0.0.1:2', 'Sec-Fetch-Site: same-site'],
  ['Origin: http://127.0.0.1'],
  ['Origin: https://127.0.0.1:1'],
  [`Origin: ${ORIGIN}.evil.example`],
  [`Origin: ${ORIGIN}/`],
  [`Origin: ${ORIGIN}`, 'Origin: https://evil.example'],
  [`Origin: ${ORIGIN} https://evil.example`],
  [`Origin: ${ORIGIN}`, 'Sec-Fetch-Site: cross-site'],
  [`Origin: ${ORIGIN}`, 'Sec-Fetch-Site: same-site'],
  ['Origin:'],
  ['Sec-Fetch-Site: cross-site'],
  ['Sec-Fetch-Site: same-site'],
  ['Sec-Fetch-Site: none'],
  ['Sec-Fetch-Site: same-origin, cross-site'],
  ['Sec-Fetch-Site: Same-Origin'],
  ['Referer: https://evil.example/2fa/settings'],
  [`Referer: ${ORIGIN}/2fa/settings`],
  []
]

/** What another origin may send without asking first (Fetch 2.2.2), and what a sloppy reader takes for JSON. */
const asJson = (body: string): string => JSON.stringify(Object.fromEntries(new URLSearchParams(body)))
const asParts = (body: string): string => [...new URLSearchParams(body)]
  .map(([name, value]) => `--x\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`).join('') + '--x--\r\n'
const BODIES = [
  ['application/x-www-form-urlencoded', (body: string) => body],
  ['text/plain', asJson],
  ['text/plain; application/json', asJson],
  ['multipart/form-data; boundary=x', asParts],
  ['multipart/form-data; boundary=x', asJson],
  ['application/json', asJson]
] as const

async function everyRoute (t: Test, door: Door, names: readonly string[]): Promise<number> {
  let sent = 0
  for (const name of names) {
    await t.test(`${door.name}: ${name}`, { timeout: 300_000 }, async t => {
      const recipe = RECIPES[name]
      if (recipe === undefined) throw new Error('a route without a recipe')
      // Without an address what changes cannot be mailed, and is shown as a notice.
      const sid = `${name.includes('notices') ? 'mute' : 'user'}${names.indexOf(name)}${door.name}.1`
      const { target, body, worked } = await recipe(door, sid)
      t.ok(target.startsWith('/2fa/'), target)
      const [before, mails] = [await door.kept(), door.service.mails.length]
      const [method = ''] = name.split(' ')
      const attempt = async (headers: readonly string[], text: string, statuses: readonly number[]): Promise<void> => {
        sent++
        const answer = await door.ask(method, target, [...headers, as(sid)], text)
        const what = headers.join(' | ')
        t.ok(statuses.includes(answer.status), `${answer.status} ${what}`)
        t.same(answer.cookies.filter(cookie => /postern-page|Max-Age=0/.test(cookie)), [], what)
        t.notOk(Object.keys(answer.headers).some(header => header.startsWith('access-control-')), what)
      }
      for (const origin of FOREIGN) {
        for (const accept of ['text/html', 'application/json']) {
          await attempt([`Accept: ${accept}`, 'Content-Type: application/x-www-form-urlencoded', ...origin], body, [403])
        }
      }
      for (const [type, written] of BODIES) {
        await attempt(['Accept: text/html', `Content-Type: ${type}`, 'Origin: https://evil.example'], written(body), [403])
        // From a page of ours only a form is one: the token is not found in anything else.
        if (body !== '' && written !== BODIES[0][1] && type !== 'application/json' && !target.startsWith('/2fa/own/')) {
          await attempt(['Accept: application/json', `Content-Type: ${type}`, `Origin: ${ORIGIN}`], written(body), [400, 403, 415])
        }
      }
      for (const asked of ['POST', 'PUT', 'DELETE', 'GET']) {
        const answer = await door.ask('OPTIONS', target, ['Origin: https://evil.example', `Access-Control-Request-Method: ${asked}`, 'Access-Control-Request-Headers: content-type,2fa-code,authorization', as(sid)])
        t.notOk(Object.keys(answer.headers).some(header => header.startsWith('access-control-')), `a preflight for ${asked}`)
        t.not(answer.status, 200)
      }
      for (const other of ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE']) {
        sent++
        // Over GET the page may be shown; nothing of the form is done.
        const answer = await door.ask(other, `${target}?${body}`, ['Accept: text/html', 'Origin: https://evil.example', as(sid)])
        if (writes(other)) t.ok(answer.status >= 400, `${other}: ${answer.status}`)
      }
      t.equal(await door.kept(), before, 'nothing was written')
      t.equal(door.service.mails.length, mails, 'nothing was mailed')
      t.notOk(door.reached().some(path => path.includes('/2fa')), 'nothing of it is the console\'s')
      const control = await door.ask(method, target, [...OWN_FORM, as(sid)], body)
      t.ok(await worked(control), `the same request from a page of ours: ${control.status} ${control.body.slice(0, 200)}`)
    })
  }
  return sent
}

t.setTimeout(600_000)
const TITLE = 'what changes anything is refused from elsewhere and works from a page of ours'

for (const [name, start] of DOORS) {
  t.test(`${name}: ${TITLE}`, { timeout: 600_000 }, async t => {
    const door = await start(t)
    const routes = writingRoutes(door)
    t.same(routes, Object.keys(RECIPES).sort(), 'every route that changes something has a recipe, and no other')
    const proved = routes.filter(route => route.endsWith('/proof'))
    let sent = await everyRoute(t, door, routes.filter(route => !proved.includes(route)))
    sent += await everyRoute(t, await start(t, { tenant: { first_enrolment: 'email' } }), proved)
    t.comment(`${name}: ${routes.length} routes, ${sent} requests`)
  })
}

t.test('a form of another origin is not carried through a verification: its fields are not offered to be sent on', async t => {
  for (const [, start] of DOORS) {
    const door = await start(t)
    await enrolled(door, 'ann.1')
    door.service.advance(1_000_000)
    for (const origin of FOREIGN) {
      const answer = await door.ask('POST', '/settings', [...DOCUMENT.slice(0, 2), 'Content-Type: application/x-www-form-urlencoded', ...origin, as('ann.1')], 'planted=by-another-page')
      t.notOk(answer.body.includes('planted'), `${door.name}: ${origin.join(' | ')}`)
      t.equal(answer.status, 401)
    }
    const own = await door.ask('POST', '/settings', [...FORM, `Origin: ${ORIGIN}`, as('ann.1')], 'typed=by-the-owner')
    t.match([own.status, own.body], [401, /name="typed" value="by-the-owner"/])
    t.same(door.reached(), [])
  }
})
