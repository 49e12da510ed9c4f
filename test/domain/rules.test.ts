// The rules of the domain through the HTTP interface, each test named by the rule it holds. Embedded stores; the
// clock moves.

import t from 'tap'
import { by, startService, type Answer, type Service, type WireBy } from '../helpers/service.ts'

const MINUTE = 60_000
const DAY = 86_400_000

const code = (answer: Answer) => answer.body?.code
const opened = async (s: Service, who: WireBy, purpose: 'login' | 'step_up' = 'login') => {
  const answer = await s.open(who, purpose)
  return answer.body.challenge
}
/** A six-digit code that is not right now. */
const wrong = (s: Service, key: string) => {
  const right = new Set([-3, -2, -1, 0, 1, 2, 3].map(off => s.code(key, off)))
  return (
    ['000000', '111111', '222222', '333333', '444444', '555555', '666666', '777777'].find(one => !right.has(one)) ??
    '888888'
  )
}

t.test('rule 1: TOTP', async t => {
  const s = await startService(t)
  const alice = by('alice')

  await t.test('with no factor nothing is asked', async t => {
    t.match((await s.question(alice)).body, {
      status: 'not_required',
      login: null,
      step_up: null,
      totp: 'not_enabled'
    })
    t.match((await s.open(alice)).body, { status: 'not_required' })
  })

  const { key } = await s.enrol(alice)
  await t.test('the session that confirmed the key has passed login and step-up', async t => {
    t.match((await s.question(alice)).body, { status: 'verified', totp: 'enabled', step_up: { factor: 'totp' } })
  })

  await t.test('the code that confirms an enrolment uses up its step', async t => {
    const next = by('alice', 'second session')
    const answer = await s.verify(next, 'login', s.code(key))
    t.match([answer.status, code(answer)], [403, 'code_used'])
    t.ok(answer.body.next_in >= 1 && answer.body.next_in <= 30)
  })

  await t.test('a step is accepted once, ever, and an older one not after a newer', async t => {
    s.advance(5 * MINUTE)
    const late = s.code(key)
    s.nextStep()
    t.equal((await s.verify(by('alice', 'a'), 'login', s.code(key))).status, 200)
    t.equal(code(await s.verify(by('alice', 'b'), 'login', s.code(key))), 'code_used')
    t.equal(code(await s.verify(by('alice', 'c'), 'login', late)), 'code_used')
  })

  await t.test('formatting is no second code', async t => {
    s.nextStep()
    s.nextStep()
    const right = s.code(key)
    t.equal((await s.verify(by('alice', 'd'), 'login', right)).status, 200)
    for (const spelled of [
      ` ${right}`,
      `${right.slice(0, 3)} ${right.slice(3)}`,
      [...right].map(digit => String.fromCodePoint(0xff10 + Number(digit))).join('')
    ]) {
      t.equal(code(await s.verify(by('alice', 'e'), 'login', spelled)), 'code_used')
    }
    const challenge = await opened(s, by('alice', 'f'))
    for (const given of [Number(right), [right], null, { $gt: '' }, true]) {
      const answer = await s.call('POST', `/v1/challenges/${challenge.id}/verification`, {
        by: by('alice', 'f'),
        code: given
      })
      t.match([answer.status, code(answer)], [400, 'bad_request'])
    }
  })

  await t.test(
    'a confirming code of a clock four minutes off is refused, says so, and is a failed attempt',
    async t => {
      const bob = by('bob')
      const begun = (await s.begin(bob)).body
      const behind = await s.confirm(bob, begun.id, s.code(begun.key, -8))
      t.match(behind.body, { code: 'code_rejected', clock_off: -240, attempts_left: 4 })
      const ahead = await s.confirm(bob, begun.id, s.code(begun.key, 6))
      t.match(ahead.body, { code: 'code_rejected', clock_off: 180, attempts_left: 3 })
      t.equal((await s.confirm(bob, begun.id, s.code(begun.key, -40))).body.clock_off, undefined)
      t.equal((await s.confirm(bob, begun.id, s.code(begun.key))).status, 200)
    }
  )
})

