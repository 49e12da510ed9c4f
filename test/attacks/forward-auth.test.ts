// Threat: nginx and Caddy route by their own reading of a path and forward the client's own; the gateway only hears of
// it. What counts is any reading of what reached the console behind the proxies of the examples.

import t from 'tap'
import { report } from '../helpers/attack.ts'
import { attack } from '../helpers/attack-suite.ts'
import { binding, bindingName, makeVerified } from '../helpers/console.ts'
import { startFakeService } from '../helpers/fake-service.ts'
import { startGateway } from '../helpers/gateway.ts'
import { FORWARD_AUTH, PROXIES, startCookieConsole, startProxy } from '../helpers/proxies.ts'
import { freePort } from '../helpers/redis.ts'

t.setTimeout(900_000)

for (const proxy of PROXIES) {
  t.test(`a console behind ${proxy} that asks the gateway`, { timeout: 900_000 }, async t => {
    const [fake, behind, port] = await Promise.all([startFakeService(t), startCookieConsole(t), freePort()])
    const gateway = await startGateway(t, {
      upstream: behind.url,
      service: fake.url,
      key: fake.tenantKey,
      preset: 'forward-auth',
      env: {
        ...FORWARD_AUTH,
        POSTERN_GATEWAY_FORWARD_AUTH_TOKEN_HEADER: 'X-Api-Key',
        POSTERN_GATEWAY_FORWARD_AUTH_TOKEN_PARAMETERS: 'token',
        POSTERN_GATEWAY_FORWARD_AUTH_WHO_SECONDS: '300',
        POSTERN_GATEWAY_PUBLIC_ORIGIN: `http://127.0.0.1:${port}`,
        POSTERN_GATEWAY_STEP_UP_PATTERNS: '/settings/* 600',
        POSTERN_GATEWAY_PUBLIC_PATTERNS: '/open',
      }
    })
    await startProxy(t, proxy, { port, gateway: gateway.url, behind: behind.url })
    const browser = binding('the attacker\'s own')
    for (const sid of ['vic.1', 'eve.1', 'ann.1']) behind.sessions.set(sid, sid.split('.')[0] ?? '')
    makeVerified(fake, 'eve.1', browser)
    makeVerified(fake, 'ann.1', browser, 1)
    const line = (sid: string): string => `Cookie: sid=${sid}; ${bindingName()}=${browser}`
    report(await attack(t, {
      name: `asked by ${proxy}`,
      base: '',
      port,
      log: behind.log,
      cookie: 'sid',
      unverified: line('vic.1'),
      verified: line('eve.1'),
      fresh: line('ann.1'),
      ids: { unverified: 'vic.1', verified: 'eve.1', fresh: 'ann.1', binding: `${bindingName()}=${browser}` },
      proxied: true,
      below: true,
      open: '/open',
      sockets: true,
      openToSockets: true,
      oneIn: 3
    }))
  })
}
