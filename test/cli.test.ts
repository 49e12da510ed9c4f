// The command line: what an operator types, on the built service, with real files and signals.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SETTINGS } from '../service/src/config.ts'
import { by, name as named } from './helpers/service.ts'
import { dataFolder, postern, serve, settingsIn } from './helpers/processes.ts'

t.test('--help lists every command and every setting', async t => {
  const { code, out } = await postern(['--help'])
  t.equal(code, 0)
  for (const name of Object.keys(SETTINGS)) t.match(out, `POSTERN_${name.toUpperCase()}`)
  for (const word of ['serve', 'migrate', 'subject', 'tenants key', 'keys new']) t.match(out, `postern ${word}`)
  t.equal((await postern(['serve', '--help'])).code, 0)
})

t.test('a command that does not exist, or is used wrongly, ends with 2 and says how', async t => {
  for (const [args, sentence] of [
    [['server'], /"server" is not a command/],
    [['tenants', 'key'], /usage: postern tenants key/],
    [['tenants', 'key', 'T_1', 'k1'], /usage: postern tenants key/],
    [['tenants', 'key', 't1', 'k1', '--amdin'], /--amdin is not an option/],
    [['keys', 'new'], /usage: postern keys new/],
    [['keys', 'new', 'k1', '--x'], /--x is not an option/],
    [['subject', 'status'], /usage: postern subject/],
    [['subject', 'rename', 't1', 'ann'], /usage: postern subject/],
    [['subject', 'status', 't1', 'ann', '--all'], /--all is not an option/]
  ] as const) {
    const { code, err } = await postern(args)
    t.equal(code, 2, args.join(' '))
    t.match(err, sentence)
  }
})

t.test('keys are made, and only their hash goes into the configuration', async t => {
  const { out } = await postern(['tenants', 'key', 'shop', 'k2', '--admin'])
  t.match(out, /^key: {3}pk_shop_k2_[\w-]{43}\nentry: {"id":"k2","scope":"admin","sha256":"[0-9a-f]{64}"}\n$/)
  t.match((await postern(['tenants', 'key', 'shop', 'k2'])).out, /"scope":"gate"/)
  t.match((await postern(['keys', 'new', 'k9'])).out, /^k9:[A-Za-z0-9+/]{43}=\n$/)
})

t.test('all mistakes of a configuration are named at once, by name and never by value', async t => {
  const folder = dataFolder(t)
  const file = join(folder, 'postern.json')
  writeFileSync(file, JSON.stringify({
    settings: { log_level: 'loud', colour: 'red' },
    elsewhere: 1,
    tenants: [
      { id: 'A B', name: '', keys: [], colour: 1, require: 'some', exempt: ['everything'], require_from: 'soon', limits: { challenge_seconds: 5, x: 1 } },
      { id: 't2', name: 'Two', issuer: 'a:b', keys: [{ id: 'K', scope: 'gate', sha256: 'x' }, 7, { id: 'a', scope: 'x', sha256: 'y' }], limits: 5 },
      'three'
    ]
  }))
  const { code, err } = await postern(['serve'], {
    POSTERN_CONFIG: file,
    POSTERN_PORT: '70000',
    POSTERN_DATABASE: 'mysql://secret-host',
    POSTERN_REDIS: 'secret',
    POSTERN_SMTP: 'secret',
    POSTERN_ENCRYPTION_KEYS: 'k1:c2VjcmV0',
    POSTERN_COLOUR: 'red',
    POSTERN_DRAIN_SECONDS: 'x',
    POSTERN_MIGRATE_ON_START: 'yes'
  })
  t.equal(code, 1)
  for (const part of [
    'POSTERN_PORT must be a whole number from 0 to 65535', 'POSTERN_DATABASE must be', 'POSTERN_REDIS must be', 'POSTERN_SMTP must be',
    'POSTERN_ENCRYPTION_KEYS: key 1 is not', 'POSTERN_SERVER_KEY is missing', 'POSTERN_COLOUR is not a setting',
    'POSTERN_DRAIN_SECONDS must be', 'POSTERN_MIGRATE_ON_START must be true or false', 'POSTERN_LOG_LEVEL must be one of',
    'settings.colour is not a setting', 'elsewhere in the file', 'tenants[0].id', 'tenants[0].name', 'tenants[0].keys is missing',
    'tenants[0].colour is not', 'tenants[0].require must be', 'tenants[0].exempt', 'tenants[0].require_from',
    'tenants[0].limits.challenge_seconds must be a whole number from 60 to 600', 'tenants[0].limits.x is not a limit', 'tenants[1].issuer',
    'tenants[1].keys[0].id', 'tenants[1].keys[1] is not an object', 'tenants[1].keys[2].scope', 'tenants[1].limits is not an object',
    'tenants[2] is not an object'
  ]) t.match(err, part)
  t.notMatch(err, /secret/)
  for (const [text, sentence] of [['[]', 'name at least one console'], ['{', 'POSTERN_TENANTS is not JSON'], ['{}', 'name at least one console']] as const) {
    t.match((await postern([], { ...settingsIn(folder).settings, POSTERN_TENANTS: text })).err, sentence)
  }
  const zero = Buffer.alloc(32).toString('base64')
  t.match((await postern([], { ...settingsIn(folder).settings, POSTERN_SERVER_KEY: `s1:${zero}` })).err, 'key 1 is not random')
  t.match((await postern([], { ...settingsIn(folder).settings, POSTERN_CONFIG: join(folder, 'none') })).err, 'POSTERN_CONFIG names a file that cannot be read')
})

