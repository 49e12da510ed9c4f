// Mail servers that refuse, hang, hang up, forget their TLS or are slow: what becomes of a login code, of whoever waits
// for it, and of everybody else's mail.

import t from 'tap'
import { until } from './helpers/redis-shapes.ts'
import { by, startService, type Teardown } from './helpers/service.ts'
import { startSmtpSink, type Reply, type Step } from './helpers/smtp-sink.ts'

const PASSWORD = 'the mail password'
/** Words of the mail server that nobody but its administrator should read. */
const WORDS = 'queue-7f3 relay.internal.example'

type Says = (step: Step, line: string) => Reply | undefined | Promise<Reply | undefined>

/** A service whose mail server is whatever `server.says` makes of it. */
async function both (t: Teardown, env: Record<string, string> = {}) {
  const server: { says: Says } = { says: () => undefined }
  const sink = await startSmtpSink(t, async (step, line) => await server.says(step, line))
  const service = await startService(t, {
    smtp: true,
    env: {
      POSTERN_SMTP: `smtp://postern:${encodeURIComponent(PASSWORD)}@127.0.0.1:${sink.port}`, POSTERN_SMTP_TLS: 'none', ...env
    }
  })
  const metric = async (name: string) =>
    Number(new RegExp(`^${name} (\\S+)$`, 'm').exec((await service.app.operations.inject('/metrics')).payload)?.[1])
  /** When nothing waits, is under way or is to be tried again. */
  const settled = async () => { await until('the queue of codes to be empty', async () => await metric('postern_mail_queue') === 0) }
  const codeIn = (message: string | undefined) => /^\d{6}$/m.exec(message ?? '')?.[0] ?? 'none'
  const lines = (words: string) => service.log.filter(line => line.includes(words))
  const begin = async (subject: string, key = service.keys.gate.key) => await service.call(
    'POST', `/v1/subjects/${service.encoded(subject)}/email`, { by: by(subject), address: `${subject}@x.example` }, { authorization: `Bearer ${key}` })
  return {
    server,
    sink,
    service,
    metric,
    settled,
    codeIn,
    /** What was logged of codes that did not arrive. */
    failures: () => lines('a code could not be mailed').map(line => JSON.parse(line) as { reply?: number, code: string, again: boolean }),
    lines,
    /** Sends a test code; a mail that goes out at once or not at all, as each code. */
    begin,
    /** Somebody with e-mail verification, who may be sent the next code. */
    enrolled: async (subject: string) => {
      const begun = await begin(subject)
      await settled()
      const confirmed = await service.call('POST', `/v1/subjects/${service.encoded(subject)}/email/${begun.body.id}/confirm`, {
        by: by(subject), code: codeIn(sink.messages.at(-1))
      })
      if (confirmed.status !== 200) throw new Error(confirmed.text)
      service.advance(61_000)
      sink.messages.length = 0
      sink.said.length = 0
    },
    /** How often the client said this. */
    times: (word: string) => sink.said.filter(line => line.startsWith(word)).length
  }
}

t.test('C-23: a login code that is refused for now is tried again, at most three times, and opens when it arrives', async t => {
  const s = await both(t)
  await s.enrolled('ann')
  const later = by('ann', 'later')
  const refusals: [Step, string][] = [['MAIL', `421 ${WORDS}`], ['RCPT', `451 ${WORDS}`]]
  s.server.says = step => refusals[0]?.[0] === step ? refusals.shift()?.[1] : undefined
  const opened = await s.service.open(later)
  t.match(opened.body, { status: 'open', challenge: { mailed: true } })
  await s.settled()
  t.match(s.failures(), [{ again: true }, { reply: 451, again: true }])
  t.equal(s.sink.messages.length, 1)
  t.equal((await s.service.answer(later, opened.body.challenge.id, s.codeIn(s.sink.messages[0]))).status, 200)

  s.server.says = step => step === 'RCPT' ? `451 ${WORDS}` : undefined
  s.sink.said.length = 0
  t.equal((await s.begin('bob')).status, 200)
  await s.settled()
  t.equal(s.times('RCPT'), 3, 'the third time is the last')
  t.match(s.failures().slice(2), [{ again: true }, { again: true }, { again: false }])
  t.equal(s.sink.messages.length, 1)
})

