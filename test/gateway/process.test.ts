// The gateway as it is run: a process with settings in its environment, probes, a drain, and little memory.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { gatewayProcess, startUpstream } from '../helpers/gateway.ts'

const KEY = `pk_t1_g1_${randomBytes(24).toString('base64url')}`

t.test('--help lists every setting; a start without settings names all that is missing and ends', async t => {
  const help = gatewayProcess(t, ['--help'], {})
  t.equal(await help.ended, 0)
  for (const name of ['UPSTREAM', 'SEAL_KEYS', 'GENERIC_WHO', 'RUSTDESK_SSO']) t.match(help.text(), `POSTERN_GATEWAY_${name}`)
  const bare = gatewayProcess(t, [], {})
  t.equal(await bare.ended, 1)
  t.match(bare.text(), /UPSTREAM is missing[^]*TENANT_KEY is missing/)
})

t.test('a gigabyte through the process leaves it small; SIGTERM ends it after the request under way', {
  timeout: 280_000
}, async t => {
  const block = randomBytes(1 << 20)
  const blocks = 1024
  let finish = (): void => {}
  let waiting = (): void => {}
  const arrived = new Promise<void>(resolve => { waiting = resolve })
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url === '/slow') {
      finish = () => { response.end('done') }
      return waiting()
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
  const rss = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${String(gateway.child.pid)}/status`, 'utf8'))?.[1]) * 1024
  const before = rss()
  const hash = createHash('sha256')
  let most = 0
  let length = 0
  const body = (await fetch(`${url}/image`)).body ?? []
  for await (const part of body as AsyncIterable<Uint8Array>) {
    hash.update(part)
    length += part.length
    if (length % (1 << 24) < part.length) most = Math.max(most, rss())
  }
  const expected = createHash('sha256')
  for (let i = 0; i < blocks; i++) expected.update(block)
  t.equal(hash.digest('hex'), expected.digest('hex'))
  t.ok(most > 0 && most < 150_000_000, `${Math.round(before / 1e6)} MB at rest, ${Math.round(most / 1e6)} MB at most`)
  t.comment(`${Math.round(before / 1e6)} MB at rest, ${Math.round(most / 1e6)} MB at most`)
  const under = fetch(`${url}/slow`)
  await arrived
  gateway.child.kill('SIGTERM')
  finish()
  t.equal(await (await under).text(), 'done')
  t.equal(await gateway.ended, 0)
})
