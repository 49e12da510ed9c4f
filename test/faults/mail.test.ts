// Faults of the mail server under three replicas: it refuses, is out of order, says nothing, dawdles, hangs up. Nobody
// who logs in waits for it, a code that may still arrive is tried again, and what is refused for good is not.

import { simpleParser } from 'mailparser'
import t from 'tap'
import { startCrowd } from '../helpers/faults.ts'
import { startPostgres } from '../helpers/postgres.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/redis-shapes.ts'
import { encoded, startReplicas } from '../helpers/replicas.ts'
import { by } from '../helpers/service.ts'
import { startSmtpSink, type Reply, type Step } from '../helpers/smtp-sink.ts'

interface Mode {
  readonly name: string
  readonly at: Step
  readonly reply: Reply
  /** Most copies of one code that the server may have: where its answer to a text is lost, one more goes out. */
  readonly copies: number
}

const MODES: readonly Mode[] = [
  { name: 'C-23 mail: 421 at connection', at: 'connect', reply: '421 not now', copies: 1 },
  { name: 'C-23 mail: 451 for the recipient', at: 'RCPT', reply: '451 not now', copies: 1 },
  { name: 'C-23 mail: silence after the text', at: 'message', reply: 'silence', copies: 2 },
  { name: 'C-25 mail: hangs up after the text', at: 'message', reply: 'hang up', copies: 2 },
  { name: 'C-24 mail: 535, the password is wrong', at: 'AUTH', reply: '535 no', copies: 0 },
  { name: 'C-24 mail: 550, no such recipient', at: 'RCPT', reply: '550 no', copies: 0 }
]

t.test('whatever the mail server does, logins go on, and codes arrive again when it is well', async t => {
  const state: { mode: Mode | undefined, slow: Promise<void> | undefined } = { mode: undefined, slow: undefined }
  const sink = await startSmtpSink(t, async step => {
    await state.slow
    return state.mode?.at === step ? state.mode.reply : undefined
  })
  const [postgres, redis] = await Promise.all([startPostgres(t), startRedis(t)])
  const service = await startReplicas(t, {
    POSTERN_DATABASE: (await postgres.fresh()).url,
    POSTERN_REDIS: redis.url,
    POSTERN_SMTP: `smtp://postern:password@127.0.0.1:${sink.port}`,
    POSTERN_SMTP_TLS: 'none'
  })
  const crowd = await startCrowd(t, service, 12)
  t.teardown(crowd.report)
  let made = 0
  const address = (name: string): string => `${name}@x.example`
  const path = (name: string): string => `/v1/subjects/${encoded(name)}/email`
  const begin = async (name: string) =>
    await service.ask('POST', path(name), { by: by(name), address: address(name) })
  /** The copies that the server has of what was mailed to somebody. */
  const codes = async (name: string): Promise<readonly string[]> => {
    const mails = await Promise.all(sink.messages.map(async text => await simpleParser(text)))
    return mails.filter(({ to }) => JSON.stringify(to).includes(address(name)))
      .map(({ text }) => /^\d{6}$/m.exec(text ?? '')?.[0] ?? 'none')
  }
  /** A code is asked for, arrives and is right. */
  const arrives = async (): Promise<void> => {
    await until('a code by mail', async () => {
      const name = `reader-${made++}`
      const { status, body } = await begin(name)
      if (status !== 200) return false
      const [code = ''] = await until('the mail', async () => {
        const found = await codes(name)
        return found.length > 0 && found
      }, 5_000)
      const confirmed = await service.ask('POST', `${path(name)}/${body.id}/confirm`, { by: by(name), code })
      return confirmed.status === 200
    })
  }
  await arrives()
  const during = new Map<string, Mode>()
  for (const mode of MODES) {
    await t.test(mode.name, async t => {
      const name = `waits-${made++}`
      during.set(name, mode)
      await crowd.endure(t, {
        name: mode.name,
        strike: () => {
          state.mode = mode
          // What is still logged in from before would not meet it.
          sink.cut()
        },
        meanwhile: async noted => { t.equal(noted('begin', await begin(name)).status, 200, 'nobody waits for mail') },
        lift: () => { state.mode = undefined },
        again: arrives
      })
    })
  }
  await t.test('C-23 a tarpit', async t => {
    const name = `waits-${made++}`
    let go = (): void => {}
    await crowd.endure(t, {
      name: 'C-23 mail: a tarpit',
      strike: () => { state.slow = new Promise(resolve => { go = resolve }) },
      meanwhile: async noted => {
        const all = await Promise.all(Array.from({ length: 12 }, async (_, index) =>
          noted('begin', await begin(`${name}-${index}`))))
        t.same(all.map(({ status }) => status), all.map(() => 200), 'nobody waits for mail')
      },
      lift: () => { go(); state.slow = undefined },
      again: arrives
    })
  })
  for (const [name, { copies, name: mode }] of during) {
    const found = await codes(name)
    t.ok(found.length <= copies, `${mode}: ${found.length} copies`)
    t.ok(new Set(found).size <= 1, `${mode}: all copies carry one code`)
    const tries = sink.said.filter(line => line.includes(address(name))).length
    t.ok(tries <= (copies === 0 ? 1 : 3), `${mode}: ${tries} tries`)
  }
})
