// Threat: a locked SQLite file, a backup that is not whole, a restore that brings used codes back, a tenant whose rules
// changed unheard.

import { copyFileSync, readdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Kysely, sql } from 'kysely'
import t from 'tap'
import { openDatabase } from '../../service/src/adapters/database.ts'
import { restoreFence } from '../../service/src/adapters/restore-fence.ts'
import type { Schema } from '../../service/src/adapters/schema.ts'
import { createCommits } from '../../service/src/adapters/sqlite-commits.ts'
import { sqliteDialect } from '../../service/src/adapters/sqlite.ts'
import { createTurns } from '../../service/src/adapters/turns.ts'
import { until } from '../helpers/browser.ts'
import { dataFolder, postern, serve, settingsIn } from '../helpers/processes.ts'
import { by, name, startService } from '../helpers/service.ts'

t.test('C-16: while another process holds the file, reads go on, writes end in 503 within two seconds, and the process stays awake', async t => {
  const file = join(dataFolder(t), 'p.db')
  const s = await startService(t, { database: `sqlite:${file}` })
  const ann = by('ann')
  const { key } = await s.enrol(ann)
  s.nextStep()
  const later = by('ann', 'later')
  const id = (await s.open(later)).body.challenge.id
  const other = await openDatabase(`sqlite:${file}`)
  t.teardown(async () => { await other.close() })
  let letGo = (): void => {}
  const held = new Promise<void>(resolve => { letGo = resolve })
  const holding = other.db.transaction().execute(async tx => {
    await tx.updateTable('subjects').set({ locale: 'en' }).execute()
    await held
  })
  let longest = 0
  let last = performance.now()
  const pulse = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }, 10)
  const began = performance.now()
  const answers = await Promise.all(Array.from({ length: 2 }, async () => await s.answer(later, id, s.code(key))))
  const took = performance.now() - began
  clearInterval(pulse)
  for (const answer of answers) t.match(answer, { status: 503, body: { code: 'unavailable' } })
  t.ok(took < 5_000, `${Math.round(took)} ms`)
  t.ok(longest < 1_000, `the event loop stood still for ${Math.round(longest)} ms`)
  t.match((await s.question(ann)).body, { status: 'verified' }, 'who has passed is not held up')
  t.match((await s.question(later)).body, { status: 'verification_required' })
  letGo()
  await holding
  const retried = await s.answer(later, id, s.code(key))
  t.equal(retried.status, 200, `nothing was used up: ${retried.text}`)
})

