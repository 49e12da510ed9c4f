// A factor is one file and one line: this is the file, and `overrides.factors` is the line.

import { join } from 'node:path'
import { Kysely } from 'kysely'
import t from 'tap'
import type { Schema } from '../../service/src/adapters/schema.ts'
import { sqliteDialect } from '../../service/src/adapters/sqlite.ts'
import { FACTORS } from '../../service/src/domain/factors/index.ts'
import { sealContext, type Factor } from '../../service/src/domain/model.ts'
import { dataFolder } from '../helpers/processes.ts'
import { by, startService } from '../helpers/service.ts'

/** Four letters that somebody keeps on a card. */
const card: Factor = {
  name: 'card',
  strength: 'factor',
  budget: 'subject',
  accepts: /^[A-Z]{4}$/,
  normalise: typed => typed.trim().toUpperCase(),
  offered: state => state.authenticators.some(own => own.factor === 'card'),
  whileLocked: false,
  match: async (code, { own, slot, unseal }) => {
    const { tenant, subject } = slot.by
    const right = own.some(one => unseal(one.secret, sealContext('authenticator', tenant, subject, 'card', one.id)) === code)
    return right ? { use: 'challenge' } : undefined
  }
}

t.test('a new factor logs in, steps up, is throttled and recorded without another line of code', async t => {
  const database = `sqlite:${join(dataFolder(t), 'postern.db')}`
  const service = await startService(t, { database, overrides: { factors: [card, ...FACTORS] } })
  const db = new Kysely<Schema>({ dialect: sqliteDialect(database.slice('sqlite:'.length)) })
  t.teardown(async () => { await db.destroy() })
  const ann = by('ann')
  await db.insertInto('subjects').values({
    tenant: 't1',
    subject: 'ann',
    epoch: 1,
    failures_in_row: 0,
    locked_at: null,
    required_from: null,
    fenced: 0,
    enrolment_code_hash: null,
    enrolment_code_expires_at: null,
    contact: null,
    set_address: null,
    locale: null
  }).execute()
  await db.insertInto('authenticators').values({
    id: 'card-1',
    tenant: 't1',
    subject: 'ann',
    factor: 'card',
    counter: 0,
    confirmed_at: service.clock.now(),
    secret: service.app.sealer.seal('WXYZ', sealContext('authenticator', 't1', 'ann', 'card', 'card-1'))
  }).execute()

  t.match((await service.question(ann)).body, { status: 'verification_required' })
  const opened = await service.open(ann)
  t.same(opened.body.challenge.methods, ['card'])
  const id = opened.body.challenge.id
  t.match((await service.answer(ann, id, '123456')).body, { code: 'code_malformed' }, 'digits are no code of a card')
  t.match((await service.answer(ann, id, 'aaaa')).body, { code: 'code_rejected', attempts_left: 4 })
  t.match((await service.answer(ann, id, ' wxyz ')).body, { assurance: { factor: 'card' } })
  t.match((await service.question(ann)).body, { status: 'verified' })
  t.match((await service.verify(ann, 'step_up', 'WXYZ')).body, { assurance: { factor: 'card' } })
  t.match((await service.question(ann)).body, { step_up: { factor: 'card' } })

  const events = await db.selectFrom('events').select(['factor', 'outcome']).where('factor', '=', 'card').execute()
  t.ok(events.length >= 2, 'the audit log names it')

  const thief = by('ann', 'another session', 'another browser')
  let waiting = false
  for (let i = 0; i < 12 && !waiting; i++) {
    const { body } = await service.open(thief)
    const answered = await service.answer(thief, body.challenge?.id ?? id, 'AAAA')
    waiting = answered.status === 429
  }
  t.ok(waiting, 'and its wrong codes wait like any others')
})
