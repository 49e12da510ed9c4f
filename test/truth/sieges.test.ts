// Threat: somebody who has the password and keeps trying: to enrol before the owner, to lock the owner out and come in
// by the administrator's help, to hold the owner out for days, to guess past the caps.

import t from 'tap'
import { defaultLimits } from '../../service/src/domain/policy.ts'
import { dataFolder, postern, serve, settingsIn } from '../helpers/processes.ts'
import { by, name, startService, totpCode } from '../helpers/service.ts'

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000

t.test('chain: a thief with the password enrols first, and nothing passes without what the tenant asks for', async t => {
  for (const first of ['enrolment_code', 'email'] as const) {
    const s = await startService(t, { tenant: { require: 'everyone', first_enrolment: first } })
    const thief = by('ann', 'thief', 'browser of the thief')
    const about = { email: 'ann@x.example' }
    t.match((await s.question(thief)).body, { status: 'enrolment_required' })
    t.match((await s.begin(thief, { about })).body, { code: 'proof_required' })
    for (const proof of ['', '000000', 'AAAA-AAAA-AAAA-AAAA']) t.ok((await s.begin(thief, { about, proof })).status >= 400, proof)
    t.ok((await s.call('POST', `/v1/subjects/${s.encoded('ann')}/email`, { by: thief, address: 'thief@x.example', about })).status >= 400)
    // The thief may ask for a code; it goes to the address of the console, whatever else is said.
    await s.call('POST', `/v1/subjects/${s.encoded('ann')}/proof`, { by: thief, about })
    for (const mail of s.mails) t.equal(mail.to, 'ann@x.example')
    t.match(await s.open(thief), { status: 403, body: { code: 'enrolment_required' } })
    t.match((await s.question(thief)).body, { status: 'enrolment_required' })

    const ann = by('ann')
    let proof: string | undefined
    if (first === 'enrolment_code') {
      proof = (await s.call('POST', `/v1/subjects/${s.encoded('ann')}/enrolment-code`, { actor: 'boss' }, s.admin)).body.enrolment_code
    } else {
      s.advance(61_000)
      await s.call('POST', `/v1/subjects/${s.encoded('ann')}/proof`, { by: ann, about })
      proof = s.mails.at(-1)?.values.code
      t.ok((await s.begin(thief, { about, proof })).status >= 400, 'the code belongs to the session that asked for it')
    }
    await s.enrol(ann, { about, proof })
    t.match((await s.question(ann)).body, { status: 'verified' })
    t.match((await s.question(thief)).body, { status: 'verification_required' })
    t.ok((await s.begin(thief, { about, proof })).status >= 400, 'used once')
  }
})

