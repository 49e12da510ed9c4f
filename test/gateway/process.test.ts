// The gateway as it is run: a process with settings in its environment, probes, a drain, and little memory.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import t from 'tap'
import { gatewayProcess, startUpstream } from '../helpers/gateway.ts'
import { until } from '../helpers/redis-shapes.ts'

const KEY = `pk_t1_g1_${randomBytes(24).toString('base64url')}`

t.test('--help lists every setting; a start without settings names all that is missing and ends', async t => {
  const help = gatewayProcess(t, ['--help'], {})
  t.equal(await help.ended, 0)
  for (const name of ['UPSTREAM', 'SEAL_KEYS', 'GENERIC_WHO', 'RUSTDESK_SSO']) t.match(help.text(), `POSTERN_GATEWAY_${name}`)
  const bare = gatewayProcess(t, [], {})
  t.equal(await bare.ended, 1)
  t.match(bare.text(), /UPSTREAM is missing[^]*TENANT_KEY is missing/)
})

t.test('a gigabyte down and a gigabyte up leave the process small; SIGTERM ends it after the request under way', {
  timeout: 280_000
}, async t => {
  const block = randomBytes(1 << 20)
  const blocks = 1024
  const expected = createHash('sha256')
  for (let i = 0; i < blocks; i++) expected.update(block)
  const digest = expected.digest('hex')
  let finish = (): void => {}
  let waiting = (): void => {}
  const arrived = new Promise<void>(resolve => { waiting = resolve })
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/slow') {
      finish = () => { response.end('done') }
      return waiting()
    }
    if (request.method === 'POST') {
      const received = createHash('sha256')
      request.on('data', (part: Uint8Array) => { received.update(part) })
      request.on('end', () => { response.end(received.digest('hex')) })
      return
    }
    let sent = 0
    const more = (): void => {
      while (sent++ < blocks) if (!response.write(block)) { response.once('drain', more); return }
      response.end()
    }
    more()
  })
  const gateway = gatewayProcess(t, [], {
    POSTERN_GATEWAY_UPSTREAM: upstream.url,
    POSTERN_GATEWAY_SERVICE: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_TENANT_KEY: KEY,
    POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_PRESET: 'rustdesk',
    POSTERN_GATEWAY_PORT: '0',
    POSTERN_GATEWAY_OPERATIONS_PORT: '0',
    POSTERN_GATEWAY_DRAIN_SECONDS: '0'
  })
  const { url, operations } = await gateway.ready
  t.equal((await fetch(`${operations}/livez`)).status, 200)
  t.match(await (await fetch(`${operations}/readyz`)).json(), { status: 'ok', preset: 'rustdesk', mode: 'enforce' })
  const memory = (which: 'VmRSS' | 'VmHWM'): number => {
    const status = readFileSync(`/proc/${String(gateway.child.pid)}/status`, 'utf8')
    return Math.round(Number(new RegExp(`${which}:\\s+(\\d+)`).exec(status)?.[1]) * 1024 / 1e6)
  }
  const atRest = memory('VmRSS')
  const hash = createHash('sha256')
  const body = (await fetch(`${url}/image`)).body ?? []
  for await (const part of body as AsyncIterable<Uint8Array>) hash.update(part)
  t.equal(hash.digest('hex'), digest)
  const down = memory('VmHWM')
  const upload = Readable.toWeb(Readable.from(Array.from({ length: blocks }, () => block)))
  t.equal(await (await fetch(`${url}/image`, { method: 'POST', body: upload, duplex: 'half' })).text(), digest)
  const most = memory('VmHWM')
  t.ok(atRest > 0 && most < 150, `${atRest} MB at rest, at most ${down} MB after the download, ${most} MB after the upload`)
  t.comment(`${atRest} MB at rest, at most ${down} MB after the download, ${most} MB after the upload`)
  const under = fetch(`${url}/slow`)
  await arrived
  gateway.child.kill('SIGTERM')
  finish()
  t.equal(await (await under).text(), 'done')
  t.equal(await gateway.ended, 0)
})

