// The console of `gate` three times in one process: bare, bare again, and behind the gate. One process may find another
// layout of memory than the next, and differ from it by more than the gate; these share theirs. GET /cpu answers the
// microseconds of CPU that the process has used.

import { createConsole } from './console-app.ts'

const { SERVICE = '', KEY = '' } = process.env

const urls: string[] = []
for (const behind of [undefined, undefined, { service: SERVICE, tenantKey: KEY }]) {
  const app = await createConsole(behind)
  app.get('/cpu', { config: { postern: { public: true } } }, async () => {
    const { user, system } = process.cpuUsage()
    return user + system
  })
  urls.push(await app.listen({ port: 0, host: '127.0.0.1' }))
}
process.stdout.write(`listening ${urls.join(',')}\n`)