t.test('chain: a thief locks the owner out, the administrator resets, the thief logs in first: nothing passes', async t => {
  for (const first of ['none', 'email', 'enrolment_code'] as const) {
    const s = await startService(t, { tenant: { first_enrolment: first } })
    const ann = by('ann')
    const about = { email: 'ann@x.example' }
    const code = async () => (await s.call('POST', `/v1/subjects/${s.encoded('ann')}/enrolment-code`, { actor: 'boss' }, s.admin)).body.enrolment_code
    if (first === 'email') await s.call('POST', `/v1/subjects/${s.encoded('ann')}/proof`, { by: ann, about })
    const proof = first === 'none' ? undefined : first === 'email' ? s.mails.at(-1)?.values.code : await code()
    await s.enrol(ann, { about, proof })
    const thief = by('ann', 'thief', 'browser of the thief')
    let locked = false
    for (let i = 0; i < 300 && !locked; i++) {
      s.advance(61 * MINUTE_MS)
      const opened = await s.open(thief)
      locked = opened.body.challenge.locked || (await s.answer(thief, opened.body.challenge.id, '000000')).body.code === 'locked'
    }
    t.ok(locked)
    const reset = await s.call('POST', `/v1/subjects/${s.encoded('ann')}/reset`, { actor: 'boss' }, s.admin)
    t.match(reset.body.enrolment_code, /^[0-9A-Z-]{19}$/)
    // The thief is the first to come.
    t.match((await s.question(thief)).body, { status: 'enrolment_required' }, first)
    t.match(await s.open(thief), { status: 403, body: { code: 'enrolment_required' } })
    t.ok((await s.open(thief, 'step_up')).status >= 400)
    for (const wrong of [undefined, '000000', 'AAAA-AAAA-AAAA-AAAA']) t.ok((await s.begin(thief, { about, proof: wrong })).status >= 400)
    await s.call('POST', `/v1/subjects/${s.encoded('ann')}/proof`, { by: thief, about: { email: 'thief@x.example' } })
    t.notOk(s.mails.some(mail => mail.to === 'thief@x.example'))
    t.ok((await s.call('POST', `/v1/subjects/${s.encoded('ann')}/email`, { by: thief, address: 'thief@x.example', about })).status >= 400)
    t.match((await s.question(thief)).body, { status: 'enrolment_required' })
    // The owner comes with the administrator's code.
    const again = by('ann', 'again')
    await s.enrol(again, { about, proof: reset.body.enrolment_code })
    t.match((await s.question(again)).body, { status: 'verified' })
    t.match((await s.question(thief)).body, { status: 'verification_required' })
  }
})

t.test('the owner gets in each day of a siege of 60 days, and of no key are more than 100 guesses looked at', async t => {
  const s = await startService(t)
  const browser = 'the browser that ann always uses'
  let { key, backupCodes } = await s.enrol(by('ann', 'first', browser))
  let codes = [...backupCodes]
  let evaluated = 0
  let locks = 0
  let renewed = 0
  const worst: number[] = []
  for (let day = 1; day <= 60; day++) {
    // The attacker comes with a new browser and a new session each time, and tries whenever a wait has ended.
    for (let round = 0; round < 26; round++) {
      s.advance(50 * MINUTE_MS)
      const attacker = by('ann', `attacker ${day} ${round}`, `attacker's ${day} ${round}`)
      const opened = await s.open(attacker)
      if (opened.body.challenge.locked || opened.body.challenge.wait_for > 0) continue
      for (let guess = 0; guess < 6; guess++) {
        const { body } = await s.answer(attacker, opened.body.challenge.id, guess % 2 === 0 ? '000000' : '999999')
        // The last one before the lock was looked at as well.
        if (body.code === 'code_rejected') evaluated++
        else break
      }
    }
    s.advance(DAY_MS - 26 * 50 * MINUTE_MS)
    const ann = by('ann', `day ${day}`, browser)
    const opened = await s.open(ann)
    t.equal(opened.body.challenge.wait_for, 0, `day ${day}: she does not wait`)
    if (opened.body.challenge.locked) {
      // Out of the lock by herself: a backup code, then a new key.
      locks++
      t.equal((await s.answer(ann, opened.body.challenge.id, codes.shift() ?? '')).status, 200, `day ${day}: a backup code opens`)
      const begun = await s.begin(ann)
      t.equal(begun.status, 200, `day ${day}: a new key may be made: ${begun.text}`)
      s.nextStep()
      const confirmed = await s.confirm(ann, begun.body.id, totpCode(begun.body.key, s.clock.now()))
      t.equal(confirmed.status, 200, `day ${day}: ${confirmed.text}`)
      key = begun.body.key
      if (confirmed.body.backup_codes?.length > 0) codes = [...confirmed.body.backup_codes]
      worst.push(evaluated)
      evaluated = 0
      renewed++
    } else {
      const answered = await s.answer(ann, opened.body.challenge.id, s.code(key))
      t.equal(answered.status, 200, `day ${day}: her code opens: ${answered.text}`)
    }
    t.match((await s.question(ann)).body, { status: 'verified' }, `day ${day}`)
  }
  worst.push(evaluated)
  t.ok(Math.max(...worst) <= defaultLimits.lockIn30Days, `guesses looked at, by key: ${worst.join(', ')}`)
  t.ok(locks > 0 && renewed === locks, `${locks} locks`)
  t.comment(`guesses looked at by key: ${worst.join(', ')}; locks: ${locks}`)
})