t.test('C-24: an address or a login that is refused for good is tried once, shows to the operator and never to the user', async t => {
  const s = await both(t)
  await s.enrolled('ann')
  const readiness = async () => JSON.parse((await s.service.app.operations.inject('/readyz')).payload) as unknown
  const told: string[] = []
  for (const [step, reply, word, up] of [['RCPT', 550, 'RCPT', 1], ['AUTH', 535, 'AUTH', 0]] as const) {
    // A pooled connection is logged in already: the server ends it before it refuses another login.
    if (step === 'AUTH') {
      s.server.says = at => at === 'MAIL' ? 'hang up' : undefined
      await s.begin('carol')
      await s.settled()
    }
    s.sink.said.length = 0
    const before = s.failures().length
    s.server.says = at => at === step ? `${reply} 5.1.1 ${WORDS}` : undefined
    s.service.advance(61_000)
    const who = by('ann', `with ${reply}`)
    const opened = await s.service.open(who)
    t.equal(opened.body.status, 'open', `${reply}: whoever has another factor may use it`)
    await s.settled()
    t.equal(s.times(word), 1, `${reply} is not tried again`)
    t.match(s.failures().slice(before), [{ reply, again: false }])
    t.match(await readiness(), { status: 'ready', checks: { mail: up === 1 ? 'ok' : 'failed' } }, `${reply}`)
    t.equal(await s.metric('postern_mail_up'), up, `${reply}`)
    s.service.advance(61_000)
    const again = await s.service.call('POST', `/v1/challenges/${opened.body.challenge.id}/email`, { by: who })
    const answered = await s.service.answer(who, opened.body.challenge.id, '000000')
    const settings = await s.service.call('GET', `/v1/subjects/${s.service.encoded('ann')}`)
    t.match([again.status, answered.status, settings.status], [200, 403, 200])
    told.push(opened.text, again.text, answered.text, settings.text)
    await s.settled()
  }
  t.same(s.sink.messages, [])
  t.notMatch(told.join(), /queue-7f3|relay\.internal|EAUTH|EENVELOPE|5\.1\.1/)
  t.notMatch(s.service.log.join(), /queue-7f3|relay\.internal|ann@x|the mail password/, 'nor does a log have the words of the server')

  s.server.says = () => undefined
  t.equal((await s.begin('dave')).status, 200)
  await s.settled()
  t.match(await readiness(), { checks: { mail: 'ok' } }, 'until a mail is taken')
  t.equal(await s.metric('postern_mail_up'), 1)
})

t.test('C-25: where the server took the mail and hung up, at most two copies arrive, with one code that opens once', async t => {
  const s = await both(t)
  await s.enrolled('ann')
  s.server.says = step => step === 'message' ? 'hang up' : undefined
  const later = by('ann', 'later')
  const opened = await s.service.open(later)
  await s.settled()
  t.equal(s.sink.messages.length, 2)
  const codes = new Set(s.sink.messages.map(s.codeIn))
  t.equal(codes.size, 1)
  const [code = ''] = codes
  t.equal((await s.service.answer(later, opened.body.challenge.id, code)).status, 200)
  t.match((await s.service.answer(later, opened.body.challenge.id, code)).body, { code: 'challenge_gone' })
})

t.test('C-26: a server that lost its STARTTLS gets neither the password nor a mail', async t => {
  const s = await both(t, { POSTERN_SMTP_TLS: 'required' })
  t.equal((await s.begin('ann')).status, 200)
  await until('the failure', async () => s.failures().length > 0)
  await s.settled()
  t.ok(s.times('EHLO') > 0, 'it was asked')
  const wire = s.sink.said.join('\n')
  t.equal(s.times('AUTH') + s.times('MAIL'), 0, wire)
  for (const secret of [PASSWORD, Buffer.from(PASSWORD).toString('base64'), Buffer.from(`\0postern\0${PASSWORD}`).toString('base64'), 'ann@x']) {
    t.notOk(wire.includes(secret))
  }
  t.same(s.sink.messages, [])
})

t.test('C-23: mails that hang hold up neither an answer nor the mail of another tenant, and are dropped once expired', async t => {
  const s = await both(t)
  let release = (): void => {}
  const held = new Promise<undefined>(resolve => { release = () => { resolve(undefined) } })
  t.teardown(release)
  s.server.says = async (step, line) => step === 'RCPT' && line.includes('slow') ? await held : undefined
  const flood = await Promise.all(Array.from({ length: 140 }, async (_, index) => (await s.begin(`slow${index}`)).status))
  t.same(s.sink.messages, [], 'all were answered before the server took anything')
  const taken = flood.filter(status => status === 200).length
  t.same(flood.filter(status => status !== 200 && status !== 503), [])
  t.ok(taken >= 100 && taken < 140, `${taken}: what waits is bounded for each tenant`)
  t.ok(s.sink.connections() <= 5, `${s.sink.connections()} connections`)

  t.equal((await s.begin('ann', s.service.keys.other.key)).status, 200)
  await until('the mail of the other tenant', async () => s.sink.messages.some(message => message.includes('To: ann@x.example')))
  t.equal(s.sink.messages.length, 1, 'while the others hang')
  t.ok(s.sink.connections() <= 5, `${s.sink.connections()} connections`)

  s.service.advance(11 * 60_000)
  release()
  await s.settled()
  t.ok(s.sink.messages.length <= 6, `${s.sink.messages.length}: of those that hung only what was under way arrived`)
  t.ok(s.lines('a code expired before it could be mailed').length >= taken - 5)
})

t.test('C-21: a code that waits to be tried again is tried at once when the process ends', async t => {
  const s = await both(t)
  let refused = 0
  s.server.says = step => step === 'RCPT' && refused < 2 ? `451 ${++refused}` : undefined
  await s.begin('ann')
  // The pause after the second refusal is longer than an end waits for mails.
  await until('the second refusal', async () => s.failures().length === 2)
  t.same(s.sink.messages, [])
  await s.service.app.close()
  t.equal(s.sink.messages.length, 1)
})
