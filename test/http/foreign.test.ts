// Threat: whoever learned the id of a challenge or a pending enrolment uses it, spends it or reads it. Every call that
// takes one, by everybody whom it is not for: gone, nothing counted, nothing used up.

import t, { type Test } from 'tap'
import { toBy } from '../../service/src/http/ask.ts'
import { csrfToken } from '../../service/src/http/csrf.ts'
import { by, startService, type Answer, type Service, type WireBy } from '../helpers/service.ts'
import { defaultLimits } from '../../service/src/domain/policy.ts'

t.setTimeout(300_000)

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

interface Call {
  readonly method: Method
  readonly path: string
  /** Required fields of its body beside `by`. */
  readonly fields: readonly string[]
}

/** A slot with its owner, and what is right for it. */
interface Slot {
  readonly what: string
  readonly owner: WireBy
  readonly id: string
  readonly code: string
  readonly finish: () => Promise<Answer>
}

interface BodySchema {
  readonly properties?: object
  readonly required?: readonly string[]
}

interface Document {
  readonly paths: Record<string, Record<string, {
    readonly requestBody?: { readonly content: Record<string, { readonly schema: BodySchema }> }
  }>>
}

/** The calls of the interface that carry `by` in their body, as the OpenAPI document has them. */
async function callsWithBy (s: Service): Promise<readonly Call[]> {
  const document: Document = (await s.app.operations.inject('/openapi.json')).json()
  const calls = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, call]) => ({ method, path, call })))
  return calls.flatMap(({ method, path, call }) => {
    const schema = call.requestBody?.content['application/json']?.schema
    if (schema?.properties === undefined || !('by' in schema.properties)) return []
    const fields = (schema.required ?? []).filter(field => field !== 'by')
    return [{ method: method.toUpperCase() as Method, path, fields }]
  })
}

/** The hosted pages that name a challenge or an enrolment in their address, as the router prints them. */
function pagesWithSlot (s: Service): readonly Call[] {
  const at: string[] = []
  return s.app.api.printRoutes({ commonPrefix: false }).split('\n').flatMap(line => {
    const found = /^(.*?)[├└]── (\S+)(?: \((.*)\))?$/.exec(line)
    if (found === null) return []
    const [, indent = '', part = '', methods = ''] = found
    at.splice(indent.length / 4, at.length, part)
    const path = at.join('').replace(/:(\w+)/g, '{$1}')
    if (!path.startsWith('/pages/') || !/\{(?:id|enrolment)\}/.test(path) || path.includes('notices')) return []
    return methods.split(', ').filter(method => method === 'GET' || method === 'POST').map(method => ({ method: method as Method, path, fields: [] }))
  })
}

/** Slots of every kind, each of somebody else. */
async function slotsOf (s: Service): Promise<readonly Slot[]> {
  const finishing = (who: WireBy, id: string, code: () => string) => async () =>
    await s.answer(who, id, code(), {}, { 'idempotency-key': `the-key-of-${id}` })
  const challenge = async (what: string, who: WireBy, purpose: 'login' | 'step_up', code: () => string) => {
    const { body } = await s.open(who, purpose)
    return { what, owner: who, id: body.challenge.id, code: code(), finish: finishing(who, body.challenge.id, code) }
  }
  const mailed = () => s.mails.at(-1)?.values.code ?? ''
  const confirmed = (who: WireBy, factor: string, id: string, code: string) => async () =>
    await s.call('POST', `/v1/subjects/${s.encoded(who.subject)}/${factor}/${id}/confirm`, { by: who, code })

  const [ann, eve] = [await s.enrol(by('ann')), await s.enrol(by('eve'))]
  await s.enrolEmail(by('max'), 'max@example.org')
  s.advance(90_000)
  const login = await challenge('a login by TOTP', by('ann', 'second'), 'login', () => s.code(ann.key))
  const backup = await challenge('a login by backup code', by('ann', 'third'), 'login', () => ann.backupCodes[0] ?? '')
  const stepUp = await challenge('a step-up', by('eve'), 'step_up', () => s.code(eve.key))
  const email = await challenge('a login by e-mail', by('max', 'second'), 'login', mailed)
  const mailedCode = email.code
  const totp = await s.begin(by('dan'))
  const dan = s.code(totp.body.key)
  const test = await s.call('POST', `/v1/subjects/${s.encoded('kim')}/email`, { by: by('kim'), address: 'kim@example.org' })
  const kim = mailed()
  return [
    login, backup, stepUp,
    { ...email, finish: finishing(email.owner, email.id, () => mailedCode) },
    { what: 'an enrolment of TOTP', owner: by('dan'), id: totp.body.id, code: dan, finish: confirmed(by('dan'), 'totp', totp.body.id, dan) },
    { what: 'an enrolment of e-mail', owner: by('kim'), id: test.body.id, code: kim, finish: confirmed(by('kim'), 'email', test.body.id, kim) }
  ]
}

const others = (owner: WireBy): readonly (readonly [string, WireBy])[] => {
  const elsewhere = by('elsewhere', 'another session', 'another browser')
  return [
    ['another subject', { ...owner, subject: 'mallory' }],
    ['another subject with a factor', { ...owner, subject: owner.subject === 'ann' ? 'eve' : 'ann' }],
    ['another subject in his own browser', by('mallory')],
    ['another spelling of the subject', { ...owner, subject: owner.subject.toUpperCase() }],
    ['another session', { ...owner, session: elsewhere.session }],
    ['another browser', { ...owner, browser: elsewhere.browser }],
    ['no browser', { ...owner, browser: 'none' }]
  ]
}

