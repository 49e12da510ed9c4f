// One value changed makes its difference in the manifests and no other, for every value that the chart has.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { chartValues } from '../../scripts/chart.ts'
import { CHART, leaves, nameOf, noHelm, template, valuesFile, type Rendered } from '../helpers/helm.ts'

t.setTimeout(900_000)

/** What two renderings differ in: `+`, `-` or `~` and the path of each leaf below its manifest. */
function differences (before: Rendered, after: Rendered): readonly string[] {
  const flat = (rendered: Rendered): ReadonlyMap<string, string> =>
    new Map(rendered.manifests.flatMap(one =>
      leaves(one).map(([path, value]) => [nameOf(one) + path, JSON.stringify(value)] as const)))
  const [old, now] = [flat(before), flat(after)]
  return [...new Set([...old.keys(), ...now.keys()])].filter(path => old.get(path) !== now.get(path)).sort()
    .map(path => !old.has(path) ? `+ ${path} = ${now.get(path)}` : !now.has(path) ? `- ${path}` : `~ ${path} = ${now.get(path)}`)
}

const SERVICE = 'Deployment/shop-postern/spec'
const POD = `${SERVICE}/template/spec`
const CONTAINER = `${POD}/containers/0`
const CHECKSUM = /^~ Deployment\/shop-postern\/spec\/template\/metadata\/annotations\/checksum\/config = /
const JOB = 'Job/shop-postern-migrate/spec'
const MIGRATE = `${JOB}/template/spec/containers/0`
const GATEWAY = 'Deployment/shop-postern-gateway/spec'
const GATEWAY_CHECKSUM = /^~ Deployment\/shop-postern-gateway\/spec\/template\/metadata\/annotations\/checksum\/config = /
const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`

type Expected = readonly (string | RegExp)[]

/** The same for each pod that the chart of this values file makes. */
const everyPod = (sign: string, what: string): Expected => [
  `${sign} ${POD}/${what}`, `${sign} ${JOB}/template/spec/${what}`, `${sign} Pod/shop-postern-test/spec/${what}`
]
const image = (name: string): Expected => [
  `~ ${CONTAINER}/image = "${name}"`, `~ ${MIGRATE}/image = "${name}"`, `~ Pod/shop-postern-test/spec/containers/0/image = "${name}"`
]
/** The key of the Secret that one variable is read from. */
const secretKey = (value: string): Expected => [
  new RegExp(`^~ Deployment/shop-postern/.*/env/\\d/valueFrom/secretKeyRef/key = "${value}"$`),
  new RegExp(`^~ Job/shop-postern-migrate/.*/env/\\d/valueFrom/secretKeyRef/key = "${value}"$`)
]
const setting = (name: string, value: string): Expected => [
  `+ ConfigMap/shop-postern-migrate/data/${name} = "${value}"`, `+ ConfigMap/shop-postern/data/${name} = "${value}"`, CHECKSUM
]

/** The values file that is changed, what is changed in it, and what follows. */
const CASES: readonly (readonly [string, object, Expected])[] = [
  ['production', { image: { repository: 'registry.example/p' } }, image('registry.example/p:0.1.0')],
  ['production', { image: { tag: '9.9.9' } }, image('postern:9.9.9')],
  ['production', { image: { digest: DIGEST } }, image(`postern@${DIGEST}`)],
  ['production', { image: { pullPolicy: 'Always' } }, [
    `~ ${CONTAINER}/imagePullPolicy = "Always"`, `~ ${MIGRATE}/imagePullPolicy = "Always"`, '~ Pod/shop-postern-test/spec/containers/0/imagePullPolicy = "Always"'
  ]],
  ['production', { imagePullSecrets: [{ name: 'pull' }] }, everyPod('+', 'imagePullSecrets/0/name = "pull"')],
  ['production', { nameOverride: 'twofa' }, [/^[+-] \w+\/shop-(postern|twofa)(-migrate|-test)?\//]],
  ['production', { fullnameOverride: 'twofa' }, [/^[+-] \w+\/(shop-postern|twofa)(-migrate|-test)?\//]],
  ['production', { replicas: 5 }, [`~ ${SERVICE}/replicas = 5`]],
  ['production', { replicas: 1, stores: { database: 'sqlite' } }, [
    /^- (ConfigMap|Job)\/shop-postern-migrate\//, /^\+ PersistentVolumeClaim\/shop-postern-data\//, /^- PodDisruptionBudget\/shop-postern\//,
    `~ ${SERVICE}/replicas = 1`, `~ ${SERVICE}/strategy/type = "Recreate"`, /^- Deployment\/shop-postern\/spec\/strategy\/rollingUpdate\//,
    '~ ConfigMap/shop-postern/data/POSTERN_MIGRATE_ON_START = "true"', CHECKSUM,
    `+ ${CONTAINER}/env/2/value = "sqlite:/data/postern.db"`, new RegExp(`^- ${CONTAINER}/env/2/valueFrom/`),
    new RegExp(`^\\+ ${CONTAINER}/volumeMounts/0/`), `+ ${POD}/volumes/0/name = "data"`, `+ ${POD}/volumes/0/persistentVolumeClaim/claimName = "shop-postern-data"`
  ]],
  ['production', { replicas: 1, stores: { redis: false } }, [
    new RegExp(`^- ${CONTAINER}/env/3/`), new RegExp(`^- ${MIGRATE}/env/3/`), /^- PodDisruptionBudget\/shop-postern\//,
    `~ ${SERVICE}/replicas = 1`, `~ ${SERVICE}/strategy/type = "Recreate"`, /^- Deployment\/shop-postern\/spec\/strategy\/rollingUpdate\//
  ]],
  ['production', { tenants: [{ id: 'desk', name: 'Desk', keys: [{ id: 'g1', scope: 'gate', sha256: '0'.repeat(64) }] }] }, [
    /^~ ConfigMap\/shop-postern\/data\/POSTERN_TENANTS = .*desk/, /^~ ConfigMap\/shop-postern-migrate\/data\/POSTERN_TENANTS = .*desk/, CHECKSUM
  ]],
  ['production', { settings: { drain_seconds: 30 } }, [...setting('POSTERN_DRAIN_SECONDS', '30'), `~ ${POD}/terminationGracePeriodSeconds = 48`]],
  ['production', { settings: { port: 7575 } }, [...setting('POSTERN_PORT', '7575'), `~ ${CONTAINER}/ports/0/containerPort = 7575`]],
  ['production', { settings: { operations_port: 7576 } }, [...setting('POSTERN_OPERATIONS_PORT', '7576'), `~ ${CONTAINER}/ports/1/containerPort = 7576`]],
  ['production', { settings: { event_retention_days: 3000 } }, setting('POSTERN_EVENT_RETENTION_DAYS', '3000')],
  ['production', { secrets: { existingSecret: 'others' } }, [/^~ (Deployment|Job)\/.*\/env\/\d\/valueFrom\/secretKeyRef\/name = "others"$/]],
  ['production', { secrets: { smtp: true } }, [/^\+ Deployment\/shop-postern\/.*\/env\/4\//, /^\+ Job\/shop-postern-migrate\/.*\/env\/4\//]],
  ['production', { secrets: { redisSentinelPassword: true } }, [/^\+ Deployment\/shop-postern\/.*\/env\/4\//, /^\+ Job\/shop-postern-migrate\/.*\/env\/4\//]],
  ['production', { secrets: { keys: { encryptionKeys: 'RING' } } }, secretKey('RING')],
  ['production', { secrets: { keys: { serverKey: 'SERVER' } } }, secretKey('SERVER')],
  ['production', { secrets: { keys: { database: 'DATABASE_URL' } } }, secretKey('DATABASE_URL')],
  ['production', { secrets: { keys: { redis: 'REDIS_URL' } } }, secretKey('REDIS_URL')],
  ['everything', { secrets: { keys: { smtp: 'MAIL_URL' } } }, secretKey('MAIL_URL')],
  ['production', { secrets: { existingSecret: '', external: { enabled: true, storeRef: { name: 'vault' }, entry: 'apps/p' } } }, [
    /^\+ ExternalSecret\/shop-postern\//, /^~ (Deployment|Job)\/.*\/env\/\d\/valueFrom\/secretKeyRef\/name = "shop-postern"$/
  ]],
  ['external-secrets', { secrets: { external: { storeRef: { name: 'other' } } } }, ['~ ExternalSecret/shop-postern/spec/secretStoreRef/name = "other"']],
  ['external-secrets', { secrets: { external: { storeRef: { kind: 'SecretStore' } } } }, ['~ ExternalSecret/shop-postern/spec/secretStoreRef/kind = "SecretStore"']],
  ['external-secrets', { secrets: { external: { entry: 'other' } } }, [/^~ ExternalSecret\/shop-postern\/spec\/data\/\d\/remoteRef\/key = "other"$/]],
  ['external-secrets', { secrets: { external: { refreshInterval: '5m' } } }, ['~ ExternalSecret/shop-postern/spec/refreshInterval = "5m"']],
  ['external-secrets', { secrets: { redisSentinelPassword: true } }, [
    /^[+~] (Deployment|Job)\/.*\/env\/[45]\//, /^[+~] ExternalSecret\/shop-postern\/spec\/data\/[45]\//
  ]],
  ['external-secrets', { secrets: { redisSentinelPassword: true, keys: { redisSentinelPassword: 'SENTINELS' } } }, [
    /^[+~] (Deployment|Job)\/.*\/env\/[45]\//, /^[+~] ExternalSecret\/shop-postern\/spec\/data\/[45]\//, /= "SENTINELS"$/
  ]],
  ['sqlite', { secrets: { existingSecret: '', generate: true } }, [
    /^\+ Secret\/shop-postern\//, /^~ Deployment\/shop-postern\/.*\/secretKeyRef\/name = "shop-postern"$/
  ]],
  ['sqlite', { persistence: { size: '9Gi' } }, ['~ PersistentVolumeClaim/shop-postern-data/spec/resources/requests/storage = "9Gi"']],
  ['sqlite', { persistence: { storageClass: '' } }, ['- PersistentVolumeClaim/shop-postern-data/spec/storageClassName']],
  ['sqlite', { persistence: { existingClaim: 'mine' } }, [
    /^- PersistentVolumeClaim\/shop-postern-data\//, `~ ${POD}/volumes/0/persistentVolumeClaim/claimName = "mine"`
  ]],
  ['production', { migration: { enabled: false } }, [
    /^- (Job|ConfigMap)\/shop-postern-migrate\//, '~ ConfigMap/shop-postern/data/POSTERN_MIGRATE_ON_START = "true"', CHECKSUM
  ]],
  ['production', { migration: { backoffLimit: 9 } }, [`~ ${JOB}/backoffLimit = 9`]],
  ['production', { migration: { activeDeadlineSeconds: 9 } }, [`~ ${JOB}/activeDeadlineSeconds = 9`]],
  ['production', { resources: { requests: { cpu: '2' } } }, [`~ ${CONTAINER}/resources/requests/cpu = "2"`, `~ ${MIGRATE}/resources/requests/cpu = "2"`]],
  ['production', { resources: { limits: { memory: '1Gi' } } }, [`~ ${CONTAINER}/resources/limits/memory = "1Gi"`, `~ ${MIGRATE}/resources/limits/memory = "1Gi"`]],
  ['production', { preStopSeconds: 0 }, [
    `- ${CONTAINER}/lifecycle/preStop/exec/command/0`, `- ${CONTAINER}/lifecycle/preStop/exec/command/1`,
    `~ ${POD}/terminationGracePeriodSeconds = 20`
  ]],
  ['production', { autoscaling: { enabled: true } }, [`- ${SERVICE}/replicas`, /^\+ HorizontalPodAutoscaler\/shop-postern\//]],
  ['autoscaled', { autoscaling: { minReplicas: 4 } }, ['~ HorizontalPodAutoscaler/shop-postern/spec/minReplicas = 4']],
  ['autoscaled', { autoscaling: { maxReplicas: 20 } }, ['~ HorizontalPodAutoscaler/shop-postern/spec/maxReplicas = 20']],
  ['autoscaled', { autoscaling: { targetCPU: 50 } }, ['~ HorizontalPodAutoscaler/shop-postern/spec/metrics/0/resource/target/averageUtilization = 50']],
  ['production', { podDisruptionBudget: { enabled: false } }, [/^- PodDisruptionBudget\/shop-postern\//]],
  ['production', { podDisruptionBudget: { maxUnavailable: '50%' } }, ['~ PodDisruptionBudget/shop-postern/spec/maxUnavailable = "50%"']],
  ['production', { topologySpread: { enabled: false } }, [/^- Deployment\/shop-postern\/spec\/template\/spec\/topologySpreadConstraints\//]],
  ['production', { topologySpread: { whenUnsatisfiable: 'DoNotSchedule' } }, [/^~ .*\/topologySpreadConstraints\/[01]\/whenUnsatisfiable = "DoNotSchedule"$/]],
  ['production', { service: { type: 'LoadBalancer' } }, ['~ Service/shop-postern/spec/type = "LoadBalancer"']],
  ['production', { service: { annotations: { team: 'x' } } }, ['+ Service/shop-postern/metadata/annotations/team = "x"']],
  ['production', { networkPolicy: { enabled: false } }, [/^- NetworkPolicy\/shop-postern\//]],
  ['production', { networkPolicy: { consoles: [{ podSelector: {} }] } }, ['+ NetworkPolicy/shop-postern/spec/ingress/0/from/1/podSelector = {}']],
  ['production', { networkPolicy: { monitoring: [{ podSelector: {} }] } }, ['+ NetworkPolicy/shop-postern/spec/ingress/1/from/1/podSelector = {}']],
  ['production', { networkPolicy: { egress: [{ to: [{ podSelector: {} }] }] } }, [
    '+ NetworkPolicy/shop-postern/spec/policyTypes/1 = "Egress"', /^\+ NetworkPolicy\/shop-postern\/spec\/egress\/0\/ports\//,
    '+ NetworkPolicy/shop-postern/spec/egress/1/to/0/podSelector = {}'
  ]],
  ['production', { serviceMonitor: { enabled: true } }, [/^\+ ServiceMonitor\/shop-postern\//]],
  ['everything', { serviceMonitor: { interval: '1m' } }, ['~ ServiceMonitor/shop-postern/spec/endpoints/0/interval = "1m"']],
  ['everything', { serviceMonitor: { labels: { team: 'x' } } }, ['+ ServiceMonitor/shop-postern/metadata/labels/team = "x"']],
  ['production', { serviceAccount: { create: false } }, [
    /^- ServiceAccount\/shop-postern\//, `~ ${POD}/serviceAccountName = "default"`
  ]],
  ['production', { serviceAccount: { name: 'mine' } }, [/^[+-] ServiceAccount\/(shop-postern|mine)\//, `~ ${POD}/serviceAccountName = "mine"`]],
  ['production', { serviceAccount: { annotations: { team: 'x' } } }, ['+ ServiceAccount/shop-postern/metadata/annotations/team = "x"']],
  ['production', { podAnnotations: { team: 'x' } }, [`+ ${SERVICE}/template/metadata/annotations/team = "x"`]],
  ['production', { podLabels: { team: 'x' } }, [`+ ${SERVICE}/template/metadata/labels/team = "x"`]],
  ['production', { nodeSelector: { disk: 'ssd' } }, everyPod('+', 'nodeSelector/disk = "ssd"')],
  ['production', { tolerations: [{ operator: 'Exists' }] }, everyPod('+', 'tolerations/0/operator = "Exists"')],
  ['production', { affinity: { podAffinity: {} } }, everyPod('+', 'affinity/podAffinity = {}')],
  ['production', { priorityClassName: 'high' }, everyPod('+', 'priorityClassName = "high"')],
  ['production', { extraVolumes: [{ name: 'ca', emptyDir: {} }] }, [
    `+ ${POD}/volumes/0/name = "ca"`, `+ ${POD}/volumes/0/emptyDir = {}`, `+ ${JOB}/template/spec/volumes/0/name = "ca"`, `+ ${JOB}/template/spec/volumes/0/emptyDir = {}`
  ]],
  ['production', { extraVolumeMounts: [{ name: 'ca', mountPath: '/ca' }] }, [
    new RegExp(`^\\+ ${CONTAINER}/volumeMounts/0/(name|mountPath) = `), new RegExp(`^\\+ ${MIGRATE}/volumeMounts/0/(name|mountPath) = `)
  ]],
  ['production', { gateway: { enabled: true, settings: { upstream: 'http://c', public_origin: 'https://c.example', preset: 'rustdesk' }, secret: { existingSecret: 'g' } } }, [
    /^\+ (ConfigMap|Deployment|Service|PodDisruptionBudget)\/shop-postern-gateway\//, /^\+ NetworkPolicy\/shop-postern\/spec\/ingress\/0\/from\/1\//
  ]],
  ['gateway-ingress', { gateway: { image: { repository: 'registry.example/g' } } }, [`~ ${GATEWAY}/template/spec/containers/0/image = "registry.example/g:0.1.0"`]],
  ['gateway-ingress', { gateway: { image: { tag: '9.9.9' } } }, [`~ ${GATEWAY}/template/spec/containers/0/image = "postern-gateway:9.9.9"`]],
  ['gateway-ingress', { gateway: { image: { digest: DIGEST } } }, [`~ ${GATEWAY}/template/spec/containers/0/image = "postern-gateway@${DIGEST}"`]],
  ['gateway-ingress', { gateway: { replicas: 1 } }, [`~ ${GATEWAY}/replicas = 1`, /^- PodDisruptionBudget\/shop-postern-gateway\//]],
  ['gateway-ingress', { gateway: { settings: { port: 8181 } } }, [
    '+ ConfigMap/shop-postern-gateway/data/POSTERN_GATEWAY_PORT = "8181"', `~ ${GATEWAY}/template/spec/containers/0/ports/0/containerPort = 8181`, GATEWAY_CHECKSUM
  ]],
  ['gateway-ingress', { gateway: { settings: { operations_port: 8182 } } }, [
    '+ ConfigMap/shop-postern-gateway/data/POSTERN_GATEWAY_OPERATIONS_PORT = "8182"', `~ ${GATEWAY}/template/spec/containers/0/ports/1/containerPort = 8182`, GATEWAY_CHECKSUM
  ]],
  ['gateway-ingress', { gateway: { settings: { drain_seconds: 30 } } }, [
    '+ ConfigMap/shop-postern-gateway/data/POSTERN_GATEWAY_DRAIN_SECONDS = "30"', `~ ${GATEWAY}/template/spec/terminationGracePeriodSeconds = 48`, GATEWAY_CHECKSUM
  ]],
  ['gateway-ingress', { gateway: { settings: { cache_size: 1000000 } } }, [
    '+ ConfigMap/shop-postern-gateway/data/POSTERN_GATEWAY_CACHE_SIZE = "1000000"', GATEWAY_CHECKSUM
  ]],
  ['gateway-ingress', { gateway: { secret: { existingSecret: 'other' } } }, [/^~ Deployment\/shop-postern-gateway\/.*\/env\/[01]\/valueFrom\/secretKeyRef\/name = "other"$/]],
  ['gateway-ingress', { gateway: { secret: { tenantKey: 'KEY' } } }, [/^~ Deployment\/shop-postern-gateway\/.*\/env\/0\/valueFrom\/secretKeyRef\/key = "KEY"$/]],
  ['gateway-ingress', { gateway: { secret: { sealKeys: 'SEAL' } } }, [/^~ Deployment\/shop-postern-gateway\/.*\/env\/1\/valueFrom\/secretKeyRef\/key = "SEAL"$/]],
  ['gateway-ingress', { gateway: { resources: { requests: { cpu: '2' } } } }, [`~ ${GATEWAY}/template/spec/containers/0/resources/requests/cpu = "2"`]],
  ['gateway-ingress', { gateway: { resources: { limits: { memory: '1Gi' } } } }, [`~ ${GATEWAY}/template/spec/containers/0/resources/limits/memory = "1Gi"`]],
  ['gateway-ingress', { gateway: { ingress: { enabled: false } } }, [/^- Ingress\/shop-postern-gateway\//]],
  ['gateway-ingress', { gateway: { ingress: { className: 'traefik' } } }, ['~ Ingress/shop-postern-gateway/spec/ingressClassName = "traefik"']],
  ['gateway-ingress', { gateway: { ingress: { annotations: { team: 'x' } } } }, ['+ Ingress/shop-postern-gateway/metadata/annotations/team = "x"']],
  ['gateway-ingress', { gateway: { ingress: { hosts: ['other.example'] } } }, ['~ Ingress/shop-postern-gateway/spec/rules/0/host = "other.example"']],
  ['gateway-ingress', { gateway: { ingress: { tls: [] } } }, [/^- Ingress\/shop-postern-gateway\/spec\/tls\/0\//]],
  ['gateway-ingress', { gateway: { from: [] } }, [/^- NetworkPolicy\/shop-postern-gateway\//]],
  ['gateway-asked', { gateway: { settings: { prefix: '/door' } } }, [
    '+ ConfigMap/shop-postern-gateway/data/POSTERN_GATEWAY_PREFIX = "/door"', '~ Ingress/shop-postern-gateway/spec/rules/0/http/paths/0/path = "/door"', GATEWAY_CHECKSUM
  ]],
  ['gateway-route', { gateway: { httpRoute: { enabled: false } } }, [/^- HTTPRoute\/second-door-gateway\//]],
  ['gateway-route', { gateway: { httpRoute: { parentRefs: [{ name: 'other', namespace: 'ingress' }] } } }, ['~ HTTPRoute/second-door-gateway/spec/parentRefs/0/name = "other"']],
  ['gateway-route', { gateway: { httpRoute: { hostnames: ['other.example'] } } }, ['~ HTTPRoute/second-door-gateway/spec/hostnames/0 = "other.example"']]
]

t.test('there is a case for every value of the chart', async t => {
  const changed = CASES.flatMap(([, values]) => leaves(values).map(([path]) => path.slice(1).replaceAll('/', '.')))
  const all = chartValues(readFileSync(join(CHART, 'values.yaml'), 'utf8')).map(({ path }) => path)
  const last = all.filter(path => !all.some(other => other.startsWith(`${path}.`)))
  t.ok(last.length > 70, String(last.length))
  t.same(last.filter(path => !changed.some(one => one === path || one.startsWith(`${path}.`))), [])
})

if (noHelm !== undefined) {
  t.comment(noHelm)
} else {
  t.test('one value changed makes its difference and no other', async t => {
    const unchanged = new Map<string, Rendered>()
    for (const [file, values, expected] of CASES) {
      const before = unchanged.get(file) ?? await template([valuesFile(file)])
      unchanged.set(file, before)
      const found = differences(before, await template([valuesFile(file)], values))
      const fits = (line: string, one: string | RegExp): boolean => typeof one === 'string' ? line === one : one.test(line)
      const what = `${file} ${JSON.stringify(values)}`
      t.same(found.filter(line => !expected.some(one => fits(line, one))), [], `${what}: nothing else`)
      t.same(expected.filter(one => !found.some(line => fits(line, one))).map(String), [], `${what}: all of it`)
    }
    t.same(differences(unchanged.get('production') ?? { text: '', manifests: [] }, await template([valuesFile('production')])), [], 'the same values, the same manifests')
  })
}
