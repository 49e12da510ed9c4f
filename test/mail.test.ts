// Mail over a real SMTP server with STARTTLS and login: what arrives, in whose language, and what if it does not.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startMailbox, type Mailbox, type MailboxOptions } from '../examples/mailbox/mailbox.ts'
import { retryAt } from '../service/src/adapters/mail.ts'
import { loadMailTexts } from '../service/src/adapters/mail-texts.ts'
import { openTransport } from '../service/src/adapters/mail-transport.ts'
import { describeUserAgent } from '../service/src/adapters/user-agent.ts'
import { CODES, NOTICES } from '../service/src/domain/messages.ts'
import { readSender, readSmtp } from '../service/src/mail-settings.ts'
import { until } from './helpers/browser.ts'
import { dataFolder } from './helpers/processes.ts'
import { by, startService, type Teardown } from './helpers/service.ts'

const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'

/** A service that mails through a mail server of its own. */
async function both (t: Teardown, options: MailboxOptions = {}, env: Record<string, string> = {}) {
  const mailbox = await startMailbox(options)
  t.teardown(async () => { await mailbox.close() })
  const ca = join(dataFolder(t), 'ca.pem')
  writeFileSync(ca, mailbox.ca)
  const service = await startService(t, {
    smtp: true,
    env: { POSTERN_SMTP: mailbox.smtp, POSTERN_SMTP_CA: ca, POSTERN_MAIL_FROM: '"Console" <postern@console.example>', ...env }
  })
  service.app.start()
  return { mailbox, service }
}

const newest = async (mailbox: Mailbox, to: string, words: RegExp) =>
  await until(`a mail to ${to} with ${String(words)}`, async () =>
    mailbox.messages().find(one => one.to.includes(to) && (words.test(one.subject) || words.test(one.text))))

t.test('a login code arrives in both parts, alone on its line and first in the preview, and opens', async t => {
  const { mailbox, service } = await both(t)
  const ann = by('ann')
  const about = { locale: 'zh-CN', user_agent: FIREFOX, address: '192.0.2.7' }
  const begun = await service.call('POST', `/v1/subjects/${service.encoded('ann')}/email`, { by: ann, address: 'ann@x.example', about })
  const test = await newest(mailbox, 'ann@x.example', /^\d{6}$/m)
  t.match(test.text, /[\u4e00-\u9fff]/, 'in the language of the reader')
  const code = /^\d{6}$/m.exec(test.text)?.[0] ?? ''
  t.equal((await service.call('POST', `/v1/subjects/${service.encoded('ann')}/email/${begun.body.id}/confirm`, { by: ann, code })).status, 200)
  await newest(mailbox, 'ann@x.example', /开启|启用/)

  const later = by('ann', 'later')
  const opened = await service.open(later, 'login', { about: { ...about, locale: 'en' } })
  const mail = await newest(mailbox, 'ann@x.example', /your verification code/)
  t.equal(mail.from, '"Console" <postern@console.example>')
  t.match(mail.subject, /^Console One: /)
  const login = /^\d{6}$/m.exec(mail.text)?.[0] ?? 'none'
  t.equal(mail.text.trimStart().indexOf(login), 0)
  t.match(mail.text, /good for 10 minutes/)
  t.match(mail.text, /Browser: Firefox on Linux/)
  t.match(mail.text, /IP address: 192\.0\.2\.7/)
  t.match(mail.text, /Time: \d{4}-\d\d-\d\d \d\d:\d\d UTC/)
  t.match(mail.text, /If this was not you/)
  t.match(mail.html, new RegExp(`<div style="display:none[^>]*>${login}`))
  t.match(mail.html, '<html lang="en">')
  t.notMatch(mail.html, /<a |href=|src=|http/i, 'nothing to click')
  t.match((await service.answer(later, opened.body.challenge.id, login)).body, { assurance: { factor: 'email' } })
  t.notMatch(service.log.join('\n'), new RegExp(`${login}|${code}|ann@x\\.example`))
  t.match(JSON.parse((await service.app.operations.inject('/readyz')).payload), { checks: { mail: 'ok' } })
})

