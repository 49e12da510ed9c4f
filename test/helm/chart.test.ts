// The chart under real Helm: every values file lints, renders and conforms; what cannot work is refused in a sentence;
// nothing secret stands outside a Secret.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SETTINGS as GATEWAY_SETTINGS } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { readConfig, SETTINGS } from '../../service/src/config.ts'
import { CHART, conform, leaves, lint, nameOf, noHelm, notes, refusal, template, valuesFile, type Manifest, type Rendered } from '../helpers/helm.ts'

t.setTimeout(900_000)

const FILES = readdirSync(new URL('values', import.meta.url)).map(name => name.replace('.yaml', '')).sort()

const byName = ({ manifests }: Rendered): ReadonlyMap<string, Manifest> =>
  new Map(manifests.map(one => [nameOf(one), one]))

interface PodSpec {
  readonly containers: readonly {
    readonly name: string
    readonly securityContext: unknown
    readonly readinessProbe?: unknown
    readonly resources?: { readonly limits?: unknown }
    readonly env?: readonly {
      readonly name: string
      readonly value?: string
      readonly valueFrom?: { readonly secretKeyRef?: unknown }
    }[]
  }[]
  readonly securityContext: unknown
  readonly automountServiceAccountToken: boolean
}

function podsOf ({ manifests }: Rendered): readonly { readonly of: string, readonly spec: PodSpec }[] {
  return manifests.flatMap(one => {
    const spec = one['spec'] as { readonly template?: { readonly spec: PodSpec } } & PodSpec | undefined
    if (one.kind === 'Pod' && spec !== undefined) return [{ of: nameOf(one), spec }]
    return spec?.template === undefined ? [] : [{ of: nameOf(one), spec: spec.template.spec }]
  })
}