t.test('C-32: a backup beside the running service is whole, a copied file is not, and a fence makes a restore safe', async t => {
  const folder = dataFolder(t)
  const file = join(folder, 'p.db')
  const s = await startService(t, { database: `sqlite:${file}` })
  const [ann, bob] = [by('ann'), by('bob')]
  const keys = { ann: await s.enrol(ann), bob: await s.enrol(bob) }
  const { settings } = settingsIn(folder, { POSTERN_DATABASE: `sqlite:${file}` })
  const writing = { on: true }
  const writes = (async () => {
    for (let i = 0; writing.on; i++) {
      await s.app.records.writeEvent('t1', { kind: 'x', subject: String(i), outcome: 'done', actor: 'host' }, i)
      await new Promise(resolve => { setImmediate(resolve) })
    }
  })()
  const copy = join(folder, 'backup.db')
  const { code, err } = await postern(['backup', copy], settings)
  t.equal(code, 0, err)
  writing.on = false
  await writes
  t.equal((await postern(['backup', copy], settings)).code, 1, 'an old backup is not written over')
  // The negative: the file alone lacks what stands in the log beside it.
  const torn = join(folder, 'torn.db')
  await s.app.records.writeEvent('t1', { kind: 'x', subject: 'last', outcome: 'done', actor: 'host' }, 1)
  copyFileSync(file, torn)
  const whole = await openDatabase(`sqlite:${copy}`)
  t.teardown(async () => { await whole.close() })
  t.equal((await whole.db.selectFrom('authenticators').select('id').where('factor', '=', 'totp').execute()).length, 2)
  const copied = await openDatabase(`sqlite:${torn}`)
  t.teardown(async () => { await copied.close() })
  const last = await copied.db.selectFrom('events').select('id').where('subject', '=', 'last').execute().then(rows => rows.length, () => 0)
  t.equal(last, 0)

  // What happens after the backup and is lost: a code is used, a backup code, a session passes.
  s.nextStep()
  const used = s.code(keys.ann.key)
  t.equal((await s.verify(by('ann', 'thief'), 'login', used)).status, 200)
  const before = (await s.question(by('ann', 'thief'))).body.change as number
  const restored = await startService(t, { database: `sqlite:${copy}`, env: s.secrets, overrides: { clock: s.clock } })
  t.match((await restored.question(ann)).body, { status: 'verified' }, 'without a fence the old sessions live')
  const fenced = await restoreFence(whole, s.clock.now(), { backupCodes: true })
  t.same(fenced, { subjects: 2, sessions: 2, backupCodes: 12 })
  for (const who of [ann, bob]) t.match((await restored.question(who)).body, { status: 'verification_required' })
  const login = await restored.open(ann)
  t.match((await restored.answer(ann, login.body.challenge.id, used)).body, { code: 'code_used' }, 'C-19: the code from before')
  t.match((await restored.answer(ann, login.body.challenge.id, keys.ann.backupCodes[0] ?? '')).body, { code: 'code_used' })
  t.ok((await restored.question(ann)).body.change > before + 1, 'gates see a number that cannot be mistaken for one they know')
  s.advance(90_000)
  t.equal((await restored.verify(by('ann', 'new'), 'login', s.code(keys.ann.key))).status, 200, 'a minute later everybody gets in')
})

t.test('rules of a tenant are reloaded on SIGHUP, gates are told, a mistake changes nothing, and a missing tenant is named', async t => {
  const folder = dataFolder(t)
  const { settings, gate } = settingsIn(folder)
  const file = join(folder, 'postern.json')
  const [tenant] = JSON.parse(settings.POSTERN_TENANTS ?? '[]')
  const { POSTERN_TENANTS: _, ...rest } = settings
  const write = (...tenants: unknown[]) => { writeFileSync(file, JSON.stringify({ tenants })) }
  const second = { ...tenant, id: 't2', name: 'Two' }
  write(tenant, second)
  const env = { ...rest, POSTERN_CONFIG: file }
  t.equal((await postern(['subject', 'reset', 't2', 'zoe'], env)).code, 0)
  const running = await serve(t, env)
  const headers = { authorization: `Bearer ${gate}`, 'postern-subject': Buffer.from('ann').toString('base64url'), 'postern-browser': 'none' }
  const status = async () => ((await (await fetch(`${running.url}/v1/assurances/${name('s')}`, { headers })).json()) as { status: string }).status
  t.equal(await status(), 'not_required')
  const stream = await fetch(`${running.url}/v1/changes`, { headers })
  const reader = stream.body?.getReader()
  write({ ...tenant, require: 'everyone' })
  process.kill(running.pid, 'SIGHUP')
  await until('the new rules', async () => (await status()) === 'enrolment_required' ? true : undefined)
  let heard = ''
  while (!heard.includes('"kind":"tenant"')) heard += new TextDecoder().decode((await reader?.read())?.value)
  await until('the missing tenant to be named', async () =>
    running.output.join('').includes('"tenants":["t2"],"msg":"tenants have enrolments but are missing') ? true : undefined)
  write({ ...tenant, require: 'sometimes' })
  process.kill(running.pid, 'SIGHUP')
  await until('the mistake to be named', async () => /not reloaded/.test(running.output.join('')) ? true : undefined)
  t.equal(await status(), 'enrolment_required', 'the rules before go on')
  // The key is taken away: the stream under it ends too.
  write({ ...tenant, keys: tenant.keys.filter((key: { scope: string }) => key.scope === 'admin') })
  process.kill(running.pid, 'SIGHUP')
  await until('the key to be worth nothing', async () => (await fetch(`${running.url}/v1/assurances/${name('s')}`, { headers })).status === 401 ? true : undefined)
  await t.rejects((async () => { while (!(await reader?.read())?.done) { /* to its end */ } throw new Error('ended') })())
})