t.test('rule 2: the e-mailed code', async t => {
  const s = await startService(t)
  const carol = by('carol')
  await s.enrolEmail(carol, 'carol@example.org')
  s.advance(2 * MINUTE)

  await t.test('a login sends one code, and getting the live challenge sends none', async t => {
    const who = by('carol', 'a')
    const before = s.mails.length
    const challenge = await opened(s, who)
    t.match(challenge, { methods: ['email'], masked_address: 'c•••@e•••.org', mailed: true })
    await opened(s, who)
    t.equal(s.mails.length, before + 1)
    t.equal(s.mails.at(-1)?.to, 'carol@example.org')
    t.equal((await s.answer(who, challenge.id, s.mails.at(-1)?.values.code ?? '')).status, 200)
    t.match((await s.question(who)).body, { status: 'verified' })
  })

  await t.test('only the newest code counts, after 60 seconds, and a resend gives no new attempts', async t => {
    s.advance(2 * MINUTE)
    const who = by('carol', 'b')
    const challenge = await opened(s, who)
    const first = s.mails.at(-1)?.values.code ?? ''
    const early = await s.call('POST', `/v1/challenges/${challenge.id}/email`, { by: who })
    t.match([early.status, code(early)], [429, 'waiting'])
    t.ok(early.body.retry_after <= 60 && Number(early.headers['retry-after']) === early.body.retry_after)
    const bad = first === '000000' ? '111111' : '000000'
    for (const left of [4, 3]) t.equal((await s.answer(who, challenge.id, bad)).body.attempts_left, left)
    s.advance(61_000)
    t.equal((await s.call('POST', `/v1/challenges/${challenge.id}/email`, { by: who })).status, 200)
    const second = s.mails.at(-1)?.values.code ?? ''
    if (first !== second) t.equal((await s.answer(who, challenge.id, first)).body.attempts_left, 2)
    t.equal((await s.answer(who, challenge.id, second)).status, 200)
  })

  await t.test('it lives ten minutes', async t => {
    for (const [age, status] of [
      [599_000, 200],
      [601_000, 410]
    ] as const) {
      s.advance(70 * MINUTE)
      const who = by('carol', `lives ${age}`)
      const challenge = await opened(s, who)
      const mailed = s.mails.at(-1)?.values.code ?? ''
      s.advance(age)
      t.equal((await s.answer(who, challenge.id, mailed)).status, status)
    }
  })

  await t.test('it opens nothing but the challenge that sent it', async t => {
    s.advance(70 * MINUTE)
    const [a, b] = [by('carol', 'x'), by('carol', 'y')]
    const first = await opened(s, a)
    const mailed = s.mails.at(-1)?.values.code ?? ''
    s.advance(61_000)
    const second = await opened(s, b)
    const other = s.mails.at(-1)?.values.code ?? ''
    t.not(first.id, second.id)
    if (mailed !== other) t.equal(code(await s.answer(b, second.id, mailed)), 'code_rejected')
    t.equal((await s.answer(a, first.id, mailed)).status, 200)
  })

  await t.test('at most five an hour', async t => {
    s.advance(2 * 60 * MINUTE)
    const before = s.mails.length
    for (let index = 0; index < 8; index++) {
      await opened(s, by('carol', `hour ${index}`))
      s.advance(61_000)
    }
    t.equal(s.mails.length - before, 5)
  })

  await t.test('turning it on needs a delivered test code, to a single mailbox', async t => {
    const dave = by('dave')
    const url = `/v1/subjects/${s.encoded('dave')}/email`
    t.equal(code(await s.call('POST', url, { by: dave })), 'address_missing')
    for (const address of ['dave@x.org, eve@x.org', 'dave@x.org\r\nBcc: eve@x.org', 'Dave <dave@x.org>']) {
      t.equal(code(await s.call('POST', url, { by: dave, address })), 'address_invalid')
    }
    const begun = await s.call('POST', url, { by: dave, about: { email: 'dave@example.org' } })
    t.match(begun.body, { masked_address: 'd•••@e•••.org' })
    t.match((await s.question(dave)).body, { status: 'not_required' }, 'nothing is on before the code')
    t.equal(
      code(
        await s.call('POST', `${url}/${begun.body.id}/confirm`, {
          by: dave,
          code: s.mails.at(-1)?.values.code === '000000' ? '111111' : '000000'
        })
      ),
      'code_rejected'
    )
    t.equal(
      (await s.call('POST', `${url}/${begun.body.id}/confirm`, { by: dave, code: s.mails.at(-1)?.values.code }))
        .status,
      200
    )
    t.match((await s.question(by('dave', 'later'))).body, { status: 'verification_required' })
  })
})

