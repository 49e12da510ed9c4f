// The hosted pages as the plugin asks for them: what they say in each state, as HTML for people and JSON for scripts.

import t from 'tap'
import { loadMailTexts } from '../../service/src/adapters/mail-texts.ts'
import { Problem } from '../../service/src/domain/problems.ts'
import { sayNotice, sayProblem, sayVerdict } from '../../service/src/http/pages/verdicts.ts'
import { loadLanguages } from '../../service/src/http/pages/words.ts'
import { by, startService, type Answer, type Service, type WireBy } from '../helpers/service.ts'

const HTML = { accept: 'text/html' }
const JSON_ONLY = { accept: 'application/json' }
const LONELY = { smtp: false }
/** Notices go out by mail, so that no page has to show them. */
const MAILED = { about: { email: 'ann@example.org' } }

const headersOf = (who: WireBy, about?: unknown): Record<string, string> => ({
  'postern-subject': Buffer.from(who.subject).toString('base64url'),
  'postern-session': who.session,
  'postern-browser': who.browser,
  ...(about === undefined ? {} : { 'postern-about': Buffer.from(JSON.stringify(about)).toString('base64url') })
})

const get = async (s: Service, who: WireBy, path: string, headers: Record<string, string> = HTML): Promise<Answer> =>
  await s.call('GET', `/pages/${path}`, undefined, { ...headersOf(who), ...headers })

async function post (
  s: Service, who: WireBy, path: string, fields: Record<string, string>, headers: Record<string, string> = HTML
): Promise<Answer> {
  const response = await s.app.api.inject({
    method: 'POST',
    url: `/pages/${path}`,
    headers: { authorization: `Bearer ${s.keys.gate.key}`, 'content-type': 'application/x-www-form-urlencoded', ...headersOf(who), ...headers },
    payload: new URLSearchParams(fields).toString()
  })
  let body: unknown
  try { body = JSON.parse(response.payload) } catch { body = undefined }
  return { status: response.statusCode, headers: response.headers, body, text: response.payload }
}

const csrfOf = (page: Answer): string => /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
const wrongCode = (s: Service, key: string): string =>
  ['000000', '111111', '222222'].find(one => ![-1, 0, 1].some(off => s.code(key, off) === one)) ?? ''

t.test('the verification page counts down tries, says what a code was, and goes where the person was going', async t => {
  const s = await startService(t, LONELY)
  const ann = by('ann')
  const { key, backupCodes } = await s.enrol(ann, MAILED)
  s.nextStep()
  const later = by('ann', 'later')
  const id = (await s.open(later, 'login', { return_path: '/orders?x=1' })).body.challenge.id as string
  const page = await get(s, later, `verify/${id}`)
  t.equal(page.status, 200)
  t.match(page.text, /Enter your code/)
  t.match(page.headers, { 'cache-control': 'no-store', 'content-language': 'en', 'content-security-policy': /frame-ancestors 'none'/, 'referrer-policy': 'same-origin', 'cross-origin-opener-policy': 'same-origin' })
  const csrf = csrfOf(page)
  t.match((await post(s, later, `verify/${id}`, { code: wrongCode(s, key) })).text, /too long ago|again|stale|open/i, 'a form without its token counts nothing')
  t.equal((await post(s, later, `verify/${id}`, { code: wrongCode(s, key) }, JSON_ONLY)).status, 403)
  t.match((await post(s, later, `verify/${id}`, { csrf, code: 'nonsense' })).text, /aria-invalid="true"/)
  t.match((await post(s, later, `verify/${id}`, { csrf, code: wrongCode(s, key) })).text, /4 tries left/)
  t.match((await post(s, later, `verify/${id}`, { csrf, code: wrongCode(s, key) })).text, /3 tries left/)
  t.match(await get(s, later, `verify/${id}`, JSON_ONLY), { status: 200, body: { attempts_left: 3, methods: ['totp', 'backup_code'], csrf: String } })
  await post(s, later, `verify/${id}`, { csrf, code: wrongCode(s, key) })
  t.match((await get(s, later, `verify/${id}`)).text, /2 tries left/, 'the page says when few are left')
  await post(s, later, `verify/${id}`, { csrf, code: wrongCode(s, key) })
  t.match((await get(s, later, `verify/${id}`)).text, /Last try/)
  const right = await post(s, later, `verify/${id}`, { csrf, code: s.code(key), idempotency_key: 'a key of a form' })
  t.match(right, { status: 303, headers: { location: '/orders?x=1' } })
  t.match((await get(s, later, `verify/${id}`)).text, /Continue/, 'whoever passed has nothing to start again')
  t.match(await post(s, later, `verify/${id}`, { csrf, code: s.code(key) }, JSON_ONLY), { status: 410, body: { code: 'challenge_gone' } })

  const third = by('ann', 'third')
  const other = (await s.open(third)).body.challenge.id as string
  const fresh = await get(s, third, `verify/${other}`)
  t.match((await post(s, third, `verify/${other}`, { csrf: csrfOf(fresh), code: s.code(key) })).text, /already used/)
  t.match((await post(s, third, `verify/${other}`, { csrf: csrfOf(fresh), code: s.code(key) }, JSON_ONLY)), { body: { code: 'code_used' } })
  const opened = await post(s, third, `verify/${other}`, { csrf: csrfOf(fresh), code: backupCodes[0] ?? '' }, JSON_ONLY)
  t.match(opened, { status: 200, body: { factor: 'backup_code', return_path: '/', backup_codes_left: 5 } })
})

