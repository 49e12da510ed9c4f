// A console behind the plugin, browsed all through a fault by a session that has passed and by one that never did.

import { browserName, sessionName } from '../../plugin/src/binding.ts'
import { binding, bindingName, startConsole } from './console.ts'
import { startRelay } from './relay.ts'
import { enrolled, STEP_MS, type Replicas } from './replicas.ts'
import { totpCode, type Teardown } from './service.ts'

/** What nobody may see without the second factor. */
const PROTECTED = [
  ['GET', '/protected'], ['POST', '/protected'], ['GET', '/items/7'], ['GET', '/settings'], ['POST', '/settings'], ['GET', '/export']
] as const

export async function startFaultConsole (t: Teardown, service: Replicas) {
  const portOf = (): number => Number(new URL(service.replicas[1 % service.replicas.length]?.url ?? '').port)
  // The console knows its service by one address, whichever process has it.
  const relay = await startRelay(t, portOf())
  const console = await startConsole(t, { service: { url: `http://127.0.0.1:${relay.port}`, tenantKey: service.gate } })
  const browser = (subject: string) => {
    const [sid, bound] = [`${subject}.at-the-console`, binding(subject)]
    return {
      by: { subject, session: sessionName('cookie', sid), browser: browserName(bound) },
      ask: async (method: string, path: string): Promise<Response> => await fetch(console.url + path, {
        method, redirect: 'manual', headers: { cookie: `sid=${sid}; ${bindingName()}=${bound}`, origin: console.publicOrigin }
      }),
      hits: () => console.hits.filter(({ headers }) => String(headers.cookie).includes(sid)).length
    }
  }
  const [resident, stranger] = [browser('resident'), browser('stranger')]
  const { key, step } = await enrolled(service, 'resident')
  await enrolled(service, 'stranger')
  const { body } = await service.open(resident.by)
  const passed = await service.answer(resident.by, body.challenge.id, totpCode(key, (step + 1) * STEP_MS))
  if (passed.status !== 200) throw new Error(`the resident: ${passed.status} ${JSON.stringify(passed.body)}`)

  return {
    /** Both browse: what the stranger saw that it must not, how often the other was turned away, what is no answer. */
    browse: async () => {
      relay.target = portOf()
      const odd: string[] = []
      let opened = 0
      const before = stranger.hits()
      for (const [method, path] of PROTECTED) {
        const { status, headers } = await stranger.ask(method, path)
        if (status < 300) opened += 1
        if (status >= 500 && (status !== 503 || Number(headers.get('retry-after')) <= 0)) odd.push(`${method} ${path}: ${status}`)
      }
      const { status } = await resident.ask('GET', '/protected')
      return { opened: Math.max(opened, stranger.hits() - before), turnedAway: status === 200 ? 0 : 1, odd }
    },
    /** The gate knows again who must pass first. */
    asks: async (): Promise<boolean> => (await stranger.ask('GET', '/protected')).status < 500
  }
}