t.test('rule 3: backup codes', async t => {
  const s = await startService(t)
  const alice = by('alice')
  const { key, backupCodes } = await s.enrol(alice)
  t.equal(new Set(backupCodes).size, 6)
  for (const one of backupCodes) t.match(one, /^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}$/)

  await t.test('each works once, however it is spelled, and using one is told by mail', async t => {
    const [first = '', second = ''] = backupCodes
    const answer = await s.verify(by('alice', 'a'), 'login', first.toLowerCase().replaceAll('-', ' '))
    t.match(answer.body, { assurance: { factor: 'backup_code', backup_codes_left: 5 } })
    t.equal(code(await s.verify(by('alice', 'b'), 'login', first)), 'code_used')
    t.equal((await s.verify(by('alice', 'b'), 'login', second)).status, 200)
    t.match((await s.call('GET', `/v1/subjects/${s.encoded('alice')}`)).body, { backup_codes: { left: 4, of: 6 } })
  })

  await t.test("wrong ones spend the challenge and an allowance, never the subject's budget", async t => {
    const thief = by('alice', 'thief', 'the browser of a thief')
    for (let round = 0; round < 2; round++) {
      const challenge = await opened(s, thief)
      for (let index = 0; index < 5; index++) {
        t.equal(code(await s.answer(thief, challenge.id, 'AAAA-BBBB-CCCC-DDDD')), 'code_rejected')
      }
    }
    const challenge = await opened(s, thief)
    t.equal(code(await s.answer(thief, challenge.id, 'AAAA-BBBB-CCCC-DDDD')), 'waiting', 'ten an hour')
    s.nextStep()
    t.equal((await s.verify(by('alice', 'owner'), 'login', s.code(key))).status, 200)
  })

  await t.test("somebody else's code is refused and stays good", async t => {
    const mallory = by('mallory')
    const theirs = await s.enrol(mallory)
    t.equal(code(await s.verify(by('alice', 'c'), 'login', theirs.backupCodes[0] ?? '')), 'code_rejected')
    t.equal((await s.verify(by('mallory', 'd'), 'login', theirs.backupCodes[0] ?? '')).status, 200)
  })

  await t.test('a new set ends the old one', async t => {
    const fresh = await s.call('POST', `/v1/subjects/${s.encoded('alice')}/backup-codes`, { by: alice })
    t.equal(fresh.body.backup_codes.length, 6)
    t.equal(code(await s.verify(by('alice', 'e'), 'login', backupCodes[3] ?? '')), 'code_rejected')
    t.equal((await s.verify(by('alice', 'e'), 'login', fresh.body.backup_codes[0])).status, 200)
  })
})

t.test('rule 4: with TOTP on, e-mail verification is not used and its preference stays', async t => {
  const s = await startService(t)
  const erin = by('erin')
  await s.enrolEmail(erin, 'erin@example.org')
  const { key } = await s.enrol(erin)
  s.advance(5 * MINUTE)
  const before = s.mails.length
  const challenge = await opened(s, by('erin', 'a'))
  t.same(challenge.methods, ['totp', 'backup_code'])
  t.equal(
    code(await s.call('POST', `/v1/challenges/${challenge.id}/email`, { by: by('erin', 'a') })),
    'method_not_available'
  )
  t.equal(s.mails.length, before)
  t.match((await s.call('GET', `/v1/subjects/${s.encoded('erin')}`)).body, { email: { on: true, applies: false } })
  t.equal((await s.verify(by('erin', 'a'), 'login', s.code(key))).status, 200)
  s.nextStep()
  t.equal((await s.verify(by('erin', 'a'), 'step_up', s.code(key))).status, 200)
  t.equal((await s.call('DELETE', `/v1/subjects/${s.encoded('erin')}/totp`, { by: by('erin', 'a') })).status, 204)
  t.same(
    (await opened(s, by('erin', 'b'))).methods,
    ['email', 'backup_code'],
    'TOTP off: it applies again, and backup codes stay'
  )
})

t.test(
  'rule 5: expired still works, renewing keeps the old key, and a pending enrolment belongs to one by',
  async t => {
    const s = await startService(t)
    const alice = by('alice')
    const { key } = await s.enrol(alice)
    s.advance(181 * DAY)
    const later = by('alice', 'later')
    t.match((await s.question(later)).body, { status: 'verification_required', totp: 'expired' })
    t.equal((await s.verify(later, 'login', s.code(key))).status, 200)
    t.equal(code(await s.begin(later)), 'step_up_required')
    s.nextStep()
    t.equal((await s.verify(later, 'step_up', s.code(key))).status, 200)

    const begun = await s.begin(later)
    t.equal((await s.begin(later)).body.key, begun.body.key, 'opened again, the same pending key')
    s.nextStep()
    t.equal(
      (await s.verify(by('alice', 'other'), 'login', s.code(key))).status,
      200,
      'the old key works until the new one is confirmed'
    )
    for (const stranger of [
      by('alice', 'other'),
      { ...later, browser: by('alice', 'x', 'another browser').browser },
      { ...by('bob'), session: later.session, browser: later.browser }
    ]) {
      const answer = await s.call(
        'POST',
        `/v1/subjects/${s.encoded(stranger.subject)}/totp/${begun.body.id}/confirm`,
        { by: stranger, code: s.code(begun.body.key) }
      )
      t.equal(code(answer), 'enrolment_gone')
    }
    t.equal((await s.confirm(later, begun.body.id, s.code(begun.body.key))).status, 200)
    s.nextStep()
    t.match((await s.question(later)).body, { status: 'verified', totp: 'enabled' })
    t.match(
      (await s.question(by('alice', 'other'))).body,
      { status: 'verification_required' },
      'a new epoch ended the other session'
    )
    t.equal(code(await s.verify(by('alice', 'other'), 'login', s.code(key))), 'code_rejected', 'the old key is dead')

    const bob = by('bob')
    const pending = await s.begin(bob)
    for (let left = 4; left >= 0; left--) {
      t.match((await s.confirm(bob, pending.body.id, wrong(s, pending.body.key))).body, {
        code: 'code_rejected',
        attempts_left: left
      })
    }
    s.advance(2 * MINUTE)
    t.equal(
      code(await s.confirm(bob, pending.body.id, s.code(pending.body.key))),
      'enrolment_gone',
      'it takes five attempts'
    )
    const again = await s.begin(bob)
    t.not(again.body.key, pending.body.key)
    s.advance(16 * MINUTE)
    t.equal(
      code(await s.confirm(bob, again.body.id, s.code(again.body.key))),
      'enrolment_gone',
      'it lives 15 minutes'
    )
  }
)

