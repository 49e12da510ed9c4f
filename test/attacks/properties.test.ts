// Threat: inputs that nobody listed. Whatever a path, a Cookie header or a header name looks like, the gate and the
// router read the same, and what the gate reads as one login is one for every reader.

import cookie from '@fastify/cookie'
import Fastify from 'fastify'
import fc from 'fast-check'
import t from 'tap'
import { createCredentials, stripOurs } from '../../plugin/src/credentials.ts'
import { canonicalTarget, pattern, returnPath } from '../../plugin/src/path.ts'
import { bindingName, binding } from '../helpers/console.ts'
import { habitOf, loginsOf, pathsOf } from '../helpers/readings.ts'

t.setTimeout(600_000)

const piece = fc.oneof(
  fc.constantFrom('settings', 'SETTINGS', '%73ettings', '%2573ettings', 'x', '.', '..', '%2e', '%2e%2e', '%252e', '%2f', '%5c', '\\', ';', ';a=b', '', '%00', '%20', ' ', '#', '?', '?x',
    'sett%69ngs', '%u0073', '%', '%zz', '%ef%bc%8f', '%ef%bc%8e', '%c5%bf', 'sett\u0131ngs', '%c4%b1', '+', '~', '%7e', 'a%20b', '\u00e9', '%c3%a9', ':', '@', '*'),
  fc.string({ maxLength: 4 }),
  fc.nat(255).map(code => `%${code.toString(16).padStart(2, '0')}`)
)
const wild = fc.array(fc.tuple(fc.constantFrom('/', '/', '/', '//', '\\', ''), piece), { minLength: 1, maxLength: 5 })
  .map(parts => `/${parts.map(([slash, text]) => slash + text).join('')}`)

// What a console is really asked for, spelled as somebody might who wants it read otherwise: other cases, escapes,
// dots, suffixes. Most of it is accepted, so that gate and router have something to agree on.
const word = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('settings', 'settings', 'pages', 'files', 'open', 'items', 'setting', 'settingsx') },
  { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z0-9_~-]{1,8}$/) },
  { weight: 1, arbitrary: fc.constantFrom('a.b', '...', '.well-known', 'a..b', 'a%20b', '%c3%a9', '%E4%BD%A0', 'x@y', 'a:b', "o'x", '$', '!', '(1)', 'a,b', 'a=b', 'a&b', '*') }
)
const escaped = (letter: string): string => `%${letter.charCodeAt(0).toString(16)}`
const SPELLINGS: readonly ((letter: string) => string)[] = [
  letter => letter.toUpperCase(),
  escaped,
  letter => escaped(letter).toUpperCase(),
  letter => escaped(letter.toUpperCase())
]
const spelled = fc.tuple(word, fc.array(fc.tuple(fc.nat(7), fc.constantFrom(...SPELLINGS)), { maxLength: 3 }))
  .map(([text, changes]) => {
    const letters = /[%]/.test(text) ? [text] : [...text]
    for (const [at, spell] of changes) {
      const letter = letters[at]
      if (letter !== undefined && /^[A-Za-z]$/.test(letter)) letters[at] = spell(letter)
    }
    return letters.join('')
  })
/** Mostly nothing, sometimes what belongs there, seldom what is refused. */
const ending = (good: readonly string[], bad: readonly string[]): fc.Arbitrary<string> => fc.oneof(
  { weight: 12, arbitrary: fc.constant('') },
  { weight: 3, arbitrary: fc.constantFrom(...good) },
  { weight: 1, arbitrary: fc.constantFrom(...bad) }
)
const segment = fc.tuple(spelled, ending(['.json', '.', '~', '+', '%7e'], ['%20', '%09', ';x', '%3b', '%2f']))
  .map(parts => parts.join(''))
const plausible = fc.tuple(
  fc.array(segment, { minLength: 1, maxLength: 3 }),
  ending(['/'], ['//', '/.', '/..', '/%2e']),
  ending(['?', '?x=1', '?a=/../settings', '?a;b', '?%2f..%2f'], ['?#', '#', '?\\'])
).map(([segments, end, query]) => `/${segments.join('/')}${end}${query}`)
const target = fc.oneof({ weight: 3, arbitrary: plausible }, { weight: 1, arbitrary: wild })

/** At least so many of the paths must be accepted, or the properties hold for nothing. */
const FLOOR = 0.25

