// `postern-gateway doctor`: a line for each thing that the gateway needs, passed or failed, and what to do.

import t from 'tap'
import { gatewayProcess, served, startGateway, startUpstream } from '../helpers/gateway.ts'
import { startService, type Teardown } from '../helpers/service.ts'

async function setting (t: Teardown) {
  const service = await startService(t)
  const upstream = await startUpstream(t, (request, response) => {
    const user = /sid=known/.test(request.headers.cookie ?? '') ? { id: 'alice' } : undefined
    if (request.url === '/api/me') response.end(JSON.stringify({ user }))
    else if (request.url === '/api/anybody') response.end(JSON.stringify({ user: { id: 'guest' } }))
    else response.writeHead(request.url === '/' ? 200 : 404).end('console')
  })
  const settings = {
    POSTERN_GATEWAY_UPSTREAM: upstream.url,
    POSTERN_GATEWAY_SERVICE: await served(service),
    POSTERN_GATEWAY_TENANT_KEY: service.keys.gate.key,
    POSTERN_GATEWAY_PUBLIC_ORIGIN: 'http://127.0.0.1:1',
    POSTERN_GATEWAY_PRESET: 'generic',
    POSTERN_GATEWAY_GENERIC_COOKIE: 'sid',
    POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/me',
    POSTERN_GATEWAY_GENERIC_SUBJECT: 'user.id',
    POSTERN_GATEWAY_TIMEOUT_MS: '10000'
  }
  const doctor = async (more: Record<string, string> = {}, ...args: readonly string[]) => {
    const ran = gatewayProcess(t, ['doctor', ...args], { ...settings, ...more })
    const code = await ran.ended
    return { code, lines: ran.text().trim().split('\n') }
  }
  return { service, upstream, settings, doctor }
}

t.test('what is right passes, each on a line of its own, and the end is 0', async t => {
  const { doctor } = await setting(t)
  const { code, lines } = await doctor()
  t.same(lines.map(line => line.split(':')[0]), ['passed  configuration', 'passed  console', 'passed  who is logged in', 'passed  service', 'all passed'])
  t.equal(code, 0)
})

t.test('what is wrong fails with what to do, and the end is 1', async t => {
  const { doctor, service } = await setting(t)
  const cases: readonly (readonly [Record<string, string>, RegExp])[] = [
    [{ POSTERN_GATEWAY_PORT: 'x', POSTERN_GATEWAY_GENERIC_WHO: 'me' }, /^failed {2}configuration: [^]*PORT must be/],
    [{ POSTERN_GATEWAY_GENERIC_WHO: 'me' }, /^failed {2}configuration: [^]*GENERIC_WHO must be a call/],
    [{ POSTERN_GATEWAY_UPSTREAM: 'http://127.0.0.1:1' }, /failed {2}console: nothing answers at http:\/\/127\.0\.0\.1:1; start the console, or correct POSTERN_GATEWAY_UPSTREAM/],
    [{ POSTERN_GATEWAY_GENERIC_WHO: 'GET /nowhere' }, /failed {2}who is logged in: \/nowhere answers 404, so everybody would be nobody/],
    [{ POSTERN_GATEWAY_GENERIC_WHO: 'GET /api/anybody' }, /failed {2}who is logged in: the console takes an invented login for somebody's/],
    [{ POSTERN_GATEWAY_SERVICE: 'http://127.0.0.1:1' }, /failed {2}service: nothing answers at http:\/\/127\.0\.0\.1:1; start postern serve/],
    [{ POSTERN_GATEWAY_TENANT_KEY: `${service.keys.gate.key}x` }, /failed {2}service: the service does not know POSTERN_GATEWAY_TENANT_KEY/]
  ]
  for (const [more, said] of cases) {
    const { code, lines } = await doctor(more)
    t.match(lines.join('\n'), said)
    t.match(lines.at(-1), /^1 failed$/)
    t.equal(code, 1)
  }
  t.equal((await doctor({}, '--upstream')).code, 2, 'words that it does not know are refused')
})

t.test('told where the console might be reached, it shows that it is reached past the gateway', async t => {
  const { doctor, upstream, settings } = await setting(t)
  const past = await doctor({}, '--upstream-public', upstream.url)
  t.match(past.lines.join('\n'), /failed {2}console from outside: http:\/\/127\.0\.0\.1:\d+ answers past the gateway[^]*bind the console to loopback or a private network/)
  t.equal(past.code, 1)
  t.match((await doctor({}, '--upstream-public', 'http://127.0.0.1:1')).lines.join('\n'), /passed {2}console from outside: nothing answers/)
  const gateway = await startGateway(t, { upstream: upstream.url, service: settings.POSTERN_GATEWAY_SERVICE, key: settings.POSTERN_GATEWAY_TENANT_KEY, preset: 'generic', env: settings })
  const through = await doctor({}, '--upstream-public', gateway.url)
  t.match(through.lines.join('\n'), /passed {2}console from outside: the gateway answers/)
  t.equal(through.code, 0)
})