t.test('rule 6: attempts', async t => {
  await t.test('five wrong codes end the challenge and begin a wait in which nothing is evaluated', async t => {
    const s = await startService(t)
    const { key } = await s.enrol(by('alice'))
    s.nextStep()
    const thief = by('alice', 'thief', 'the browser of a thief')
    const challenge = await opened(s, thief)
    for (let left = 4; left >= 0; left--) {
      t.match((await s.answer(thief, challenge.id, wrong(s, key))).body, {
        code: 'code_rejected',
        attempts_left: left
      })
    }
    const next = await opened(s, thief)
    t.ok(next.wait_for > 0 && next.wait_for <= 30)
    const refused = await s.answer(thief, next.id, s.code(key))
    t.match([refused.status, code(refused)], [429, 'waiting'])
    s.advance(31_000)
    t.equal((await s.answer(thief, next.id, s.code(key))).status, 200, 'the right code of the wait was not used up')
  })

  await t.test('a code of no offered form is refused without counting', async t => {
    const s = await startService(t)
    const { key } = await s.enrol(by('alice'))
    s.nextStep()
    const who = by('alice', 'a')
    const challenge = await opened(s, who)
    for (const given of ['12345', 'hello', '1234567', '½½½½½½']) {
      t.equal(code(await s.answer(who, challenge.id, given)), 'code_malformed')
    }
    t.match((await s.answer(who, challenge.id, wrong(s, key))).body, { attempts_left: 4 })
  })

  await t.test("the owner's own browser is not held out while an attacker keeps failing", async t => {
    const s = await startService(t)
    const { key } = await s.enrol(by('alice'))
    s.nextStep()
    const known = by('alice', 'first login', 'her browser')
    t.equal((await s.verify(known, 'login', s.code(key))).status, 200)
    for (let round = 0; round < 3; round++) {
      const thief = by('alice', `thief ${round}`, `thief ${round}`)
      const challenge = await opened(s, thief)
      for (let index = 0; index < 5; index++) await s.answer(thief, challenge.id, wrong(s, key))
    }
    const stranger = await opened(s, by('alice', 'elsewhere', 'elsewhere'))
    t.ok(stranger.wait_for > 0, 'a browser nobody knows waits')
    s.nextStep()
    t.equal((await s.verify(by('alice', 'second login', 'her browser'), 'login', s.code(key))).status, 200)
  })

  await t.test(
    'a hundred failures lock TOTP, whatever the waits; a backup code lets its session in and renews',
    async t => {
      const s = await startService(t, { tenant: { limits: { lock_in_a_row: 10, lock_in30_days: 10 } } })
      const { key, backupCodes } = await s.enrol(by('alice'))
      s.nextStep()
      let evaluated = 0
      for (let round = 0; round < 40 && evaluated < 10; round++) {
        const thief = by('alice', `thief ${round}`)
        const challenge = await opened(s, thief)
        const answer = await s.answer(thief, challenge.id, wrong(s, key))
        if (['code_rejected', 'locked'].includes(code(answer))) evaluated++
        s.advance(61 * MINUTE)
      }
      const who = by('alice', 'owner')
      const challenge = await opened(s, who)
      t.equal(challenge.locked, true)
      t.equal(code(await s.answer(who, challenge.id, s.code(key))), 'locked', 'a right code is refused')
      t.equal((await s.answer(who, challenge.id, backupCodes[0] ?? '')).status, 200)
      t.match((await s.question(who)).body, { status: 'verified', step_up: null }, 'no step-up for the console')
      t.equal(
        code(await s.call('DELETE', `/v1/subjects/${s.encoded('alice')}/totp`, { by: who })),
        'step_up_required'
      )
      const begun = await s.begin(who)
      t.equal(begun.status, 200, 'but a new key')
      t.equal((await s.confirm(who, begun.body.id, s.code(begun.body.key))).status, 200)
      s.nextStep()
      t.equal(
        (await s.verify(by('alice', 'next'), 'login', s.code(begun.body.key))).status,
        200,
        'the counts start anew'
      )
    }
  )

  await t.test("an administrator's unlock clears the counts and keeps the factors", async t => {
    const s = await startService(t, { tenant: { limits: { lock_in_a_row: 10, lock_in30_days: 10 } } })
    const { key } = await s.enrol(by('alice'))
    for (let round = 0; round < 10; round++) {
      s.advance(61 * MINUTE)
      const thief = by('alice', `thief ${round}`)
      await s.answer(thief, (await opened(s, thief)).id, wrong(s, key))
    }
    s.advance(61 * MINUTE)
    t.equal(code(await s.verify(by('alice', 'a'), 'login', s.code(key))), 'locked')
    const url = `/v1/subjects/${s.encoded('alice')}/unlock`
    t.equal(code(await s.call('POST', url, { actor: 'root' })), 'forbidden', 'not with a gate key')
    t.equal((await s.call('POST', url, { actor: 'root' }, s.admin)).status, 204)
    t.equal((await s.verify(by('alice', 'b'), 'login', s.code(key))).status, 200)
  })
})