t.test('a path that the gate accepts has one reading, and is that of every habit', async t => {
  let accepted = 0
  fc.assert(fc.property(target, text => {
    const canonical = canonicalTarget(text)
    if ('refused' in canonical) return
    accepted++
    const again = canonicalTarget(canonical.path + canonical.query)
    if ('refused' in again || again.path !== canonical.path) throw new Error(`${text}: canonical once is not canonical twice`)
    const { pathname } = new URL(`http://x${canonical.path}`)
    if (decodeURIComponent(pathname) !== decodeURIComponent(canonical.path)) throw new Error(`a URL parser reads ${pathname} for ${canonical.path}`)
    const loose = pattern('/settings/*', 'loose')
    for (const read of pathsOf({ url: canonical.path, headers: {} })) {
      if ((read === '/settings' || read.startsWith('/settings/')) && !loose.test(canonical.path)) throw new Error(`${text} is read as ${read}`)
    }
  }), { numRuns: 5_000 })
  t.ok(accepted > 5_000 * FLOOR, `${accepted} of 5000 accepted`)
  t.comment(`${accepted} of 5000 paths accepted`)
})

t.test('what is kept to return to never leaves the origin', async t => {
  const evil = fc.tuple(
    fc.constantFrom('/', '//', '///', '/\\', '\\', '\\\\', '/%09/', '/%0a/', '/\t/', '/\n/', '/./', '/..//', '/;/', '/@', 'http:', 'https://', 'javascript:', '/ /', '/\u00a0/', '%2f%2f', '/%2f', '/%5c', ''),
    fc.constantFrom('evil.example', 'user@evil.example', 'x:y@evil.example', '//evil.example', '\\evil.example', '%2fevil.example', 'evil.example%00', '\t//evil.example', '.evil.example', ':80@evil.example'),
    fc.oneof(fc.string({ maxLength: 6 }), fc.constantFrom('', '/', '?x', '#x', '\\', ';'))
  ).map(parts => parts.join(''))
  fc.assert(fc.property(fc.oneof(evil, fc.webUrl(), fc.string(), target), text => {
    const kept = returnPath(text)
    const url = new URL(kept, 'https://console.example')
    if (url.origin !== 'https://console.example' || !kept.startsWith('/') || /^\/[/\\]/.test(kept) || kept.length > 512) throw new Error(`${JSON.stringify(text)} leads to ${url.href}`)
  }), { numRuns: 5_000 })
  t.equal(returnPath('/a?b=//evil.example'), '/a?b=//evil.example')
})

t.test('a Cookie header that is accepted shows one login to every reader, and to the console\'s parser', async t => {
  const app = Fastify()
  await app.register(cookie)
  const read = createCredentials({ cookies: ['sid'], headers: ['X-Api-Key'], query: ['token'] }, bindingName())
  const bound = `${bindingName()}=${binding('one')}`
  const name = fc.oneof(fc.constantFrom('sid', 'sid', 'SID', 'Sid', '"sid"', ' sid', 's%69d', 's%2569d', 'sid[]', '$sid', '\tsid', 'x', bindingName(), ''), fc.string({ maxLength: 3 }))
  const value = fc.oneof(fc.constantFrom('ann.1', 'bob.1', '"ann.1"', 'ann.1,bob.1', 'bob%2e1', '', '=', '"', ' ann.1'), fc.string({ maxLength: 4 }))
  const separator = fc.constantFrom('; ', ';', ',', ', ', ' ', ';;', '\t;', '; \t')
  const header = fc.array(fc.tuple(name, fc.constantFrom('=', '=', '=', ''), value, separator), { maxLength: 5 })
    .map(parts => Buffer.from(parts.map(part => part.join('')).join('') + bound).toString('latin1'))
  let accepted = 0
  fc.assert(fc.property(header, text => {
    const presented = read(['Cookie', text], '')
    if ('refused' in presented) return
    accepted++
    const found = loginsOf({ url: '/', headers: { cookie: text } }, habitOf('sid'), ['ann.1', 'bob.1'])
    if (found.length > 1) throw new Error(`${JSON.stringify(text)} shows ${found.join(' and ')}`)
    const parsed = app.parseCookie(text)['sid']
    if (found.length === 1 && parsed !== undefined && parsed !== '' && ['ann.1', 'bob.1'].includes(parsed) && parsed !== found[0]) throw new Error(`the console reads ${parsed} in ${JSON.stringify(text)}`)
    if (parsed !== undefined && !presented.any) throw new Error(`the console reads a session in ${JSON.stringify(text)}, the gate none`)
  }), { numRuns: 5_000 })
  t.ok(accepted > 100, `${accepted} of 5000 accepted`)
  await app.close()
})

