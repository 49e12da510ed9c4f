// The gateway that the chart describes is the one there is: for each preset the real one starts with the environment of
// the rendered pod, and is found where probes, Ingress and route look for it.

import { randomBytes } from 'node:crypto'
import t from 'tap'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { gatewayProcess, startUpstream } from '../helpers/gateway.ts'
import { environmentOf, nameOf, noHelm, template, valuesFile, type Rendered } from '../helpers/helm.ts'
import { freePort } from '../helpers/redis.ts'

t.setTimeout(600_000)

const NAME = 'shop-postern-gateway'

/** What a preset needs beside the three settings that all need; one without a line needs nothing. */
const NEEDED: Readonly<Record<string, object>> = {
  generic: { generic_cookie: 'sid', generic_who: 'GET /api/me' },
  'forward-auth': { forward_auth_cookie: 'sid', forward_auth_who: 'GET /api/me', trusted_proxies: '127.0.0.1' }
}

interface Port { readonly name: string, readonly port: number, readonly targetPort: string }
interface Container {
  readonly ports: readonly { readonly name: string, readonly containerPort: number }[]
  readonly readinessProbe: { readonly httpGet: { readonly path: string, readonly port: string } }
  readonly livenessProbe: { readonly httpGet: { readonly path: string, readonly port: string } }
}

function specOf<T> ({ manifests }: Rendered, name: string): T {
  return manifests.find(one => nameOf(one) === name)?.['spec'] as T
}

/** Where traffic for the console's host ends up: path and port of the container, by Ingress and by route. */
function published (rendered: Rendered): readonly { readonly path: string, readonly port: number }[] {
  const { ports } = specOf<{ ports: readonly Port[] }>(rendered, `Service/${NAME}`)
  const behind = (service: string, port: (one: Port) => boolean): number => {
    const found = service === NAME ? ports.find(port) : undefined
    return containerOf(rendered).ports.find(({ name }) => name === found?.targetPort)?.containerPort ?? 0
  }
  interface Backend { readonly service: { readonly name: string, readonly port: { readonly name: string } } }
  const ingress = specOf<{ rules: readonly { http: { paths: readonly { path: string, backend: Backend }[] } }[] }>(rendered, `Ingress/${NAME}`)
  const route = specOf<{ rules: readonly { matches: readonly { path: { value: string } }[], backendRefs: readonly { name: string, port: number }[] }[] }>(rendered, `HTTPRoute/${NAME}`)
  return [
    ...ingress.rules.flatMap(({ http }) => http.paths).map(({ path, backend: { service } }) =>
      ({ path, port: behind(service.name, ({ name }) => name === service.port.name) })),
    ...route.rules.flatMap(({ matches, backendRefs }) => backendRefs.flatMap(({ name, port }) =>
      matches.map(({ path }) => ({ path: path.value, port: behind(name, one => one.port === port) }))))
  ]
}

function containerOf (rendered: Rendered): Container {
  return specOf<{ template: { spec: { containers: readonly [Container] } } }>(rendered, `Deployment/${NAME}`).template.spec.containers[0]
}

if (noHelm !== undefined) {
  t.comment(noHelm)
} else {
  t.test('the gateway of each preset starts with what the chart gives it, and is where the cluster looks for it', async t => {
    const console = await startUpstream(t, (_request, response) => { response.end('console') })
    const secrets: Readonly<Record<string, string>> = {
      'tenant-key': `pk_shop_g1_${randomBytes(32).toString('base64url')}`, 'seal-keys': `k1:${randomBytes(32).toString('base64')}`
    }
    const [publicOrigin, service] = ['https://console.example', 'http://127.0.0.1:1']
    for (const preset of PRESETS.keys()) {
      const [port, operations] = [await freePort(), await freePort()]
      const settings = {
        upstream: console.url,
        public_origin: publicOrigin,
        preset,
        service,
        // Loopback in place of every address; everything else is what the chart says.
        host: '127.0.0.1',
        operations_host: '127.0.0.1',
        port,
        operations_port: operations,
        drain_seconds: 0,
        ...NEEDED[preset]
      }
      const rendered = await template([valuesFile('gateway-ingress')], {
        gateway: { settings, httpRoute: { enabled: true, parentRefs: [{ name: 'public' }] } }
      })
      const env = environmentOf(rendered, NAME, (key, name) => {
        t.equal(name, 'postern-gateway')
        return secrets[key] ?? ''
      })
      const gateway = gatewayProcess(t, ['serve'], env)
      await gateway.ready

      const { ports, readinessProbe, livenessProbe } = containerOf(rendered)
      for (const { httpGet } of [readinessProbe, livenessProbe]) {
        const probed = ports.find(({ name }) => name === httpGet.port)?.containerPort
        t.equal(probed, operations)
        t.equal((await fetch(`http://127.0.0.1:${String(probed)}${httpGet.path}`)).status, 200, `${preset} ${httpGet.path}`)
      }
      const asked = preset === 'forward-auth'
      t.same(published(rendered), Array.from({ length: 2 }, () => ({ path: asked ? '/2fa' : '/', port })), preset)
      t.equal((await fetch(`http://127.0.0.1:${port}/2fa/own/style.css`)).status, 200, `${preset} has its pages there`)
      const headers = { 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/', 'x-forwarded-host': 'console.example' }
      const passed = await fetch(asked ? `http://127.0.0.1:${port}/forward-auth` : `http://127.0.0.1:${port}/`, { headers: asked ? headers : {} })
      t.equal(passed.status, asked ? 204 : 200, `${preset} lets somebody pass who is not logged in`)
      gateway.child.kill('SIGTERM')
      t.equal(await gateway.ended, 0, preset)
    }
    t.ok(console.paths().filter(path => path === 'GET /').length >= PRESETS.size - 1, 'the console was reached through all but the one that is only asked')
  })

  t.test('unless another is named, the gateway asks the release\'s own service, at a port that its Service has', async t => {
    const rendered = await template([valuesFile('gateway-ingress')])
    const { hostname, port } = new URL(environmentOf(rendered, NAME, () => 'x')['POSTERN_GATEWAY_SERVICE'] ?? '')
    const { ports } = specOf<{ ports: readonly Port[] }>(rendered, `Service/${hostname}`)
    t.equal(ports.find(one => one.port === Number(port))?.targetPort, 'http')
  })

  t.test('a setting that the gateway would refuse at start is refused before anything is installed', async t => {
    const values = (settings: object) => ({ gateway: { settings: { preset: 'rustdesk', ...settings } } })
    const ring = { 'tenant-key': `pk_shop_g1_${'A'.repeat(43)}`, 'seal-keys': `k1:${randomBytes(32).toString('base64')}` } as Readonly<Record<string, string>>
    for (const settings of [{ grace_secconds: 60 }, { generic_cookie: 'sid' }, { grace_seconds: 901 }, { preset: 'generic', generic_cookie: 'sid' }]) {
      await t.rejects(template([valuesFile('gateway-ingress')], values(settings)), /values don't meet the specifications/, JSON.stringify(settings))
      const env = environmentOf(await template([valuesFile('gateway-ingress')]), NAME, key => ring[key] ?? '')
      const given = Object.fromEntries(Object.entries(values(settings).gateway.settings).map(([name, value]) => [`POSTERN_GATEWAY_${name.toUpperCase()}`, String(value)]))
      const gateway = gatewayProcess(t, ['serve'], { ...env, ...given })
      t.equal(await gateway.ended, 1, gateway.text())
    }
  })
}