t.test(
  'rule 7: a repeat of an accepted answer gets the recorded result, from the same by with the same key only',
  async t => {
    const s = await startService(t)
    const { key } = await s.enrol(by('alice'))
    s.nextStep()
    const who = by('alice', 'a')
    const challenge = (await s.open(who, 'login', { return_path: '/devices?page=2' })).body.challenge
    const right = s.code(key)
    const first = await s.answer(who, challenge.id, right, {}, { 'idempotency-key': 'attempt-0001' })
    t.match(first.body, { return_path: '/devices?page=2', assurance: { purpose: 'login', factor: 'totp' } })
    const again = await s.answer(who, challenge.id, right, {}, { 'idempotency-key': 'attempt-0001' })
    t.match([again.status, again.body.return_path], [200, '/devices?page=2'])
    t.equal(
      code(await s.answer(who, challenge.id, right, {}, { 'idempotency-key': 'attempt-0002' })),
      'challenge_gone'
    )
    t.equal(code(await s.answer(who, challenge.id, right)), 'challenge_gone')
    t.equal(
      code(await s.answer(by('alice', 'b'), challenge.id, right, {}, { 'idempotency-key': 'attempt-0001' })),
      'challenge_gone'
    )
    s.advance(61_000)
    t.equal(
      code(await s.answer(who, challenge.id, right, {}, { 'idempotency-key': 'attempt-0001' })),
      'challenge_gone',
      'for a minute'
    )
  }
)