const GONE = /^(?:challenge|enrolment)_gone$/

/** Everything that an attempt could count or use up, of whoever could be meant. */
async function counted (s: Service, slots: readonly Slot[]): Promise<unknown> {
  const now = s.clock.now()
  const bys = slots.flatMap(({ owner }) => [owner, ...others(owner).map(([, other]) => other)])
  return {
    slots: await Promise.all(slots.map(async ({ owner, id }) =>
      await s.app.pending.read(toBy(s.app.sealer, 't1', owner), id, { browserKnown: false, limits: defaultLimits }))),
    // A language is what a console says of its user, and is said by pages too.
    states: (await Promise.all(bys.map(async one => await s.app.records.subject(toBy(s.app.sealer, 't1', one), now))))
      .map(state => ({ ...state, locale: null })),
    log: await s.app.records.events('t1', 0, 10_000),
    mails: s.mails.length
  }
}

t.test('every call on a challenge or a pending enrolment by another subject, session or browser: gone, and nothing is counted or used up', async t => {
  const s = await startService(t)
  const slots = await slotsOf(s)
  const [calls, pages] = [await callsWithBy(s), pagesWithSlot(s)]
  const onSlots = calls.filter(({ path }) => /\{(?:id|enrolment)\}/.test(path))
  t.ok(onSlots.length >= 4 && pages.length >= 5, `${onSlots.length} calls and ${pages.length} pages`)
  const wrong = slots.flatMap(({ code }) => code).includes('000000') ? '111111' : '000000'
  const before = await counted(s, slots)
  let sent = 0
  const refused = async (t: Test, words: string, answer: Answer): Promise<void> => {
    sent++
    t.match([answer.status, answer.body?.code], [410, GONE], words)
  }
  for (const slot of slots) {
    await t.test(slot.what, async t => {
      for (const [words, foreign] of others(slot.owner)) {
        for (const code of [slot.code, wrong, 'x']) {
          for (const { method, path, fields } of onSlots) {
            const known: Record<string, unknown> = { by: foreign, code }
            const body = Object.fromEntries(['by', ...fields].map(field => [field, known[field]]))
            for (const subject of new Set([slot.owner.subject, foreign.subject])) {
              const url = path.replace('{id}', slot.id).replace('{enrolment}', slot.id).replace('{subject}', s.encoded(subject))
              await refused(t, `${method} ${path}, ${words}`, await s.call(method, url, body, { 'idempotency-key': `the-key-of-${slot.id}` }))
            }
          }
          for (const { method, path } of pages) {
            const url = path.replace('{id}', slot.id).replace('{enrolment}', slot.id)
            const csrf = csrfToken(s.app.sealer, toBy(s.app.sealer, 't1', foreign), s.clock.now())
            await refused(t, `${method} ${path}, ${words}`, await s.call(method, url, method === 'GET' ? undefined : { csrf, code }, {
              accept: 'application/json',
              'postern-subject': s.encoded(foreign.subject),
              'postern-session': foreign.session,
              'postern-browser': foreign.browser
            }))
          }
        }
      }
    })
  }
  // What names its subject in the path is not for a `by` of another.
  for (const { method, path, fields } of calls) {
    if (!path.includes('{subject}')) continue
    for (const slot of slots) {
      const known: Record<string, unknown> = { by: { ...slot.owner, subject: 'mallory' }, code: slot.code }
      const url = path.replace('{enrolment}', slot.id).replace('{subject}', s.encoded(slot.owner.subject))
      await refused(t, `${method} ${path} of ${slot.owner.subject} by mallory`, await s.call(method, url, Object.fromEntries(['by', ...fields].map(field => [field, known[field]]))))
    }
  }
  t.same(await counted(s, slots), before, 'no attempt, failure, code, mail or line of the log')
  t.comment(`${sent} calls were refused`)

  for (const slot of slots) {
    const finished = await slot.finish()
    t.equal(finished.status, 200, `${slot.what}: its owner finishes; ${finished.text}`)
    for (const [words, foreign] of others(slot.owner)) {
      const repeated = await s.answer(foreign, slot.id, slot.code, {}, { 'idempotency-key': `the-key-of-${slot.id}` })
      t.match(repeated.body, { code: GONE }, `${words} gets nothing of the repeat of ${slot.what}`)
    }
  }
})

t.test('another subject, session or browser that opens a challenge gets its own, not the one that is open', async t => {
  const s = await startService(t)
  const { key } = await s.enrol(by('ann'))
  await s.enrol(by('eve'))
  s.nextStep()
  const owner = by('ann', 'second')
  const id: string = (await s.open(owner, 'login', { return_path: '/mine' })).body.challenge.id
  for (const [words, foreign] of others(owner)) {
    const opened = await s.open(foreign, 'login', { return_path: '/theirs' })
    if (opened.body.status === 'open') t.not(opened.body.challenge.id, id, words)
    else t.match(opened.body, { status: 'not_required' }, words)
  }
  t.match((await s.answer(owner, id, s.code(key))).body, { return_path: '/mine' })
})