t.test('few backup codes left are said before the person goes on', async t => {
  const s = await startService(t, LONELY)
  const { backupCodes } = await s.enrol(by('ann'), MAILED)
  for (const [index, code] of backupCodes.entries()) {
    const who = by('ann', `session ${index}`)
    const id = (await s.open(who)).body.challenge.id as string
    const answer = await post(s, who, `verify/${id}`, { csrf: csrfOf(await get(s, who, `verify/${id}`)), code })
    const left = 5 - index
    if (left > 2) t.equal(answer.status, 303)
    else t.match(answer.text, left === 0 ? /last|no backup codes|none/i : new RegExp(`${left}`), `${left} left`)
  }
})

t.test('five wrong codes end the page and begin a wait, in which only a backup code is asked for', async t => {
  const s = await startService(t, LONELY)
  const { key } = await s.enrol(by('ann'), MAILED)
  s.nextStep()
  const who = by('ann', 'thief')
  const id = (await s.open(who)).body.challenge.id as string
  const csrf = csrfOf(await get(s, who, `verify/${id}`))
  let last = await get(s, who, `verify/${id}`)
  for (let i = 0; i < 5; i++) last = await post(s, who, `verify/${id}`, { csrf, code: wrongCode(s, key) })
  t.match(last.text, /Wait a moment/)
  t.match(last.text, /backup code/)
  const next = (await s.open(who)).body.challenge.id as string
  const waiting = await get(s, who, `verify/${next}`)
  t.match(waiting.text, /Too many wrong codes\. Try again in/)
  t.match(waiting.text, /Backup code/)
  t.match(await post(s, who, `verify/${next}`, { csrf, code: s.code(key) }, JSON_ONLY), { status: 429, body: { code: 'waiting', retry_after: Number } })
  t.match((await post(s, who, `verify/${next}`, { csrf, code: s.code(key) })).text, /Too many wrong codes/)
  s.advance(11 * 60_000)
  const old = await get(s, who, `verify/${next}`)
  t.equal(old.status, 410)
  t.match(await get(s, who, `verify/${next}`, JSON_ONLY), { status: 410, body: { code: 'challenge_gone' } })
  t.equal((await post(s, who, `verify/${next}`, { csrf: csrfOf(old), code: s.code(key) })).status, 410)
})

t.test('an e-mailed code is sent again on the page, and its wait is said', async t => {
  const s = await startService(t, LONELY)
  await s.enrolEmail(by('eve'), 'eve@example.org')
  s.advance(61_000)
  const who = by('eve', 'later')
  const id = (await s.open(who)).body.challenge.id as string
  const page = await get(s, who, `verify/${id}`)
  t.match(page.text, /e\*+@example\.org|e•+@example\.org|e.{1,8}@/)
  const csrf = csrfOf(page)
  t.match((await post(s, who, `verify/${id}/email`, { csrf })).text, /ask for another|sent a moment ago/)
  t.match(await post(s, who, `verify/${id}/email`, { csrf }, JSON_ONLY), { body: { code: 'waiting', retry_after: Number } })
  t.equal((await post(s, who, `verify/${id}/email`, {})).status, 403)
  t.equal((await post(s, who, `verify/${id}/email`, {}, JSON_ONLY)).status, 403)
  s.advance(61_000)
  t.match((await post(s, who, `verify/${id}/email`, { csrf })).text, /new code was sent/)
  s.advance(61_000)
  t.match(await post(s, who, `verify/${id}/email`, { csrf }, JSON_ONLY), { status: 200, body: { mailed: true, resend_in: 60 } })
  const code = s.mails.at(-1)?.values.code ?? ''
  t.equal((await post(s, who, `verify/${id}`, { csrf, code })).status, 303)
  t.match((await post(s, who, `verify/${id}/email`, { csrf })).text, /Continue|passed/i)
  const ann = by('ann')
  await s.enrol(ann, MAILED)
  const totp = (await s.open(by('ann', '2'))).body.challenge.id as string
  const own = csrfOf(await get(s, by('ann', '2'), `verify/${totp}`))
  t.match((await post(s, by('ann', '2'), `verify/${totp}/email`, { csrf: own })).text, /not available|cannot/i)
})