t.test('rule 8: assurance', async t => {
  const s = await startService(t)
  const { key } = await s.enrol(by('alice'))
  s.nextStep()
  const who = by('alice', 'a')

  await t.test('it holds for the same subject, session and browser only', async t => {
    t.equal((await s.verify(who, 'login', s.code(key))).status, 200)
    t.match((await s.question(who)).body, { status: 'verified' })
    t.match((await s.question({ ...who, browser: by('x').browser })).body, { status: 'verification_required' })
    t.match((await s.question({ ...who, browser: 'none' })).body, { status: 'verification_required' })
    t.match((await s.question(by('alice', 'b'))).body, { status: 'verification_required' })
  })

  await t.test('purposes never stand in for one another', async t => {
    t.match((await s.question(who)).body, { step_up: null })
    const challenge = await opened(s, who, 'step_up')
    t.match(challenge.purpose, 'step_up')
    s.nextStep()
    t.equal((await s.answer(who, challenge.id, s.code(key))).status, 200)
    t.match((await s.question(who)).body, { step_up: { factor: 'totp' } })
    s.advance(16 * MINUTE)
    t.match((await s.question(who)).body, { status: 'verified', step_up: null }, 'a step-up is a time')
    t.equal(code(await s.open(by('alice', 'not verified'), 'step_up')), 'login_required')
  })

  await t.test('a code with the request leaves no step-up behind where none shall be', async t => {
    s.nextStep()
    const answer = await s.open(who, 'step_up', { code: s.code(key), record: false })
    t.match(answer.body, { status: 'accepted', verification: { assurance: { purpose: 'step_up' } } })
    t.match((await s.question(who)).body, { step_up: null })
  })

  await t.test('it is bound to the browser that comes next', async t => {
    const next = by('alice', 'c', 'the next browser')
    s.nextStep()
    t.match(
      (await s.verify(by('alice', 'c', 'the old browser'), 'login', s.code(key), { next_browser: next.browser }))
        .body,
      { assurance: { bound_to_next: true } }
    )
    t.match((await s.question(next)).body, { status: 'verified' })
    t.match((await s.question(by('alice', 'c', 'the old browser'))).body, { status: 'verification_required' })
  })

  await t.test('it lasts 30 days at most, moves with the session, and ends at log-out', async t => {
    const session = by('alice', 'd')
    s.nextStep()
    await s.verify(session, 'login', s.code(key))
    const moved = by('alice', 'd2', 'browser of alice')
    t.match((await s.call('POST', `/v1/assurances/${session.session}/move`, { to: moved.session })).body, {
      moved: true
    })
    t.match((await s.question(session)).body, { status: 'verification_required' })
    t.match((await s.question(moved)).body, { status: 'verified' })
    t.equal((await s.call('DELETE', `/v1/assurances/${moved.session}`)).status, 204)
    t.match((await s.question(moved)).body, { status: 'verification_required' })
    s.nextStep()
    await s.verify(session, 'login', s.code(key))
    s.advance(30 * DAY + 1000)
    t.match((await s.question(session)).body, { status: 'verification_required' })
  })

  await t.test('a second login in a verified session opens nothing', async t => {
    const bob = await s.enrol(by('bob'))
    t.ok(bob.key)
    const shared = by('alice', 'shared', 'shared')
    s.nextStep()
    await s.verify(shared, 'login', s.code(key))
    t.match((await s.question({ ...shared, subject: 'bob' })).body, { status: 'verification_required' })
    t.match((await s.question(shared)).body, { status: 'verification_required' }, 'and the first record is ended')
  })
})

t.test('rule 9: a change of factors needs a step-up, raises the epoch and is told', async t => {
  const s = await startService(t)
  const alice = by('alice')
  const { key } = await s.enrol(alice, { about: { email: 'alice@example.org' } })
  const url = `/v1/subjects/${s.encoded('alice')}`
  const other = by('alice', 'other')
  s.nextStep()
  await s.verify(other, 'login', s.code(key))
  for (const [method, path] of [
    ['DELETE', '/totp'],
    ['POST', '/backup-codes'],
    ['POST', '/totp']
  ] as const) {
    t.equal(code(await s.call(method, url + path, { by: other })), 'step_up_required', `${method} ${path}`)
    t.equal(
      code(await s.call(method, url + path, { by: by('alice', 'password only') })),
      'login_required',
      `${method} ${path}`
    )
  }
  s.nextStep()
  await s.verify(other, 'step_up', s.code(key))
  t.equal((await s.call('DELETE', url + '/totp', { by: other })).status, 204)
  t.match((await s.question(alice)).body, { status: 'not_required', totp: 'not_enabled' })
  const events = (await s.call('GET', '/v1/events?limit=1000', undefined, s.admin)).body.events
  const kinds = events.map((event: { kind: string }) => event.kind)
  for (const kind of ['totp_enabled', 'verification', 'totp_disabled']) t.ok(kinds.includes(kind), kind)
  const told = await s.app.records.notices.take(s.clock.now() + 1000, 100)
  t.match(told.map(notice => notice.message).sort(), ['totp_disabled', 'totp_enabled'])
  t.ok(
    told.every(notice => notice.to !== null && !notice.to.includes('alice@example.org')),
    'addresses are sealed'
  )

  await t.test('credentials-changed ends every session but the one to keep', async t => {
    const again = await s.enrol(alice)
    s.nextStep()
    await s.verify(other, 'login', s.code(again.key))
    t.equal((await s.call('POST', url + '/credentials-changed', { keep: other })).status, 204)
    t.match((await s.question(other)).body, { status: 'verified' })
    t.match((await s.question(alice)).body, { status: 'verification_required' })
    t.equal((await s.call('POST', url + '/credentials-changed', {})).status, 204)
    t.match((await s.question(other)).body, { status: 'verification_required' })
  })

  await t.test('an enrolment that was begun under an older epoch is gone, whatever is typed', async t => {
    const bob = by('bob')
    for (const [factor, begin] of [
      ['totp', async () => await s.begin(bob)],
      ['email', async () => await s.call('POST', `/v1/subjects/${s.encoded('bob')}/email`, { by: bob, address: 'bob@example.org' })]
    ] as const) {
      const begun = await begin()
      const confirm = async (typed: string) => code(await s.call(
        'POST', `/v1/subjects/${s.encoded('bob')}/${factor}/${begun.body.id}/confirm`, { by: bob, code: typed }))
      t.equal(await confirm('hello'), 'code_malformed', factor)
      t.equal((await s.call('POST', `/v1/subjects/${s.encoded('bob')}/credentials-changed`, {})).status, 204)
      t.equal(await confirm('hello'), 'enrolment_gone', `${factor}, of no form`)
      t.equal(await confirm('000000'), 'enrolment_gone', `${factor}, a code`)
    }
  })
})

