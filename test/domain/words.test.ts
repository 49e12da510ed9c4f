// What needs no store: the vectors of RFC 4226 and RFC 6238, subject ids, backup codes, addresses, waits, the table.

import { createHmac, randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import { addressPrefix, maskAddress, singleMailbox } from '../../service/src/domain/addresses.ts'
import { asked, type Asked, type Have } from '../../service/src/domain/assurance.ts'
import { backupCode, grouped, normaliseBackupCode } from '../../service/src/domain/factors/backup-code.ts'
import {
  base32,
  clockOff,
  keyUri,
  matchingStep,
  nextStepIn,
  normaliseDigits
} from '../../service/src/domain/factors/totp.ts'
import { checkedSubject, totpStatus } from '../../service/src/domain/model.ts'
import { defaultLimits, LIMITS, locks, seconds, waitAfter } from '../../service/src/domain/policy.ts'
import { PROBLEMS, Problem } from '../../service/src/domain/problems.ts'
import { totpCode } from '../helpers/service.ts'

const key = Buffer.from('12345678901234567890')

t.test('the codes of RFC 4226 appendix D are right at their counters and nowhere else', async t => {
  const codes = ['755224', '287082', '359152', '969429', '338314', '254676', '287922', '162583', '399871', '520489']
  codes.forEach((code, counter) => {
    t.equal(matchingStep(key, code, counter * 30_000, 0), counter)
    t.equal(matchingStep(key, code, (counter + 20) * 30_000, 1), undefined)
  })
})

t.test('the codes of RFC 6238 appendix B (SHA-1, last six digits) are right at their times', async t => {
  for (const [time, code] of [
    [59, '287082'],
    [1111111109, '081804'],
    [1111111111, '050471'],
    [1234567890, '005924'],
    [2000000000, '279037'],
    [20000000000, '353130']
  ] as const) {
    t.equal(matchingStep(key, code, time * 1000, 0), Math.floor(time / 30))
  }
})

t.test('any key and time give the code that another implementation gives', async t => {
  const wrong: string[] = []
  for (let i = 0; i < 2_000; i++) {
    const bytes = randomBytes(16 + i % 49)
    const now = randomInt(2 ** 33) * 1_000
    const code = totpCode(base32(bytes), now)
    const step = Math.floor(now / 30_000)
    for (const late of [-1, 0, 1]) {
      if (matchingStep(bytes, code, Math.max(0, now + late * 30_000), 1) === undefined) wrong.push(`${bytes.toString('hex')} at ${now}`)
    }
    if (matchingStep(bytes, code, now, 1) !== step) wrong.push(`another step for ${bytes.toString('hex')} at ${now}`)
  }
  t.same(wrong, [])
})

t.test('one step either side is accepted at every second of a period, two are not', async t => {
  for (let second = 0; second < 30; second++) {
    const now = (3000 * 30 + second) * 1000
    for (const off of [-2, -1, 0, 1, 2]) {
      const code = hotp(3000 + off)
      t.equal(
        matchingStep(key, code, now, 1),
        Math.abs(off) <= 1 ? 3000 + off : undefined,
        `${off} at second ${second}`
      )
    }
  }
})

t.test('what is not six digits is never right, and never throws', async t => {
  for (const code of [
    '',
    '12345',
    '1234567',
    'abcdef',
    '12345６',
    '12 456',
    '１２３４５６',
    '-12345',
    '1e5123',
    '\u0000\u0000\u0000\u0000\u0000\u0000'
  ]) {
    t.equal(matchingStep(key, code, 59_000, 1), undefined)
  }
  t.equal(matchingStep(Buffer.alloc(3), '287082', 59_000, 1), undefined, 'a key that is too short')
})

t.test('digits of any script, spaces and dashes are read as people mean them', async t => {
  for (const typed of ['287082', ' 287 082 ', '287-082', '２８７０８２', '287\u00a0082', '\u200e287082']) {
    t.equal(normaliseDigits(typed), '287082')
  }
})

t.test('a clock up to five minutes off is told by how much', async t => {
  const now = 3000 * 30_000
  t.equal(clockOff(key, hotp(3000 - 8), now, 5), -240)
  t.equal(clockOff(key, hotp(3000 + 10), now, 5), 300)
  t.equal(clockOff(key, hotp(3000 + 12), now, 5), undefined)
  t.equal(nextStepIn(59_000), 1)
  t.equal(nextStepIn(60_000), 30)
})

t.test('a key is base32 of its 20 bytes, and an issuer cannot inject a parameter into its URI', async t => {
  t.equal(base32(key), 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ')
  t.equal(base32(Buffer.from('f')), 'MY')
  const uri = new URL(keyUri('A&secret=x', 'zoë@example.org?secret=y', base32(key)))
  t.equal(uri.protocol, 'otpauth:')
  t.same(uri.searchParams.getAll('secret'), [base32(key)])
  t.equal(uri.searchParams.get('issuer'), 'A&secret=x')
})

t.test('a backup code is 80 bits in 16 characters, read without regard to case, dashes and look-alikes', async t => {
  t.equal(backupCode(Buffer.alloc(10)), '0'.repeat(16))
  t.equal(backupCode(Buffer.alloc(10, 255)), 'Z'.repeat(16))
  const code = backupCode(Buffer.from('0123456789abcdef0123', 'hex'))
  t.match(code, /^[0-9A-HJKMNP-TV-Z]{16}$/)
  t.equal(normaliseBackupCode(grouped(code).toLowerCase()), code)
  t.equal(normaliseBackupCode('oO0-iIlL1 abcd'), '00011111ABCD')
})

t.test('subject ids are compared byte for byte, and refused rather than repaired', async t => {
  for (const fits of ['1', 'alice', 'Alice', 'a b', '张三', 't1}', '{t1', 'a:b', '../x', 'é', 'x'.repeat(255)]) {
    t.equal(checkedSubject(fits), fits)
  }
  for (const refused of [
    '',
    ' a',
    'a ',
    'a\n',
    '\u0000',
    'e\u0301',
    'x'.repeat(256),
    'é'.repeat(128),
    '\ud800',
    'a\u0085b',
    '\u00a0a'
  ]) { t.equal(checkedSubject(refused), undefined) }
})

t.test('an address is one mailbox or refused: lists, groups, names and line breaks redirect mail', async t => {
  for (const fits of ['a@x.org', 'first.last+tag@sub.example.org', "o'neil@example.org", 'a@localhost']) {
    t.equal(singleMailbox(fits), fits)
  }
  for (const refused of [
    '',
    'a',
    'a@',
    '@x.org',
    'a@x.org, b@y.org',
    'a@x.org\r\nBcc: b@y.org',
    'Name <a@x.org>',
    'g: a@x.org;',
    '"a b"@x.org',
    'a@x.org b',
    'a@@x.org',
    'a@x..org',
    '.a@x.org',
    'a@-x.org',
    'a@x.org;',
    'a'.repeat(65) + '@x.org',
    'ü@x.org',
    'a@' + 'x'.repeat(260)
  ]) {
    t.equal(singleMailbox(refused), undefined, JSON.stringify(refused))
  }
  t.equal(maskAddress('alice@example.org'), 'a•••@e•••.org')
  t.equal(maskAddress('a@localhost'), 'a•••@l•••')
})

t.test('the audit log keeps the network of an address, not the address', async t => {
  t.equal(addressPrefix('192.0.2.77'), '192.0.2.0/24')
  t.equal(addressPrefix('::ffff:192.0.2.77'), '192.0.2.0/24')
  t.equal(addressPrefix('2001:db8:1:2:3:4:5:6'), '2001:db8:1::/48')
  t.equal(addressPrefix('2001:db8::1'), '2001:db8:0::/48')
  t.equal(addressPrefix('::1'), '0:0:0::/48')
  t.equal(addressPrefix('nonsense'), undefined)
  t.equal(addressPrefix(undefined), undefined)
})

t.test('from the fifth failure in a row each doubles a wait, from 30 seconds to an hour', async t => {
  t.same(
    [1, 4, 5, 6, 7, 11, 12, 13, 99, 1000].map(failures => waitAfter(failures, defaultLimits) / 1000),
    [0, 0, 30, 60, 120, 1920, 3600, 3600, 3600, 3600]
  )
  t.equal(locks({ inARow: 99, in30Days: 99 }, defaultLimits), false)
  t.equal(locks({ inARow: 100, in30Days: 1 }, defaultLimits), true)
  t.equal(locks({ inARow: 1, in30Days: 100 }, defaultLimits), true)
  t.equal(seconds(1), 1)
  t.equal(seconds(-5), 0)
  for (const [name, row] of Object.entries(LIMITS)) {
    t.ok(row.min <= row.value && row.value <= row.max, `${name} defaults within its safe range`)
  }
})

t.test('what is asked of whom: the table, cell by cell', async t => {
  const any = { email: 'on', stepUp: 'any' } as const
  const counts = { email: 'counts', stepUp: 'any' } as const
  const strict = { email: 'on', stepUp: 'totp' } as const
  const rows: readonly (readonly [Have, typeof any | typeof counts | typeof strict, Asked, Asked, Asked, Asked])[] = [
    // has, settings: not required login / step-up, required login / step-up
    ['nothing', any, 'pass', 'pass', 'enrol', 'enrol'],
    ['reset', any, 'enrol_with_code', 'enrol_with_code', 'enrol_with_code', 'enrol_with_code'],
    ['check', any, 'verify', 'verify', 'enrol', 'enrol'],
    ['check', strict, 'verify', 'enrol', 'enrol', 'enrol'],
    ['check', counts, 'verify', 'verify', 'verify', 'verify'],
    ['check', { ...counts, stepUp: 'totp' } as never, 'verify', 'enrol', 'verify', 'enrol'],
    ['factor', any, 'verify', 'verify', 'verify', 'verify'],
    ['factor', strict, 'verify', 'verify', 'verify', 'verify']
  ]
  const lines = ['has       email  step_up  not required            required']
  for (const [have, settings, login, stepUp, requiredLogin, requiredStepUp] of rows) {
    t.same(asked(have, false, settings), { login, step_up: stepUp }, `${have}, not required`)
    t.same(asked(have, true, settings), { login: requiredLogin, step_up: requiredStepUp }, `${have}, required`)
    lines.push(
      `${have.padEnd(9)} ${settings.email.padEnd(6)} ${settings.stepUp.padEnd(8)} ${`${login} / ${stepUp}`.padEnd(23)} ${requiredLogin} / ${requiredStepUp}`
    )
  }
  t.comment(lines.join('\n'))
})

t.test('expired is 180 days after confirmation, not before', async t => {
  const own = (age: number) => ({
    authenticators: [{ id: '1', factor: 'totp', secret: '', counter: 0, confirmedAt: 1_000_000_000_000 - age }]
  })
  const day = 86_400_000
  t.equal(totpStatus({ authenticators: [] }, 1_000_000_000_000, 180), 'not_enabled')
  t.equal(totpStatus(own(179 * day), 1_000_000_000_000, 180), 'enabled')
  t.equal(totpStatus(own(180 * day), 1_000_000_000_000, 180), 'enabled')
  t.equal(totpStatus(own(180 * day + 1), 1_000_000_000_000, 180), 'expired')
})

t.test('a problem has the status and title of its code', async t => {
  for (const [code, { status, title }] of Object.entries(PROBLEMS)) {
    const problem = new Problem(code as keyof typeof PROBLEMS)
    t.same([problem.statusCode, problem.message], [status, title])
    t.ok(status >= 400)
  }
})

/** RFC 4226 5.3, written anew so that the product is held against something else. */
function hotp (counter: number): string {
  const message = Buffer.alloc(8)
  message.writeBigUInt64BE(BigInt(counter))
  const mac = createHmac('sha1', key).update(message).digest()
  const at = (mac[19] ?? 0) & 15
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0')
}