t.test('transactions at the same time are durable together: each is seen when it ends, one that fails is undone alone', async t => {
  const url = `sqlite:${join(dataFolder(t), 'together.db')}`
  const database = await openDatabase(url)
  const other = await openDatabase(url)
  t.teardown(async () => { await database.close(); await other.close() })
  await database.migrate()
  const seen = async (subject: string): Promise<boolean> =>
    await other.db.selectFrom('subjects').selectAll().where('subject', '=', subject).executeTakeFirst() !== undefined
  const write = async (subject: string, then: 'keeps' | 'fails', locale = 'en') => await database.db.transaction().execute(async tx => {
    await tx.insertInto('subjects').values({ tenant: 't1', subject, epoch: 0, failures_in_row: 0, fenced: 0, locale }).execute()
    if (then === 'fails') throw new Error('on purpose')
  })
  const ends = await Promise.allSettled(Array.from({ length: 60 }, async (_, i) => {
    await write(`u${i}`, i % 5 === 0 ? 'fails' : 'keeps')
    return await seen(`u${i}`)
  }))
  ends.forEach((end, i) => {
    if (i % 5 === 0) t.match(end, { status: 'rejected', reason: /on purpose/ })
    else t.match(end, { status: 'fulfilled', value: true }, `u${i} is there for others as soon as it has ended`)
  })
  for (let i = 0; i < 60; i += 5) t.notOk(await seen(`u${i}`), `u${i} never was`)

  // A full disk undoes what is open, with all that wait to be durable with it: they must hear of it.
  await sql`pragma max_page_count = 1`.execute(database.db)
  const large = 'x'.repeat(3_000_000)
  const full = await Promise.allSettled(Array.from({ length: 12 }, async (_, i) => {
    await write(`v${i}`, 'keeps', i % 4 === 2 ? large : 'en')
  }))
  t.ok(full.some(({ status }) => status === 'rejected'))
  for (const [i, { status }] of full.entries()) t.equal(await seen(`v${i}`), status === 'fulfilled', `v${i}: ${status}`)
  await sql`pragma max_page_count = 1000000`.execute(database.db)
  await write('again', 'keeps')
  t.ok(await seen('again'))
})