t.test('rule 9: a first enrolment needs what the tenant asks for', async t => {
  await t.test("a code to the console's address", async t => {
    const s = await startService(t, { tenant: { first_enrolment: 'email' } })
    const who = by('alice')
    const about = { email: 'alice@example.org' }
    t.equal(code(await s.begin(who, { about })), 'proof_required')
    t.equal(code(await s.begin(who, { about, proof: '123456' })), 'proof_required')
    const proof = `/v1/subjects/${s.encoded('alice')}/proof`
    t.equal((await s.call('POST', proof, { by: who, about })).status, 200)
    const mailed = s.mails.at(-1)
    t.match(mailed, { to: 'alice@example.org', message: 'proof_code' })
    t.equal(
      code(await s.begin(who, { about, proof: mailed?.values.code === '000000' ? '111111' : '000000' })),
      'proof_rejected'
    )
    t.equal(
      code(await s.begin(by('alice', 'thief'), { about, proof: mailed?.values.code })),
      'proof_required',
      'it is bound to by'
    )
    t.equal((await s.begin(who, { about, proof: mailed?.values.code })).status, 200)
  })

  await t.test('or an enrolment code from an administrator, once', async t => {
    const s = await startService(t, { tenant: { first_enrolment: 'enrolment_code', require: 'everyone' } })
    const who = by('alice')
    t.match((await s.question(who)).body, { status: 'enrolment_required' })
    t.equal(code(await s.begin(who)), 'proof_required')
    const url = `/v1/subjects/${s.encoded('alice')}/enrolment-code`
    t.equal(code(await s.call('POST', url, { actor: 'root' })), 'forbidden')
    const { enrolment_code: enrolmentCode } = (await s.call('POST', url, { actor: 'root' }, s.admin)).body
    t.equal(code(await s.begin(who, { proof: 'AAAA-BBBB-CCCC-DDDD' })), 'proof_rejected')
    const enrolled = await s.enrol(who, { proof: enrolmentCode.toLowerCase() })
    t.match((await s.question(who)).body, { status: 'verified' })
    t.ok(enrolled.key)
    await s.call('POST', `/v1/subjects/${s.encoded('alice')}/reset`, { actor: 'root' }, s.admin)
    t.equal(
      code(await s.begin(by('alice', 'thief'), { proof: enrolmentCode })),
      'proof_rejected',
      'the old code is spent'
    )
  })
})

t.test('rule 10: subject ids', async t => {
  const s = await startService(t)
  await s.enrol(by('Alice'))
  t.match((await s.question(by('Alice', 'x'))).body, { status: 'verification_required' })
  for (const other of ['alice', 'ALICE', 'Alice.', 'Ａlice', 'AIice']) {
    t.match((await s.question(by(other, 'x'))).body, { status: 'not_required' }, `${other} is someone else`)
  }
  for (const refused of ['', ' Alice', 'Alice ', 'Alice\u0000', 'e\u0301', 'x'.repeat(256)]) {
    t.match((await s.question(by(refused, 'x'))).status, 400, JSON.stringify(refused))
    t.equal((await s.open(by(refused, 'x'))).status, 400)
  }
})