t.test('every setting of the service is a value of the chart, or a secret that the chart takes from a Secret', async t => {
  const { properties } = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')) as
    { properties: { settings: { properties: object }, secrets: { properties: { keys: { properties: object } } } } }
  const taken = Object.keys(properties.secrets.properties.keys.properties)
    .map(name => name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`))
  for (const name of Object.keys(SETTINGS)) {
    t.not(Object.hasOwn(properties.settings.properties, name), taken.includes(name), name)
  }
})

if (noHelm !== undefined) {
  t.comment(noHelm)
} else {
  const rendered = new Map<string, Rendered>()

  t.test('at least eight values files lint, render and conform to the schemas of Kubernetes, unknown fields being mistakes', async t => {
    t.ok(FILES.length >= 8, String(FILES.length))
    for (const file of FILES) {
      const linted = await lint([valuesFile(file)])
      t.ok(linted.ok, `${file} lints${linted.ok ? '' : `: ${linted.out}`}`)
      const one = await template([valuesFile(file)])
      rendered.set(file, one)
      t.ok(one.manifests.length >= 5, file)
      const wrong = await conform(one.text)
      if (wrong === undefined) t.comment('kubeconform and its schemas cannot be had without Go')
      else t.same(wrong, [], `${file} conforms`)
    }
  })

  t.test('the check of manifests finds what it is there for', async t => {
    const { text } = rendered.get('production') ?? { text: '' }
    for (const [from, to] of [
      ['readOnlyRootFilesystem: true', 'readOnlyRootFileSystem: true'], ['replicas: 2', 'replicas: two'],
      ['kind: NetworkPolicy', 'kind: NetworkPolice']
    ] as const) {
      t.ok(text.includes(from))
      const wrong = await conform(text.replace(from, to))
      if (wrong !== undefined) t.equal(wrong.length, 1, to)
    }
  })

  t.test('what cannot work is refused in a sentence that says what to do', async t => {
    for (const [file, values, sentence] of [
      ['sqlite', { replicas: 2 }, /More than one replica needs PostgreSQL and Redis.*Set replicas to 1/],
      ['sqlite', { autoscaling: { enabled: true } }, /More than one replica needs PostgreSQL and Redis/],
      ['without-redis', { replicas: 3 }, /More than one replica needs PostgreSQL and Redis/],
      ['production', { stores: { redis: false } }, /More than one replica needs PostgreSQL and Redis/],
      ['production', { tenants: [] }, /tenants is empty.*postern tenants key/],
      ['production', { secrets: { existingSecret: '' } }, /name a Secret in secrets.existingSecret/],
      ['production', { secrets: { generate: true } }, /secrets.generate makes keys only/],
      ['sqlite', { secrets: { generate: true } }, /Only one of/],
      ['external-secrets', { secrets: { external: { entry: '' } } }, /needs storeRef.name and entry/],
      ['gateway-route', { gateway: { secret: { existingSecret: '' } } }, /name a Secret in gateway.secret.existingSecret/],
      ['gateway-route', { gateway: { settings: { upstream: '' } } }, /gateway.settings.upstream is missing/],
      ['gateway-ingress', { gateway: { ingress: { hosts: [] } } }, /gateway.ingress.hosts is empty/],
      ['gateway-route', { gateway: { httpRoute: { parentRefs: [] } } }, /gateway.httpRoute.parentRefs is empty/]
    ] as const) t.match(await refusal([valuesFile(file)], values), sentence, `${file} ${JSON.stringify(values)}`)
  })

  t.test('values are held against the own settings, limits and words of service and gateway', async t => {
    const gateway = (settings: object) => ({ gateway: { settings } })
    for (const [values, where] of [
      [{ settings: { log_level: 'loud' } }, 'log_level'],
      [{ settings: { drain_seconds: 61 } }, 'drain_seconds'],
      [{ settings: { drain_secconds: 6 } }, 'drain_secconds'],
      [{ replica: 2 }, 'replica'],
      ...Object.entries(SETTINGS).filter(([, { type }]) => type === 'secret').map(([name]) => [{ settings: { [name]: 'secret' } }, name] as const),
      [{ tenants: [{ id: 'shop', name: 'Shop', keys: [] }] }, 'keys'],
      [{ tenants: [{ id: 'Shop', name: 'Shop', keys: [{ id: 'g', scope: 'gate', sha256: '0'.repeat(64) }] }] }, 'id'],
      [{ tenants: [{ id: 'shop', name: 'Shop', keys: [{ id: 'g', scope: 'gate', sha256: 'pk_shop_g_x' }] }] }, 'sha256'],
      [{ tenants: [{ id: 'shop', name: 'Shop', limits: { login_days: 181 }, keys: [{ id: 'g', scope: 'gate', sha256: '0'.repeat(64) }] }] }, 'login_days'],
      [gateway({ tenant_key: 'pk_shop_g1_x' }), 'tenant_key'],
      [gateway({ seal_keys: 'k1:x' }), 'seal_keys'],
      [gateway({ upstreem: 'http://console' }), 'upstreem'],
      [gateway({ grace_seconds: 901 }), 'grace_seconds'],
      [gateway({ insecure_cookies: 'yes' }), 'insecure_cookies'],
      [gateway({ preset: 'rustdeks' }), 'preset'],
      [gateway({ preset: 'generic' }), 'generic_who'],
      [gateway({ preset: 'rustdesk', generic_cookie: 'sid' }), 'generic_cookie']
    ] as const) {
      const said = await refusal([valuesFile('production')], values)
      t.match(said, /values don't meet the specifications/, JSON.stringify(values))
      t.match(said, where)
      t.notOk((await lint([valuesFile('production')], values)).ok, `helm lint refuses ${where}`)
    }
  })

  t.test('no secret value stands outside a Secret, and none is given as a value at all', async t => {
    const secrets = (start: string, settings: Readonly<Record<string, { readonly type: string }>>): readonly string[] =>
      Object.entries(settings).filter(([, { type }]) => type === 'secret').map(([name]) => `${start}${name.toUpperCase()}`)
    const gateway = [GATEWAY_SETTINGS, ...[...PRESETS.values()].map(preset => preset.settings)]
    const kept = [...secrets('POSTERN_', SETTINGS), ...gateway.flatMap(settings => secrets('POSTERN_GATEWAY_', settings))]
    t.ok(['POSTERN_SMTP', 'POSTERN_GATEWAY_TENANT_KEY', 'POSTERN_GATEWAY_SEAL_KEYS'].every(name => kept.includes(name)))
    for (const [file, one] of rendered) {
      for (const manifest of one.manifests) {
        if (manifest.kind === 'Secret') continue
        for (const [path, value] of leaves(manifest)) {
          t.notOk(kept.some(name => path.endsWith(`/${name}`)), `${file} ${nameOf(manifest)}${path}`)
          const text = String(value)
          t.notMatch(text, /pk_[a-z0-9-]+_[a-z0-9-]+_|postgres(ql)?:\/\/|rediss?:\/\/|smtps?:\/\/|[a-z0-9-]{1,16}:[A-Za-z0-9+/]{43}=/, `${file} ${path}`)
        }
      }
      for (const { of, spec } of podsOf(one)) {
        for (const { env = [] } of spec.containers) {
          for (const { name, value, valueFrom } of env) {
            if (kept.includes(name) && value !== 'sqlite:/data/postern.db') t.ok(valueFrom?.secretKeyRef, `${file} ${of} ${name} comes from a Secret`)
          }
        }
      }
    }
    t.same([...rendered].filter(([, { manifests }]) => manifests.some(({ kind }) => kind === 'Secret')).map(([file]) => file), ['quickstart'])
  })

  t.test('generated keys are what the service takes, and outlive the release', async t => {
    const secret = byName(rendered.get('quickstart') ?? { text: '', manifests: [] }).get('Secret/shop-postern')
    const data = secret?.['data'] as Record<string, string>
    const open = (name: string): string => Buffer.from(data[name] ?? '', 'base64').toString()
    t.equal(secret?.metadata.annotations?.['helm.sh/resource-policy'], 'keep')
    const config = byName(rendered.get('quickstart') ?? { text: '', manifests: [] }).get('ConfigMap/shop-postern')?.['data'] as Record<string, string>
    const read = readConfig({
      ...config, POSTERN_DATABASE: 'sqlite:/data/postern.db', POSTERN_ENCRYPTION_KEYS: open('encryption-keys'), POSTERN_SERVER_KEY: open('server-key')
    })
    t.equal(read.tenants[0]?.id, 'shop')
    t.equal(read.migrateOnStart, true)
  })

  t.test('the service reads every ConfigMap that the chart makes', async t => {
    const key = (start: string): string => `${start}:${Buffer.from(Array.from({ length: 32 }, (_, i) => i)).toString('base64')}`
    for (const [file, one] of rendered) {
      const data = byName(one).get(file === 'gateway-route' ? 'ConfigMap/second-door' : 'ConfigMap/shop-postern')?.['data'] as Record<string, string>
      const { POSTERN_SMTP_CA: _, ...settings } = data
      const read = readConfig({ ...settings, POSTERN_ENCRYPTION_KEYS: key('k1'), POSTERN_SERVER_KEY: key('s1') })
      t.ok(read.tenants.length > 0, file)
      if (file === 'everything') t.match(read, { drainSeconds: 20, logLevel: 'debug', eventRetentionDays: 1000, mailFrom: { name: 'Shop' } })
    }
  })

  t.test('every pod meets the restricted Pod Security Standard', async t => {
    for (const [file, one] of rendered) {
      const pods = podsOf(one)
      t.ok(pods.length >= 2, file)
      for (const { of, spec } of pods) {
        t.match(spec.securityContext, { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } }, `${file} ${of}`)
        t.equal(spec.automountServiceAccountToken, false, `${file} ${of}`)
        for (const { securityContext, resources } of spec.containers) {
          t.same(securityContext, { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } }, `${file} ${of}`)
          t.ok(resources?.limits, `${file} ${of} has a limit`)
        }
        t.notMatch(JSON.stringify(spec), /hostPath|hostNetwork|hostPID|privileged/, `${file} ${of}`)
      }
    }
  })

  t.test('only consoles, the gateway and monitoring come in, each to its port', async t => {
    const { spec } = byName(rendered.get('everything') ?? { text: '', manifests: [] }).get('NetworkPolicy/shop-postern') as unknown as
      { spec: { policyTypes: string[], ingress: { ports: { port: string }[], from: unknown[] }[] } }
    t.same(spec.policyTypes, ['Ingress', 'Egress'])
    t.same(spec.ingress.map(({ ports }) => ports.map(({ port }) => port)), [['http'], ['operations']])
    t.ok(spec.ingress.every(({ from }) => from.length > 0), 'an empty list would mean everybody')
    const { spec: closed } = byName(rendered.get('production') ?? { text: '', manifests: [] }).get('NetworkPolicy/shop-postern') as unknown as
      { spec: { ingress: { from: unknown[] }[] } }
    t.ok(closed.ingress.every(({ from }) => from.length === 1), 'nobody but the test of the release before somebody is named')
  })

  t.test('the notes say what to do next, and the README names every value with its default', async t => {
    const production = await notes([valuesFile('production')])
    for (const line of ['exec deployment/shop-postern -- postern doctor', 'helm -n postern test shop', 'http://shop-postern.postern:7070', 'pk_shop_']) {
      t.match(production, line)
    }
    t.match(production, 'NOBODY CAN REACH IT YET')
    t.notMatch(await notes([valuesFile('everything')]), /NOBODY CAN REACH IT|Mail is not configured/)
    t.match(await notes([valuesFile('quickstart')]), /KEEP THE KEYS/)
    t.match(await notes([valuesFile('gateway-ingress')]), 'in front of http://console.shop:21114')
    const readme = readFileSync(join(CHART, 'README.md'), 'utf8')
    for (const name of ['replicas', 'stores.redis', 'secrets.existingSecret', 'networkPolicy.consoles', 'gateway.httpRoute.enabled']) {
      t.match(readme, `| \`${name}\` |`)
    }
    t.match(readme, '| `gateway.replicas` | `2` |')
  })
}