t.test('one process serves an embedded store, a second is refused and told which', async t => {
  const folder = dataFolder(t)
  const { settings, gate } = settingsIn(join(folder, 'new', 'folder'))
  const running = await serve(t, settings)
  t.equal((await fetch(`${running.operations}/readyz`)).status, 200)
  t.equal((await fetch(`${running.operations}/livez`)).status, 200)
  t.match(await (await fetch(`${running.operations}/metrics`)).text(), /postern_/)
  t.equal((await fetch(`${running.url}/metrics`)).status, 404, 'not on the interface')
  const second = await postern(['serve'], settings)
  t.equal(second.code, 1)
  t.match(second.err, `in use by process ${running.pid} on`)
  t.equal((await postern(['migrate'], settings)).code, 0, 'commands take no lease')

  const asked = await fetch(`${running.url}/v1/assurances/${named('s')}`, {
    headers: { authorization: `Bearer ${gate}`, 'postern-subject': Buffer.from('ann').toString('base64url'), 'postern-browser': 'none' }
  })
  t.match(await asked.json(), { status: 'not_required' })
  running.stop('SIGTERM')
  const { code, out } = await running.ended
  t.equal(code, 0)
  t.match(out, '"msg":"draining"')
  const third = await serve(t, settings)
  third.stop('SIGKILL')
  await third.ended
  await (await serve(t, settings)).stop('SIGINT')
})

t.test('an old schema is refused where migrating is left to the operator, and migrate mends it', async t => {
  const { settings } = settingsIn(dataFolder(t), { POSTERN_MIGRATE_ON_START: 'false' })
  const { code, err } = await postern(['serve'], settings)
  t.equal(code, 1)
  t.match(err, /schema is not up to date .*postern migrate/)
  t.match((await postern(['migrate'], settings)).out, 'the schema is up to date')
  const running = await serve(t, settings)
  running.stop()
  t.equal((await running.ended).code, 0)
})

t.test('a subject is looked at and helped on the host while the service runs, and the service knows within a second', async t => {
  const { settings, gate } = settingsIn(dataFolder(t))
  const running = await serve(t, settings)
  const subject = async (...args: string[]) => await postern(['subject', ...args], settings)
  t.match(JSON.parse((await subject('status', 't1', 'ann')).out), { totp: 'not_enabled', locked: false, backup_codes_left: 0 })
  t.match((await subject('status', 't9', 'ann')).err, '"t9" is not a tenant of this configuration (t1)')

  const stream = await fetch(`${running.url}/v1/changes`, { headers: { authorization: `Bearer ${gate}` } })
  const reader = stream.body?.getReader()
  const reset = await subject('reset', 't1', 'ann')
  t.match(reset.out, /^reset; enrolment code \(once, 72 hours\): [0-9A-Z-]{16,}\n$/)
  let heard = ''
  while (!heard.includes('"subject":"ann"')) heard += new TextDecoder().decode((await reader?.read())?.value)
  await reader?.cancel()
  t.match(JSON.parse((await subject('status', 't1', 'ann')).out), { needs_enrolment_code: true })

  const begun = await fetch(`${running.url}/v1/subjects/${Buffer.from('ann').toString('base64url')}/totp`, {
    method: 'POST',
    headers: { authorization: `Bearer ${gate}`, 'content-type': 'application/json' },
    body: JSON.stringify({ by: by('ann'), about: {} })
  })
  t.ok(begun.status >= 400, 'who has only the password cannot enrol after a reset')
  t.match((await subject('enrolment-code', 't1', 'ann')).out, /^enrolment code \(once, 72 hours\): [0-9A-Z-]{16,}\n$/)
  t.equal((await subject('unlock', 't1', 'ann')).out, 'unlocked\n')
  t.equal((await subject('reset', 't1', 'bob', '--open')).out, 'reset\n')
  t.equal((await subject('rename', 't1', 'ann', 'anna')).out, 'renamed\n')
  t.match(JSON.parse((await subject('status', 't1', 'anna')).out), { needs_enrolment_code: true })
  t.equal((await subject('delete', 't1', 'anna')).out, 'deleted\n')
  t.match(JSON.parse((await subject('status', 't1', 'anna')).out), { needs_enrolment_code: false })
  const wrong = await subject('rename', 't1', 'bob', ' outer')
  t.equal(wrong.code, 1)
  t.match(wrong.err, /postern: /)
})