t.test('two ways to show a login are refused, however the second is spelled; ours never stay', async t => {
  const read = createCredentials({ cookies: ['sid'], headers: ['X-Api-Key'], query: ['token'] }, bindingName())
  const spelled = (name: string): fc.Arbitrary<string> =>
    fc.array(fc.boolean(), { minLength: name.length, maxLength: name.length })
      .map(upper => [...name].map((letter, i) => upper[i] === true ? letter.toUpperCase() : letter.toLowerCase()).join(''))
  fc.assert(fc.property(spelled('authorization'), spelled('x-api-key'), fc.boolean(), (one, other, underscore) => {
    const second = underscore ? other.replaceAll('-', '_') : other
    for (const headers of [['Cookie', 'sid=ann.1', one, 'x'], ['Cookie', 'sid=ann.1', second, 'x'], [one, 'x', second, 'y'], [second, 'x', second, 'y']]) {
      if (!('refused' in read(headers, ''))) throw new Error(headers.join(' | '))
    }
  }))
  fc.assert(fc.property(fc.constantFrom('postern-subject', 'postern-exempt', 'postern-next-browser', 'postern-anything', '2fa-code').chain(spelled), fc.boolean(), (name, underscore) => {
    const given = underscore ? name.replaceAll('-', '_') : name
    const headers: Record<string, string> = { [given.toLowerCase()]: 'x', host: 'x' }
    const raw = ['Host', 'x', given, 'x']
    stripOurs(headers, raw)
    if (Object.keys(headers).length !== 1 || raw.length !== 2) throw new Error(given)
  }))
  t.pass('none passed')
})

t.test('router and gate agree on every target: no handler of a sensitive route runs without a step-up, and what is public is so for every reader', async t => {
  // What the router matches decides, whatever it folds; nothing but the rule of the route that runs may count.
  const { createRules } = await import('../../plugin/src/rules.ts')
  const { pattern: compile } = await import('../../plugin/src/path.ts')
  const rules = createRules({ stepUpPatterns: [{ ...compile('/pages/settings', 'loose'), maxAge: 300 }], publicPatterns: [compile('/files/open', 'exact')] })
  for (const routerOptions of [{}, { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true }]) {
    const app = Fastify({ routerOptions })
    let wrong: string | undefined
    let accepted = 0
    const seen = { sensitive: 0, open: 0 }
    const check = (sensitive: (url: string) => boolean) => async (
      request: Parameters<typeof rules.of>[0]
    ): Promise<object> => {
      const url = request.raw.url ?? ''
      const rule = rules.of(request, url, false)
      if ('refused' in rule) return {}
      accepted++
      const must = sensitive(url)
      seen.sensitive += Number(must)
      seen.open += Number(rule.rule === 'public')
      if (must && rule.stepUp === null) wrong = `${url} needs no step-up`
      const path = url.split('?')[0] ?? ''
      if (rule.rule === 'public' && pathsOf({ url: path, headers: {} }).some(read => read !== '/files/open')) wrong = `${url} is public`
      return {}
    }
    app.get('/settings', { config: { postern: { stepUp: true } } }, check(() => true))
    app.get('/pages/:page', async request => {
      const page = String(Reflect.get(Object(request.params), 'page')).toLowerCase()
      return await check(() => page === 'settings')(request)
    })
    app.get('/*', check(url => pathsOf({ url, headers: {} }).some(read => read === '/pages/settings')))
    await app.ready()
    const based = fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom('', '/pages', '/files', '/pages/settings').chain(base => target.map(text => base + text)) },
      { weight: 1, arbitrary: fc.tuple(fc.constantFrom('', '/pages', '/files'), spelled, ending(['/'], ['//'])).map(([base, text, end]) => `${base}/${text}${end}`) }
    )
    await fc.assert(fc.asyncProperty(based, async text => {
      if (/[^\x21-\x7e]/.test(text)) return
      await app.inject({ method: 'GET', url: text }).catch(() => {})
      if (wrong !== undefined) throw new Error(wrong)
    }), { numRuns: 4_000 })
    t.comment(`${accepted} of 4000 targets accepted, ${seen.sensitive} of them sensitive, ${seen.open} public`)
    t.ok(accepted > 4_000 * FLOOR, `${accepted} of 4000 reached a handler and were accepted`)
    t.ok(seen.sensitive > 20 && seen.open > 0, JSON.stringify(seen))
    await app.close()
  }
})
