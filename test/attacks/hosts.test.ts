// Threat: whoever names another host in a request turns a link, a redirect, a cookie or a mail towards it. B-20, B-40.

import t from 'tap'
import { lines, raw, type Answered } from '../helpers/console.ts'
import { as, DOCUMENT, DOORS, fieldsOf, FORM, ORIGIN, OWN_FORM, who, type Door } from '../helpers/doors.ts'

const EVIL = 'evil.example'

/** Header lines that servers and frameworks take for the host, the scheme, the prefix or the client. */
const TRICKS: ReadonlyArray<readonly string[]> = [
  [`Host: ${EVIL}`],
  [`Host: ${EVIL}:8080`],
  [`Host: 127.0.0.1:1.${EVIL}`],
  [`X-Forwarded-Host: ${EVIL}`],
  [`X-Forwarded-Host: ${EVIL}, 127.0.0.1:1`, 'X-Forwarded-Proto: https'],
  [`X-Forwarded-Server: ${EVIL}`, `X-Host: ${EVIL}`, `X-Original-Host: ${EVIL}`, `X-HTTP-Host-Override: ${EVIL}`],
  ['X-Forwarded-Proto: https', 'X-Forwarded-Scheme: https', 'X-Forwarded-Ssl: on', 'Front-End-Https: on', 'X-Forwarded-Port: 6666'],
  [`X-Forwarded-Prefix: /${EVIL}`, `X-Script-Name: /${EVIL}`, `X-Forwarded-Uri: //${EVIL}/`],
  [`Forwarded: for=9.9.9.9;host=${EVIL};proto=https`],
  ['X-Forwarded-For: 9.9.9.9', 'X-Real-IP: 9.9.9.9', 'True-Client-IP: 9.9.9.9', 'CF-Connecting-IP: 9.9.9.9', 'X-Client-IP: 9.9.9.9'],
  [`Host: ${EVIL}`, `X-Forwarded-Host: ${EVIL}`, 'X-Forwarded-Proto: https', `Forwarded: host=${EVIL};proto=https`, 'X-Forwarded-For: 9.9.9.9']
]

/** As `ask`, with these lines; a Host among them stands in the place of the usual one. */
async function tricked (
  door: Door, trick: readonly string[], method: string, target: string, headers: readonly string[], body = ''
): Promise<Answered> {
  const host = trick.find(line => line.startsWith('Host:')) ?? 'Host: 127.0.0.1'
  const others = trick.filter(line => line !== host)
  return await raw(door.port, lines(method, target, [...headers, ...others], body).replace('Host: 127.0.0.1', host), 30_000)
}

/** Everything that a person meets on the way in and in the settings, with every request in this guise. */
async function walk (door: Door, user: string, trick: readonly string[]): Promise<readonly Answered[]> {
  const { service } = door
  const sid = `${user}.1`
  const answers: Answered[] = []
  const send = async (method: string, target: string, headers: readonly string[], body = ''): Promise<Answered> => {
    const answer = await tricked(door, trick, method, target, headers, body)
    answers.push(answer)
    return answer
  }
  const { key } = await service.enrol(who(`${user}.0`))
  await service.enrolEmail(who(`${user}mail.0`), `${user}@elsewhere.example`)
  service.advance(61_000)
  await send('GET', '/2fa/settings', DOCUMENT)
  await send('GET', '/protected', ['Accept: application/json', as(sid)])
  await send('GET', '/2fa/enrol', [...DOCUMENT, as(`${user}plain.1`)])
  const mailed = await send('GET', '/protected', [...DOCUMENT, as(`${user}mail.1`)])
  await send('GET', mailed.headers['location'] ?? '', [...DOCUMENT, as(`${user}mail.1`)])
  const opened = await send('GET', '/protected?x=1', [...DOCUMENT, as(sid)])
  const page = await send('GET', opened.headers['location'] ?? '', [...DOCUMENT, as(sid)])
  for (const code of ['000000', service.code(key)]) {
    const fields = fieldsOf(page)
    fields.set('code', code)
    await send('POST', opened.headers['location'] ?? '', [...OWN_FORM, as(sid)], fields.toString())
  }
  await send('GET', '/2fa/settings', [...DOCUMENT, as(`${user}.0`)])
  await send('GET', '/2fa/settings?lang=zh-CN', [...DOCUMENT, as(`${user}.0`)])
  await send('POST', '/2fa/session', ['Accept: application/json', `Origin: ${ORIGIN}`, as(`${user}.0`)])
  service.advance(1_000_000)
  await send('POST', '/settings', [...OWN_FORM, as(`${user}.0`)], 'a=1')
  await send('GET', '/settings', [...DOCUMENT, as(`${user}.0`)])
  await send('POST', '/settings', ['Accept: application/json', 'Content-Type: application/json', as(`${user}.0`)], '{}')
  const foreign = await send('POST', '/2fa/settings/totp', [...FORM, `Origin: https://${EVIL}`, as(`${user}.0`)], 'a=1')
  t.equal(foreign.status, 403, 'a page of the host that is named is not one of ours')
  return answers
}