t.test('who asks must be said whole and in its one spelling', async t => {
  const s = await startService(t, LONELY)
  const ann = by('ann')
  const good = headersOf(ann)
  t.equal((await s.call('GET', '/pages/settings', undefined, HTML)).status, 401)
  for (const wrong of [
    { 'postern-subject': '' }, { 'postern-subject': 'YQ==' }, { 'postern-subject': '_' }, { 'postern-session': 'short' }, { 'postern-browser': 'short' },
    { 'postern-about': 'nonsense' }, { 'postern-about': Buffer.from('[]x').toString('base64url') }, { 'postern-about': Buffer.from('7').toString('base64url') },
    { 'postern-subject': Buffer.from(' ann').toString('base64url') }
  ]) {
    const headers: Record<string, string> = { ...good, ...HTML }
    for (const [name, value] of Object.entries(wrong)) headers[name] = value
    t.equal((await s.call('GET', '/pages/settings', undefined, headers)).status, 400, JSON.stringify(wrong))
  }
  for (const missing of Object.keys(good)) {
    const headers: Record<string, string> = { ...good, ...JSON_ONLY }
    Reflect.deleteProperty(headers, missing)
    t.match(await s.call('GET', '/pages/settings', undefined, headers), { status: 400, body: { code: 'bad_request' } }, missing)
  }
  t.equal((await s.call('GET', '/pages/nowhere', undefined, { ...good, ...HTML })).status, 404)
  t.equal((await s.call('GET', '/pages/assets/0/none.js', undefined, HTML)).status, 404)
  const odd = await s.call('GET', '/pages/settings', undefined, {
    ...headersOf(ann, { email: 7, display_name: 'A\u202enn', locale: 'not a tag', address: '192.0.2.1', user_agent: 'x', action: 'y' }), ...HTML, 'postern-prefix': '//evil', 'postern-notes': 'observe,unknown'
  })
  t.equal(odd.status, 200)
  t.notMatch(odd.text, /\/\/evil/)
  t.match(odd.text, /\/2fa\//)
})

t.test('every verdict and problem that a person can meet has words in both languages', async t => {
  const languages = loadLanguages()
  for (const tag of ['en', 'zh-CN']) {
    const words = languages.choose(tag)
    t.equal(words.language, tag)
    const said = [
      sayVerdict(words, { verdict: 'rejected', left: 0 }), sayVerdict(words, { verdict: 'rejected', left: 1 }), sayVerdict(words, { verdict: 'rejected', left: 3 }),
      sayVerdict(words, { verdict: 'rejected', left: 3, clockOffSeconds: -240 }), sayVerdict(words, { verdict: 'rejected', left: 3, clockOffSeconds: 60 }),
      sayVerdict(words, { verdict: 'used', nextIn: 20 }), sayVerdict(words, { verdict: 'used', nextIn: 0 }),
      sayVerdict(words, { verdict: 'waiting', waitFor: 30 }), sayVerdict(words, { verdict: 'waiting', waitFor: 300 }, { backup: true }),
      sayVerdict(words, { verdict: 'locked' }), sayVerdict(words, { verdict: 'malformed' }), sayVerdict(words, { verdict: 'malformed' }, { backup: true }), sayVerdict(words, { verdict: 'gone' })
    ].map(({ text }) => text)
    t.equal(new Set(said).size, said.length, 'each says something of its own')
    for (const code of ['address_invalid', 'address_missing', 'method_not_available', 'waiting', 'proof_rejected', 'code_malformed', 'enrolment_gone', 'locked'] as const) {
      t.match(sayProblem(words, new Problem(code)), { kind: 'error', text: /\S/ }, code)
    }
    t.equal(sayProblem(words, new Problem('unavailable')), undefined)
    t.not(sayNotice(words, 'locked'), sayNotice(words, 'of a later version'))
    t.notMatch([...said, sayNotice(words, 'of a later version')].join(), /\{\w+\}/)
    t.match(words.time(0), /1/)
    t.match(words.time(61), /2/)
  }
  t.throws(() => languages.choose('en').say('no such words'), TypeError)
  for (const [asked, tag] of [['zh-TW;q=0', 'en'], ['fr, zh;q=0.5, en;q=0.4', 'zh-CN'], ['en-GB', 'en'], ['xx', 'en'], ['', 'en'], ['zh-Hans-CN', 'zh-CN']] as const) {
    t.equal(languages.choose(asked).language, tag, asked)
  }
  t.equal(languages.choose(undefined, 'zh-CN').language, 'zh-CN')
  const mail = loadMailTexts().write('login_code', 'en', { console: 'C', code: '000000', minutes: '10' }, Date.UTC(2026, 0, 2))
  t.notMatch(mail?.text, /Browser:|IP address:/, 'what is not known is not said')
})
