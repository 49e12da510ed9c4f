// Too much at once: what waits is bounded, nobody's flood is everybody's wait, and what is shed is told when to come
// back.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { createLane } from '../service/src/adapters/lane.ts'
import { createSlowHashes } from '../service/src/adapters/slow-hashes.ts'
import { Problem } from '../service/src/domain/problems.ts'
import { until } from './helpers/redis-shapes.ts'
import { by, startService } from './helpers/service.ts'

const SALT = Buffer.alloc(16, 7).toString('base64url')

/** Asks for slow hashes; answers how each ended, in the order of their ends. */
function hashes () {
  const scrypt = createSlowHashes()
  const ended: { readonly subject: string, readonly how: 'hashed' | 'unavailable' }[] = []
  return {
    ended,
    ask: async (subject: string, code: string, tenant = 't1') => {
      try {
        const hash = await scrypt({ tenant, subject }, code, SALT)
        ended.push({ subject, how: 'hashed' })
        return hash
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'unavailable') throw error
        ended.push({ subject, how: 'unavailable' })
        return undefined
      }
    }
  }
}

t.test('C-36: one subject can neither fill the queue of slow hashes nor keep another waiting for its turn', async t => {
  const { ask, ended } = hashes()
  const flood = Array.from({ length: 200 }, async (_, index) => await ask('mallory', `code ${index}`))
  const owner = ask('alice', 'code')
  const namesake = ask('mallory', 'code', 't2')
  t.equal((await owner)?.length, 43)
  t.equal((await namesake)?.length, 43, 'the same name at another tenant is somebody else')
  const before = ended.filter(one => one.how === 'hashed').length
  t.ok(before <= 4, `after at most one of the flood for each turn: ${before}`)
  await Promise.all(flood)
  t.equal(ended.filter(({ how }) => how === 'unavailable').length, 191, 'eight of the flood wait, one is under way')
})

t.test('C-36: the queue of slow hashes ends for all subjects together, and is open again when it is empty', async t => {
  const { ask, ended } = hashes()
  await Promise.all(Array.from({ length: 100 }, async (_, index) => await ask(`subject ${index}`, 'code')))
  t.equal(ended.filter(({ how }) => how === 'hashed').length, 65)
  t.equal((await ask('alice', 'code'))?.length, 43)
})

t.test('C-36: one code that is submitted many times at once is hashed once, and alike for all', async t => {
  const { ask, ended } = hashes()
  const all = await Promise.all(Array.from({ length: 500 }, async () => await ask('alice', 'code')))
  t.equal(ended.filter(({ how }) => how === 'unavailable').length, 0)
  t.equal(new Set(all).size, 1)
  t.not(await ask('alice', 'another'), all[0])
})

t.test('C-36: a flood of one used backup code is answered, and somebody else\'s code is let in meanwhile', async t => {
  const s = await startService(t, { smtp: false })
  const mallory = by('mallory')
  const alice = by('alice')
  const { backupCodes: [used = ''] } = await s.enrol(mallory)
  const { backupCodes: [code = ''] } = await s.enrol(alice)
  t.equal((await s.verify(by('mallory', 'first'), 'login', used)).status, 200)
  const flood = Array.from({ length: 100 }, async (_, index) => await s.verify(by('mallory', `session ${index}`, `browser ${index}`), 'login', used))
  const owner = await s.verify(by('alice', 'another'), 'login', code)
  t.equal(owner.status, 200, owner.text)
  const answers = new Set((await Promise.all(flood)).map(({ body }) => body.code))
  t.same([...answers], ['code_used'])
})

t.test('C-36: codes that are rare wait in a lane of their own, one at a time, and it rests as long as it worked', async t => {
  const lane = createLane({ atOnce: 1, waiting: 10, ofOne: 8, rests: true })
  let running = 0
  let most = 0
  const began = performance.now()
  let worked = 0
  const work = async (): Promise<void> => {
    most = Math.max(most, ++running)
    const from = performance.now()
    await delay(20)
    worked += performance.now() - from
    running -= 1
  }
  const whose = (subject: string) => ({ tenant: 't1', subject })
  const all = await Promise.allSettled([
    ...Array.from({ length: 10 }, async () => { await lane(whose('mallory'), work) }),
    lane(whose('alice'), async () => 'hers'),
    lane(whose('bob'), async () => { throw new TypeError('his') })
  ])
  t.equal(most, 1)
  t.equal(all.filter(one => one.status === 'rejected' && one.reason instanceof Problem).length, 1, 'one under way, eight wait')
  t.match(all.slice(10), [{ value: 'hers' }, { reason: { message: 'his' } }], 'each gets what its own work gave')
  t.ok(performance.now() - began >= 1.8 * worked, 'half of the time is left to others')
})

t.test('C-35: while the event loop is late calls are shed with 503 and Retry-After; probes are not, nor is a slow start', async t => {
  const s = await startService(t, { smtp: false, env: { POSTERN_SHED_AFTER_MS: '50' } })
  const ann = by('ann')
  let busy = true
  const hold = (): void => {
    const end = performance.now() + 150
    while (performance.now() < end);
    if (busy) setImmediate(hold)
  }
  hold()
  t.teardown(() => { busy = false })
  await until('the loop to be found late', async () => s.app.api.isUnderPressure())
  t.equal((await s.question(ann)).status, 200, 'nothing is shed before the service listens')
  s.app.start()
  t.equal((await s.question(ann)).status, 200, 'nor by what was measured until then')
  const shed = await until('calls to be shed', async () => {
    const answer = await s.open(ann)
    return answer.status === 503 && answer
  })
  t.match(shed.body, { code: 'unavailable', retry_after: 2 })
  t.equal(shed.headers['retry-after'], '2')
  t.equal((await s.question(ann)).status, 503)
  for (const probe of ['/livez', '/readyz', '/metrics']) t.equal((await s.app.operations.inject(probe)).statusCode, 200, probe)
  busy = false
  await until('calls to be answered again', async () => (await s.question(ann)).status === 200)
})