t.test('what a transaction would be undone with waits in memory, that of whole tables in a file', async t => {
  const database = await openDatabase(`sqlite:${join(dataFolder(t), 'undo.db')}`)
  t.teardown(async () => { await database.close() })
  await database.migrate()
  for (let i = 0; i < 300; i++) {
    const row = { tenant: 't', subject: `u${i}`, epoch: 0, failures_in_row: 0, fenced: 0, contact: 'x'.repeat(1_000) }
    await database.db.insertInto('subjects').values(row).execute()
  }
  /** Files of this process that only SQLite knows, while all rows are changed in one transaction. */
  const files = async (db: Kysely<Schema>): Promise<number> => await db.transaction().execute(async tx => {
    await tx.updateTable('subjects').set(eb => ({ epoch: eb('epoch', '+', 1) })).execute()
    const names = readdirSync('/proc/self/fd').map(fd => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`)
      } catch {
        return ''
      }
    })
    return names.filter(name => name.includes('etilqs_')).length
  })
  for (const turn of ['first', 'second']) {
    t.equal(await files(database.db), 0, turn)
    t.equal(await database.patiently(files), 1, turn)
  }
  t.equal(await files(database.db), 0, 'at last')
})

t.test('nobody hears of a write or reads it before the disk has it, and a disk that fails is heard of', async t => {
  const file = join(dataFolder(t), 'disk.db')
  const made = await openDatabase(`sqlite:${file}`)
  await made.migrate()
  await made.close()
  const syncs: { readonly end: () => void, readonly fail: (error: Error) => void }[] = []
  const whole = { takesAll: true }
  const db = new Kysely<Schema>({
    dialect: sqliteDialect(file, () => ({
      sync: async () => await new Promise((resolve, reject) => { syncs.push({ end: resolve, fail: reject }) }),
      checkpoint: async () => whole.takesAll,
      close: async () => {}
    }))
  })
  const ended: string[] = []
  const write = async (subject: string) => {
    await db.transaction().execute(async tx => {
      await tx.insertInto('subjects').values({ tenant: 't1', subject, epoch: 0, failures_in_row: 0, fenced: 0 }).execute()
    })
    ended.push(subject)
  }
  const read = async () => (await db.selectFrom('subjects').select('subject').orderBy('subject').execute()).map(one => one.subject)
  const synced = async (count: number) => await until('the disk to be asked', async () => syncs.length === count ? true : undefined)

  const first = write('a')
  await synced(1)
  t.same(await read(), [], 'it is committed, but might be lost')
  // Who comes meanwhile sees it, and can be confirmed only after it.
  const next = Promise.all([write('b'), db.insertInto('subjects').values({ tenant: 't1', subject: 'c', epoch: 0, failures_in_row: 0, fenced: 0 }).execute()])
  await t.rejects(write('a'), { message: /UNIQUE/ })
  t.same([await read(), ended, syncs.length], [[], [], 1])
  syncs[0]?.end()
  await first
  t.same(await read(), ['a'])
  await synced(2)
  t.same([await read(), ended], [['a'], ['a']])
  syncs[1]?.end()
  await next
  t.same(await read(), ['a', 'b', 'c'])

  const lost = write('d')
  await synced(3)
  syncs[2]?.fail(new Error('EIO'))
  await t.rejects(lost, { message: 'EIO' })
  // What comes next would stand behind a hole: it is refused until the file itself has everything.
  whole.takesAll = false
  for (const name of ['e', 'f']) await t.rejects(write(name), { message: 'EIO' })
  whole.takesAll = true
  const after = write('e')
  await synced(4)
  syncs[3]?.end()
  await after
  await db.destroy()
})

t.test('the log is moved into the file beside what is written, and does not grow', async t => {
  const file = join(dataFolder(t), 'log.db')
  const database = await openDatabase(`sqlite:${file}`)
  await database.migrate()
  let written = 0
  const write = async (groups: number) => {
    for (const until = written + groups; written < until; written++) {
      await database.db.insertInto('subjects').values({ tenant: 't1', subject: `u${written}`, epoch: 0, failures_in_row: 0, fenced: 0 }).execute()
    }
  }
  const log = () => statSync(`${file}-wal`).size
  let still = 0
  for (let round = 0; still < 500 && round < 400; round++) {
    const before = log()
    await write(50)
    still = log() === before ? still + 50 : 0
  }
  t.ok(still >= 500, `500 writes in which it does not grow, after ${written} in all`)
  await database.close()
  const again = await openDatabase(`sqlite:${file}`)
  t.match(await again.db.selectFrom('subjects').select(eb => eb.fn.countAll().as('count')).executeTakeFirst(), { count: written })
  await again.close()
})

t.test('a log that cannot be moved, as on a full disk, ends neither writes nor the process', async t => {
  const turns = createTurns()
  let tried = 0
  const writer = {
    run: (sql: string) => {
      if (sql.includes('wal_checkpoint')) throw new Error('full')
      return { rows: [] }
    },
    close: () => {}
  }
  const reader = { run: () => ({ rows: [] }), close: () => {} }
  const disk = {
    sync: async () => {},
    checkpoint: async () => { tried++; throw new Error('full') },
    close: async () => {}
  }
  const commits = createCommits({ writer, reader, disk, turns })
  for (let i = 0; i < 600; i++) {
    const endTurn = await turns.take('write', 1_000)
    const group = await commits.enter(async () => {})
    commits.keep(group)
    endTurn()
    await group.done
  }
  await commits.close()
  t.ok(tried >= 4, `tried ${tried} times`)
})