t.test('rule 11: administration', async t => {
  const s = await startService(t)
  const alice = by('alice')
  const { key, backupCodes } = await s.enrol(alice)
  const url = `/v1/subjects/${s.encoded('alice')}`

  await t.test('after a reset nothing passes without the enrolment code', async t => {
    const { enrolment_code: enrolmentCode } = (await s.call('POST', url + '/reset', { actor: 'root' }, s.admin)).body
    const thief = by('alice', 'thief', 'the browser of a thief')
    t.match((await s.question(alice)).body, { status: 'enrolment_required' }, 'the verified session is ended')
    t.match((await s.question(thief)).body, { status: 'enrolment_required' })
    t.equal(code(await s.open(thief)), 'enrolment_required')
    t.equal(code(await s.begin(thief)), 'proof_required')
    s.nextStep()
    t.equal((await s.verify(thief, 'login', s.code(key))).status, 403)
    t.equal((await s.verify(thief, 'login', backupCodes[0] ?? '')).status, 403)
    const begun = await s.begin(alice, { proof: enrolmentCode })
    t.equal((await s.confirm(alice, begun.body.id, s.code(begun.body.key))).status, 200)
    t.match((await s.question(alice)).body, { status: 'verified' })
  })

  await t.test('a requirement by name bites from its date', async t => {
    const from = new Date(s.clock.now() + DAY).toISOString()
    const bob = by('bob')
    t.equal(
      (await s.call('PUT', `/v1/subjects/${s.encoded('bob')}/requirement`, { actor: 'root', from }, s.admin)).status,
      204
    )
    t.match((await s.question(bob)).body, { status: 'not_required' })
    s.advance(DAY + 1000)
    t.match((await s.question(bob)).body, { status: 'enrolment_required' })
    await s.call('PUT', `/v1/subjects/${s.encoded('bob')}/requirement`, { actor: 'root', from: null }, s.admin)
    t.match((await s.question(bob)).body, { status: 'not_required' })
  })

  await t.test('rename moves a subject with its factors, and refuses a target that has some', async t => {
    const carol = await s.enrol(by('carol'))
    await s.enrol(by('dave'))
    const rename = async (to: string) =>
      await s.call('POST', `/v1/subjects/${s.encoded('carol')}/rename`, { actor: 'root', to }, s.admin)
    t.equal(code(await rename('dave')), 'target_has_factors')
    t.equal((await rename('caroline')).status, 204)
    t.match((await s.question(by('carol', 'x'))).body, { status: 'not_required' })
    s.nextStep()
    t.equal((await s.verify(by('caroline', 'x'), 'login', s.code(carol.key))).status, 200)
  })

  await t.test('delete erases all but the audit rows', async t => {
    await s.enrol(by('erin'), { about: { email: 'erin@example.org' } })
    t.equal((await s.call('DELETE', `/v1/subjects/${s.encoded('erin')}`, { actor: 'root' }, s.admin)).status, 204)
    t.match((await s.question(by('erin', 'x'))).body, { status: 'not_required' })
    const { events } = (await s.call('GET', '/v1/events?limit=1000', undefined, s.admin)).body
    t.notOk(events.some((event: { subject: string }) => event.subject === 'erin'))
    t.ok(
      events.some(
        (event: { subject: string; kind: string }) =>
          event.subject.startsWith('deleted:') && event.kind === 'totp_enabled'
      )
    )
  })

  await t.test('a gate key on an administrative call is refused and the attempt kept', async t => {
    for (const [method, path] of [
      ['POST', '/reset'],
      ['POST', '/unlock'],
      ['POST', '/rename'],
      ['POST', '/enrolment-code'],
      ['DELETE', ''],
      ['PUT', '/requirement'],
      ['PUT', '/address'],
      ['GET', '/sessions']
    ] as const) {
      const answer = await s.call(
        method,
        url + path,
        method === 'GET' ? undefined : { actor: 'x', to: 'y', from: null, address: null }
      )
      t.match([answer.status, code(answer)], [403, 'forbidden'], path)
    }
    const { events } = (await s.call('GET', '/v1/events?limit=1000', undefined, s.admin)).body
    t.ok(events.filter((event: { reason?: string }) => event.reason === 'gate_key').length >= 8)
  })
})

t.test('rule 12 and the interface: other tenants, other sessions and other browsers find nothing', async t => {
  const s = await startService(t)
  const { key } = await s.enrol(by('alice'))
  s.nextStep()
  const who = by('alice', 'a')
  const challenge = await opened(s, who)
  const right = s.code(key)
  const strangers = [
    by('alice', 'b'),
    { ...who, browser: by('x').browser },
    { ...who, subject: 'bob' },
    { ...who, browser: 'none' }
  ]
  for (const stranger of strangers) {
    t.equal(code(await s.answer(stranger, challenge.id, right)), 'challenge_gone')
    t.equal(code(await s.call('POST', `/v1/challenges/${challenge.id}/email`, { by: stranger })), 'challenge_gone')
  }
  t.equal(
    code(
      await s.call(
        'POST',
        `/v1/challenges/${challenge.id}/verification`,
        { by: who, code: right },
        { authorization: `Bearer ${s.keys.other.key}` }
      )
    ),
    'challenge_gone',
    'another tenant'
  )
  t.equal((await s.answer(who, challenge.id, right)).status, 200, 'nothing was counted and nothing used up')
  for (const authorization of [
    '',
    'Bearer ',
    'Bearer pk_t1_g1_' + 'A'.repeat(43),
    s.keys.gate.key,
    `Basic ${s.keys.gate.key}`,
    `Bearer ${s.keys.gate.key} `,
    `Bearer ${s.keys.gate.key.replace('t1', 't2')}`
  ]) {
    t.match(await s.call('GET', `/v1/assurances/${who.session}`, undefined, { authorization }), {
      status: 401,
      body: { code: 'unauthenticated' }
    })
  }
})