/** Where an answer leads: its redirect, its links and forms, and the URLs in its JSON. */
const linksOf = ({ headers, body }: Answered): readonly string[] => [
  ...headers['location'] === undefined ? [] : [headers['location']],
  ...[...body.matchAll(/\b(?:href|src|action|data-[a-z]+)="([^"]*)"/g)].map(([, link = '']) => link).filter(link => /^(?:\/|[a-z]+:)/.test(link)),
  ...[...body.matchAll(/"\w+_url":"([^"]*)"/g)].map(([, link = '']) => link)
]

t.setTimeout(600_000)

for (const [name, start] of DOORS) {
  t.test(`${name}: no link, redirect, cookie or mail follows a host that a request names`, { timeout: 600_000 }, async t => {
    const door = await start(t)
    const plain = await walk(door, 'plain', [])
    const [statuses, hops] = [plain.map(({ status }) => status), plain.flatMap(linksOf).length]
    for (const status of [200, 303, 401, 403]) t.ok(statuses.includes(status), `an answer with ${status} is among them`)
    t.ok(hops > 30, `${hops} links`)
    for (const [index, trick] of TRICKS.entries()) {
      const what = trick.join(' | ')
      const answers = await walk(door, `user${index}`, trick)
      t.same(answers.map(({ status }) => status), statuses, what)
      t.equal(answers.flatMap(linksOf).length, hops, what)
      t.same(answers.flatMap(linksOf).filter(link => !/^\/(?!\/)/.test(link) || link.includes(EVIL)), [], what)
      for (const { headers, cookies, body } of answers) {
        t.notMatch(JSON.stringify([headers, cookies]) + body, /evil|9\.9\.9\.9|6666/, what)
        for (const cookie of cookies) t.match(cookie, /; Path=\/[^;]*; Secure(?!.*Domain)/i, what)
      }
    }
    t.ok(door.service.mails.length > TRICKS.length, 'codes were mailed')
    t.notMatch(JSON.stringify(door.service.mails), /evil|9\.9\.9\.9|https?:/, 'and hold no link and no address of the client\'s making')
    t.notMatch(await door.kept(), /evil|9\.9\.9\.9/)
    const { body } = await door.service.call('GET', '/v1/events', undefined, door.service.admin)
    t.same([...new Set(body.events.map((one: { address_prefix?: string }) => one.address_prefix))].filter(one => one !== undefined), ['127.0.0.0/24'])
  })

  t.test(`${name}: a proxy that is trusted speaks for the client's address, and for nothing else`, { timeout: 600_000 }, async t => {
    const door = await start(t, { trusted: '127.0.0.1' })
    const plain = await walk(door, 'plain', [])
    const answers = await walk(door, 'ann', [`Host: ${EVIL}`, `X-Forwarded-Host: ${EVIL}`, 'X-Forwarded-Proto: https', 'X-Forwarded-For: 9.9.9.9'])
    t.same(answers.map(({ status }) => status), plain.map(({ status }) => status))
    t.same(answers.flatMap(linksOf).filter(link => !/^\/(?!\/)/.test(link)), [])
    t.notMatch(JSON.stringify(answers), /evil/)
    const { body } = await door.service.call('GET', `/v1/events?subject=${door.service.encoded('ann')}`, undefined, door.service.admin)
    t.ok(body.events.some((one: { address_prefix?: string }) => one.address_prefix === '9.9.9.0/24'), JSON.stringify(body.events[0]))
  })

  t.test(`${name}: a target that names a host is refused, and so are two hosts`, async t => {
    const door = await start(t)
    for (const target of [`http://${EVIL}/protected`, 'http://127.0.0.1:1/protected', `https://${EVIL}/2fa/settings`, `//${EVIL}/2fa/settings`, `${EVIL}:80`]) {
      const answer = await door.ask('GET', target, [...DOCUMENT, as('ann.1')])
      t.equal(answer.status, 400, target)
      t.notMatch(JSON.stringify(answer), /evil/, target)
    }
    t.equal((await door.ask('GET', '/protected', [...DOCUMENT, as('ann.1'), `Host: ${EVIL}`])).status, 400)
    t.same(door.reached(), [])
    t.equal((await door.ask('GET', '/protected', [...DOCUMENT, as('ann.1')])).status, 200, 'who has no factor passes')
  })
}