t.test('C-21: SIGTERM ends each connection behind the answer that is under way, sent in half or not begun', async t => {
  let finish = (): void => {}
  let asked: (answer: () => void) => void = () => {}
  const question = new Promise<() => void>(resolve => { asked = resolve })
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/me') asked(() => { response.end('{}') })
    else if (request.url === '/other') response.end()
    else {
      response.write('half ')
      finish = () => { response.end('done') }
    }
  })
  const gateway = gatewayProcess(t, [], {
    POSTERN_GATEWAY_UPSTREAM: upstream.url,
    POSTERN_GATEWAY_SERVICE: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_TENANT_KEY: KEY,
    POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_PRESET: 'generic',
    POSTERN_GATEWAY_GENERIC_COOKIE: 'sid',
    POSTERN_GATEWAY_GENERIC_TOKEN_HEADER: 'authorization',
    POSTERN_GATEWAY_GENERIC_WHO: 'GET /me',
    POSTERN_GATEWAY_PORT: '0',
    POSTERN_GATEWAY_OPERATIONS_PORT: '0',
    POSTERN_GATEWAY_DRAIN_SECONDS: '0'
  })
  const { url } = await gateway.ready
  const half = await fetch(`${url}/events`)
  const refused = fetch(`${url}/page`, { headers: { authorization: 'Bearer nobody' } })
  const deny = await question
  gateway.child.kill('SIGTERM')
  await until('nobody else to be let in', async () => await fetch(`${url}/other`).then(() => false, () => true))
  deny()
  finish()
  t.equal((await refused).status, 401)
  t.equal(await half.text(), 'half done')
  // Its connections would be kept for a minute, and it for ten seconds.
  t.equal(await gateway.ended, 0)
})

t.test('C-38: nobody reads the log: requests and probes are answered all the same, and SIGTERM ends the process', async t => {
  const upstream = await startUpstream(t, (_request, response) => { response.end('{"id":"ann"}') })
  const gateway = gatewayProcess(t, [], {
    POSTERN_GATEWAY_UPSTREAM: upstream.url,
    POSTERN_GATEWAY_SERVICE: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_TENANT_KEY: KEY,
    POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_PRESET: 'generic',
    POSTERN_GATEWAY_GENERIC_COOKIE: 'sid',
    POSTERN_GATEWAY_GENERIC_WHO: 'GET /me',
    POSTERN_GATEWAY_GENERIC_SUBJECT: 'id',
    POSTERN_GATEWAY_PORT: '0',
    POSTERN_GATEWAY_OPERATIONS_PORT: '0',
    POSTERN_GATEWAY_DRAIN_SECONDS: '0',
    // A line for each request that would be refused.
    POSTERN_GATEWAY_MODE: 'observe'
  })
  const { url, operations } = await gateway.ready
  /** More lines than any pipe holds: a process that waited for its reader would stand still long before. */
  const flood = async (): Promise<number[]> => await Promise.all(Array.from({ length: 4 }, async () => {
    let answered = 0
    for (let index = 0; index < 1000; index++) {
      const { status } = await fetch(`${url}/page`, { headers: { cookie: 'sid=1' }, signal: AbortSignal.timeout(60_000) })
      if (status === 200) answered += 1
    }
    return answered
  }))
  const lines = (): number => gateway.text().split('would have refused').length - 1
  gateway.child.stdout.pause()
  t.same(await flood(), [1000, 1000, 1000, 1000])
  t.equal((await fetch(`${operations}/livez`)).status, 200)
  gateway.child.stdout.resume()
  await until('all lines', async () => lines() === 4000)

  gateway.child.stdout.pause()
  await flood()
  gateway.child.kill('SIGTERM')
  await until('the process to end', async () => {
    try { process.kill(gateway.child.pid ?? 0, 0) } catch { return true }
    return false
  })
  gateway.child.stdout.resume()
  t.equal(await gateway.ended, 0)
})