t.test('every change of factors is mailed, once, to whom it belongs', async t => {
  const { mailbox, service } = await both(t)
  const ann = by('ann')
  const about = { email: 'ann@x.example', user_agent: FIREFOX }
  const { key, backupCodes } = await service.enrol(ann, { about })
  await newest(mailbox, 'ann@x.example', /2FA was enabled/)
  service.nextStep()
  await service.verify(by('ann', '2'), 'login', backupCodes[0] ?? '')
  await newest(mailbox, 'ann@x.example', /backup code was used/i)
  service.nextStep()
  await service.verify(ann, 'step_up', service.code(key))
  t.equal((await service.call('POST', `/v1/subjects/${service.encoded('ann')}/backup-codes`, { by: ann })).status, 200)
  await newest(mailbox, 'ann@x.example', /[Nn]ew backup codes/)
  service.nextStep()
  await service.verify(ann, 'step_up', service.code(key))
  const disabled = await service.call('DELETE', `/v1/subjects/${service.encoded('ann')}/totp`, { by: ann })
  t.equal(disabled.status, 204, disabled.text)
  await newest(mailbox, 'ann@x.example', /2FA was disabled/)
  t.equal(mailbox.messages().filter(one => /2FA was enabled/.test(one.subject)).length, 1)
  for (const mail of mailbox.messages()) {
    t.same(mail.to, ['ann@x.example'])
    for (const secret of [key, ...backupCodes]) t.notMatch(mail.text + mail.html, secret)
  }
})

t.test('with the mail server down nobody waits, readiness stays green, and notices arrive once it is back', async t => {
  const { mailbox, service } = await both(t)
  const port = Number(new URL(mailbox.smtp).port)
  const { password } = new URL(mailbox.smtp)
  await mailbox.close()
  const ann = by('ann')
  const began = performance.now()
  await service.enrol(ann, { about: { email: 'ann@x.example' } })
  const opened = await service.call('POST', `/v1/subjects/${service.encoded('bob')}/email`, { by: by('bob'), address: 'bob@x.example' })
  t.equal(opened.status, 200)
  t.ok(performance.now() - began < 8_000, 'no answer waits for mail, which may take ten seconds to fail')
  const readiness = async () => await service.app.operations.inject('/readyz')
  await until('the failure to show', async () => (await readiness()).payload.includes('"mail":"failed"') ? true : undefined)
  t.equal((await readiness()).statusCode, 200, 'mail does not decide readiness')
  t.notMatch(service.log.join('\n'), /bob@x|ann@x|ECONNREFUSED 127/)

  // The certificate that the service trusts is the old one's: a new one is refused, and nothing is sent in plain.
  const impostor = await startMailbox({ smtpPort: port, password })
  service.advance(31_000)
  await service.verify(by('ann', '2'), 'login', '000000')
  await until('the impostor to be asked', async () => service.log.filter(line => line.includes('could not be mailed')).length > 2 ? true : undefined)
  t.same(impostor.messages(), [])
  await impostor.close()
})

t.test('a notice arrives once the mail server takes it, and one that it never takes is shown on the page', async t => {
  let answer: { code: number, text: string } | undefined = { code: 451, text: 'try again' }
  const { mailbox, service } = await both(t, { refuse: address => address.startsWith('gone') ? { code: 550, text: 'no such user' } : answer })
  const ann = by('ann')
  const { key } = await service.enrol(ann, { about: { email: 'ann@x.example' } })
  await until('a refusal', async () => service.log.some(line => line.includes('a notice could not be mailed')) ? true : undefined)
  answer = undefined
  service.advance(60_000)
  await service.enrol(by('bob'), { about: { email: 'gone@x.example' } })
  await newest(mailbox, 'ann@x.example', /2FA was enabled/)
  await until('the final refusal', async () => service.log.some(line => /"reply":550/.test(line) && line.includes('"again":false')) ? true : undefined)
  const shown = await service.call('GET', `/v1/subjects/${service.encoded('bob')}`)
  t.equal(shown.status, 200)
  t.equal(mailbox.messages().filter(one => one.to.some(address => address.startsWith('gone'))).length, 0)
  t.ok(key)
})

t.test('a wrong password of the mail server is found out before anybody needs a mail, and never tried twice a code', async t => {
  const mailbox = await startMailbox()
  t.teardown(async () => { await mailbox.close() })
  const url = new URL(mailbox.smtp)
  url.password = 'wrong-password'
  const smtp = readSmtp(url.href, 'required', undefined, [])
  if (smtp === undefined) throw new Error('not readable')
  const transport = openTransport({ ...smtp, ca: mailbox.ca }, { name: '', address: 'a@x.example' }, 1)
  t.teardown(() => { transport.close() })
  t.match(await transport.check(), { delivery: 'down', again: false, why: { code: 'EAUTH', reply: 535 } })
  const untrusted = openTransport(smtp, { name: '', address: 'a@x.example' }, 1)
  t.teardown(() => { untrusted.close() })
  t.match(await untrusted.deliver('b@x.example', { subject: 's', text: 't', html: 'h', language: 'en' }), { delivery: 'down' })
  t.same(mailbox.messages(), [])
})

