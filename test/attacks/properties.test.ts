// Threat: inputs that nobody listed. Whatever a path, a Cookie header or a header name looks like, the gate and the
// router read the same, and what the gate reads as one login is one for every reader.

import cookie from '@fastify/cookie'
import Fastify from 'fastify'
import fc from 'fast-check'
import t from 'tap'
import { createCredentials, stripOurs } from '../../plugin/src/credentials.ts'
import { canonicalTarget, pattern, returnPath } from '../../plugin/src/path.ts'
import { bindingName, binding } from '../helpers/console.ts'
import { loginsOf, pathsOf } from '../helpers/readings.ts'

t.setTimeout(600_000)

const piece = fc.oneof(
  fc.constantFrom('settings', 'SETTINGS', '%73ettings', '%2573ettings', 'x', '.', '..', '%2e', '%2e%2e', '%252e', '%2f', '%5c', '\\', ';', ';a=b', '', '%00', '%20', ' ', '#', '?', '?x',
    'sett%69ngs', '%u0073', '%', '%zz', '%ef%bc%8f', '%ef%bc%8e', '%c5%bf', 'sett\u0131ngs', '%c4%b1', '+', '~', '%7e', 'a%20b', '\u00e9', '%c3%a9', ':', '@', '*'),
  fc.string({ maxLength: 4 }),
  fc.nat(255).map(code => `%${code.toString(16).padStart(2, '0')}`)
)
const target = fc.array(fc.tuple(fc.constantFrom('/', '/', '/', '//', '\\', ''), piece), { minLength: 1, maxLength: 5 })
  .map(parts => `/${parts.map(([slash, text]) => slash + text).join('')}`)

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
  t.ok(accepted > 50, `${accepted} of 5000 accepted`)
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
    const found = loginsOf({ url: '/', headers: { cookie: text } }, 'sid', ['ann.1', 'bob.1'])
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

t.test('router and gate agree on every target: no handler of a sensitive route runs without a step-up', async t => {
  // What the router matches decides, whatever it folds; nothing but the rule of the route that runs may count.
  const { createRules } = await import('../../plugin/src/rules.ts')
  const { pattern: compile } = await import('../../plugin/src/path.ts')
  const rules = createRules({ stepUpPatterns: [{ ...compile('/pages/settings', 'loose'), maxAge: 300 }], publicPatterns: [] })
  for (const routerOptions of [{}, { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true }]) {
    const app = Fastify({ routerOptions })
    let wrong: string | undefined
    let ran = 0
    const check = (sensitive: (url: string) => boolean) => async (
      request: Parameters<typeof rules.of>[0]
    ): Promise<object> => {
      ran++
      const url = request.raw.url ?? ''
      const rule = rules.of(request, url, false)
      if (!('refused' in rule) && rule.stepUp === null && sensitive(url)) wrong = url
      return {}
    }
    app.get('/settings', { config: { postern: { stepUp: true } } }, check(() => true))
    app.get('/pages/:page', async request => {
      const page = String(Reflect.get(Object(request.params), 'page')).toLowerCase()
      return await check(() => page === 'settings')(request)
    })
    app.get('/*', check(url => pathsOf({ url, headers: {} }).some(read => read === '/pages/settings')))
    await app.ready()
    await fc.assert(fc.asyncProperty(fc.constantFrom('', '/pages').chain(base => target.map(text => base + text)), async text => {
      if (/[^\x21-\x7e]/.test(text)) return
      await app.inject({ method: 'GET', url: text }).catch(() => {})
      if (wrong !== undefined) throw new Error(wrong)
    }), { numRuns: 2_000 })
    t.ok(ran > 500, `${ran} of 2000 reached a handler`)
    await app.close()
  }
})