t.test('a success in between does not reset the 100 in 30 days, and losing all that moves does not either', async t => {
  const s = await startService(t)
  const browser = 'known'
  const { key } = await s.enrol(by('ann', 'first', browser))
  let looked = 0
  let locked = false
  for (let i = 0; i < 400 && !locked; i++) {
    s.advance(60 * MINUTE_MS)
    // As a flush of Redis would: waits and counts in motion are gone.
    await s.app.pending.clearBudget('t1', 'ann')
    const attacker = by('ann', `attacker ${i}`, `attacker's ${i}`)
    const { challenge } = (await s.open(attacker)).body
    for (let guess = 0; guess < 4 && !locked; guess++) {
      const { body } = await s.answer(attacker, challenge.id, '000000')
      if (body.code === 'code_rejected' || body.code === 'locked') looked++
      locked = body.code === 'locked'
    }
    if (!locked) t.equal((await s.verify(by('ann', `owner ${i}`, browser), 'login', s.code(key))).status, 200)
  }
  t.equal(looked, 100, 'locked by the hundredth')
  const after = by('ann', 'after', browser)
  const { challenge } = (await s.open(after)).body
  t.match((await s.answer(after, challenge.id, s.code(key))).body, { code: 'locked' }, 'C-05: a right code at 101 is refused')
})

t.test('on the host, with Redis, mail and console down: reset ends the sessions of a running service within five seconds', async t => {
  const { settings, gate } = settingsIn(dataFolder(t))
  const down = { ...settings, POSTERN_REDIS: 'redis://127.0.0.1:1', POSTERN_SMTP: 'smtp://127.0.0.1:1' }
  const running = await serve(t, settings)
  const call = async (method: string, path: string, body?: unknown, headers = {}) => {
    const response = await fetch(running.url + path, {
      method,
      headers: { authorization: `Bearer ${gate}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    return { status: response.status, body: JSON.parse(await response.text() || 'null') }
  }
  const ann = by('ann')
  const path = `/v1/subjects/${Buffer.from('ann').toString('base64url')}/totp`
  const begun = await call('POST', path, { by: ann })
  t.equal((await call('POST', `${path}/${begun.body.id}/confirm`, { by: ann, code: totpCode(begun.body.key, Date.now()) })).status, 200)
  const question = async () => (await call('GET', `/v1/assurances/${name('session of ann')}`, undefined, {
    'postern-subject': Buffer.from('ann').toString('base64url'), 'postern-browser': ann.browser
  })).body.status
  t.equal(await question(), 'verified')
  t.match((await postern(['subject', 'status', 't1', 'ann'], down)).out, /"totp":"enabled"/)
  t.equal((await postern(['subject', 'unlock', 't1', 'ann'], down)).code, 0)
  const stream = await fetch(`${running.url}/v1/changes`, { headers: { authorization: `Bearer ${gate}` } })
  const reader = stream.body?.getReader()
  t.match((await postern(['subject', 'reset', 't1', 'ann'], down)).out, /^reset; enrolment code/)
  const began = performance.now()
  t.equal(await question(), 'enrolment_required', 'the service itself knows at once')
  let heard = ''
  while (!heard.includes('"subject":"ann"')) heard += new TextDecoder().decode((await reader?.read())?.value)
  t.ok(performance.now() - began < 5_000, 'and gates are told')
  await reader?.cancel()
  t.equal((await postern(['subject', 'rename', 't1', 'ann', 'anna'], down)).code, 0)
  t.equal((await postern(['subject', 'delete', 't1', 'anna'], down)).code, 0)
  t.match((await postern(['tenants', 'key', 't1', 'g2'], {})).out, /^key: {3}pk_t1_g2_/)
})