t.test('one address is one recipient, whatever it holds', async t => {
  const { mailbox, service } = await both(t)
  for (const address of [
    'a@x.example, evil@x.example', 'a@x.example\r\nBcc: evil@x.example', 'group: a@x.example, evil@x.example;', '<evil@x.example> a@x.example',
    'a@x.example evil@x.example', '"a@x.example" <evil@x.example>', 'a@@x.example', '@x.example', 'a@', 'a b@x.example', `${'a'.repeat(250)}@x.example`
  ]) {
    const { status, body } = await service.call('POST', `/v1/subjects/${service.encoded('ann')}/email`, { by: by('ann'), address })
    t.ok(status === 400, `${encodeURIComponent(address).slice(0, 60)}: ${status} ${body.code}`)
  }
  const smtp = readSmtp(mailbox.smtp, 'required', undefined, [])
  if (smtp === undefined) throw new Error('not readable')
  const transport = openTransport({ ...smtp, ca: mailbox.ca }, { name: '', address: 'a@x.example' }, 1)
  t.teardown(() => { transport.close() })
  const letter = { subject: 'one\r\nBcc: evil@x.example', text: 't', html: 'h', language: 'en' }
  t.match(await transport.deliver('a@x.example, evil@x.example', letter), { delivery: 'refused', forGood: true })
  t.match(await transport.deliver('good@x.example', letter), { delivery: 'sent' })
  t.same(mailbox.messages().map(one => one.to), [['good@x.example']])
})

t.test('what users and consoles are called is only ever text', async t => {
  const texts = loadMailTexts()
  const nasty = '<b>"x"</b>\r\nBcc: evil@x.example\u202e'
  for (const language of ['en', 'zh-CN', 'zh', 'xx', 'not a tag', null]) {
    for (const message of [...CODES, ...NOTICES]) {
      const letter = texts.write(message, language, {
        console: nasty, code: '012345', minutes: '10', left: '1', address: nasty, to: nasty, browser: nasty, hours: '72'
      }, Date.UTC(2026, 10, 24))
      if (letter === undefined) throw new Error(`${message} has no words`)
      t.notMatch(letter.subject, /[\r\n\u202e]/)
      t.notMatch(letter.html, /<b>|\u202e/)
      t.notMatch(letter.text + letter.subject, /\{\w+\}|undefined/, `${language ?? 'null'} ${message}`)
      t.equal(letter.language, language === 'zh' || language === 'zh-CN' ? 'zh-CN' : 'en')
    }
  }
  t.equal(texts.write('nothing of the kind', 'en', {}, 0), undefined)
  t.match(describeUserAgent(FIREFOX), { name: 'Firefox', system: 'Linux' })
})

t.test('retries wait longer and longer, from half a minute to an hour, and end after a day', async t => {
  const minute = 60_000
  t.equal(retryAt(0, 0), minute / 2)
  t.equal(retryAt(0, 10 * minute), 20 * minute)
  t.equal(retryAt(0, 600 * minute), 660 * minute)
  t.equal(retryAt(0, 24 * 60 * minute), null)
})

t.test('mail settings are read once, and mistakes are named without their values', async t => {
  const mistakes: string[] = []
  for (const url of ['http://x', 'smtp://', 'smtp://user:p/w@host', 'smtp://user:p#w@host', 'smtp://host/path', 'smtp://a:%zz@host']) {
    t.equal(readSmtp(url, 'required', undefined, mistakes), undefined, url)
  }
  t.equal(mistakes.length, 6)
  t.notMatch(mistakes.join(), /p\/w|host\/path/)
  t.match(readSmtp('smtps://user:p%40ss@mail.example', 'required', undefined, []), { host: 'mail.example', port: 465, secure: true, login: { password: 'p@ss' } })
  t.match(readSmtp('smtp://[::1]', 'none', undefined, []), { host: '::1', port: 587, login: undefined })
  const wrong: string[] = []
  readSmtp('smtp://x', 'required', '/no/such/file', wrong)
  readSender('a@x, b@y', wrong)
  readSender('Name <a@x.example', wrong)
  t.equal(wrong.length, 3)
  t.same(readSender('Console <a@x.example>', []), { name: 'Console', address: 'a@x.example' })
  t.same(readSender('a@x.example', []), { name: '', address: 'a@x.example' })
})
