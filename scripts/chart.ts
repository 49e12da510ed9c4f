// What of the Helm chart comes from the code: values.schema.json from the settings of service and gateway, README.md
// from values.yaml.

import { readFileSync } from 'node:fs'
import type { Setting } from '../plugin/src/gateway/preset.ts'
import { SETTINGS as GATEWAY_SETTINGS } from '../plugin/src/gateway/settings.ts'
import { PRESETS } from '../plugin/src/presets/index.ts'
import { SETTINGS } from '../service/src/config.ts'
import { LIMITS } from '../service/src/domain/policy.ts'
import { snakeCase, TENANT_WORDS } from '../service/src/tenants.ts'

const root = new URL('..', import.meta.url)

type Schema = Readonly<Record<string, unknown>>

const object = (properties: Readonly<Record<string, Schema>>, more: Schema = {}): Schema =>
  ({ type: 'object', additionalProperties: false, properties, ...more })
const list = (items: Schema, more: Schema = {}): Schema => ({ type: 'array', items, ...more })
const anything: Schema = { type: 'object' }
const text: Schema = { type: 'string' }
const flag: Schema = { type: 'boolean' }
const integer = (minimum: number, maximum?: number): Schema =>
  ({ type: 'integer', minimum, ...(maximum === undefined ? {} : { maximum }) })
const words = (...given: readonly string[]): Schema => ({ enum: given })

type Row = Pick<Setting, 'oneOf' | 'min' | 'max' | 'text'> & { readonly type: string }

/** Where the chart decides, or a Secret must. */
const NOT_FREE = new Set(['database', 'redis', 'smtp', 'encryption_keys', 'server_key'])

/** Settings that are no secret, as values of the chart. */
function settings (rows: readonly (readonly [string, Row])[]): Readonly<Record<string, Schema>> {
  const schemaOf = ({ type, oneOf, min, max, text: description }: Row): Schema => {
    switch (type) {
      case 'port': return { ...integer(1, 65535), description }
      case 'integer': return { ...integer(min ?? 0, max), description }
      case 'flag': return { ...flag, description }
      default: return oneOf === undefined ? { ...text, description } : { enum: oneOf, description }
    }
  }
  return Object.fromEntries(rows.filter(([name, { type }]) => type !== 'secret' && !NOT_FREE.has(name))
    .map(([name, row]) => [name, schemaOf(row)]))
}

/** Like the gateway at its start: no setting of another preset, and none missing that its own needs. */
function gatewaySettings (): Schema {
  const presets = [...PRESETS.values()]
  const all = [GATEWAY_SETTINGS, ...presets.map(one => one.settings)]
  const properties = settings(all.flatMap(rows => Object.entries(rows)))
  return object({ ...properties, preset: { ...properties['preset'], enum: presets.map(({ name }) => name) } }, {
    allOf: presets.map(({ name, settings: own }) => ({
      if: { properties: { preset: { const: name } }, required: ['preset'] },
      then: {
        required: Object.keys(own).filter(one => own[one]?.required === true),
        properties: Object.fromEntries(presets.flatMap(other => Object.keys(other.settings))
          .filter(one => !Object.hasOwn(own, one)).map(one => [one, false]))
      }
    }))
  })
}

function tenant (): Schema {
  const key = object({
    id: { type: 'string', pattern: '^[a-z0-9-]{1,16}$' },
    scope: words('gate', 'admin'),
    sha256: { type: 'string', pattern: '^[0-9a-f]{64}$', description: 'SHA-256 of the key, from "postern tenants key".' }
  }, { required: ['id', 'scope', 'sha256'] })
  return object({
    id: { type: 'string', pattern: '^[a-z0-9-]{1,40}$' },
    name: { type: 'string', minLength: 1, maxLength: 64 },
    issuer: { type: 'string', minLength: 1, maxLength: 64, pattern: '^[^:]+$' },
    keys: list(key, { minItems: 1, maxItems: 4 }),
    require_from: text,
    exempt: list(words('api_token', 'sso')),
    ...Object.fromEntries(Object.entries(TENANT_WORDS)
      .map(([name, row]) => [name, { enum: row.words, description: row.text }])),
    limits: object(Object.fromEntries(Object.entries(LIMITS).map(([name, row]) =>
      [snakeCase(name), { ...integer(row.min, row.max), description: `${row.text} (${row.unit})` }])))
  }, { required: ['id', 'name', 'keys'] })
}

/** values.schema.json: Helm holds every value against it before it renders. */
export function chartSchema (): string {
  const image = { repository: { type: 'string', minLength: 1 }, tag: text, digest: { type: 'string', pattern: '^(sha256:[0-9a-f]{64})?$' } }
  const secretKey: Schema = { type: 'string', pattern: '^[-._a-zA-Z0-9]+$' }
  const resources = object({ requests: anything, limits: anything, claims: list(anything) })
  const schema = {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Values of the chart postern',
    ...object({
      global: anything,
      image: object({ ...image, pullPolicy: words('Always', 'IfNotPresent', 'Never') }),
      imagePullSecrets: list(anything),
      nameOverride: text,
      fullnameOverride: text,
      replicas: integer(0),
      stores: object({ database: words('postgres', 'sqlite'), redis: flag }),
      tenants: list(tenant()),
      settings: object(settings(Object.entries(SETTINGS))),
      secrets: object({
        existingSecret: text,
        smtp: flag,
        redisSentinelPassword: flag,
        keys: object(Object.fromEntries(
          ['encryptionKeys', 'serverKey', 'database', 'redis', 'redisSentinelPassword', 'smtp']
            .map(name => [name, secretKey]))),
        external: object({
          enabled: flag,
          storeRef: object({ name: text, kind: words('SecretStore', 'ClusterSecretStore') }),
          entry: text,
          refreshInterval: text
        }),
        generate: flag
      }),
      persistence: object({ size: text, storageClass: text, existingClaim: text }),
      migration: object({ enabled: flag, backoffLimit: integer(0), activeDeadlineSeconds: integer(1) }),
      resources,
      preStopSeconds: integer(0, 120),
      autoscaling: object({
        enabled: flag, minReplicas: integer(1), maxReplicas: integer(1), targetCPU: integer(1, 100)
      }),
      podDisruptionBudget: object({
        enabled: flag,
        maxUnavailable: { anyOf: [integer(1), { type: 'string', pattern: '^[1-9][0-9]?%$' }] }
      }),
      topologySpread: object({ enabled: flag, whenUnsatisfiable: words('ScheduleAnyway', 'DoNotSchedule') }),
      service: object({ type: words('ClusterIP', 'NodePort', 'LoadBalancer'), annotations: anything }),
      networkPolicy: object({
        enabled: flag, consoles: list(anything), monitoring: list(anything), egress: list(anything)
      }),
      serviceMonitor: object({ enabled: flag, interval: text, labels: anything }),
      serviceAccount: object({ create: flag, name: text, annotations: anything }),
      podAnnotations: anything,
      podLabels: anything,
      nodeSelector: anything,
      tolerations: list(anything),
      affinity: anything,
      priorityClassName: text,
      extraVolumes: list(anything),
      extraVolumeMounts: list(anything),
      gateway: object({
        enabled: flag,
        image: object(image),
        replicas: integer(0),
        settings: gatewaySettings(),
        secret: object({ existingSecret: text, tenantKey: secretKey, sealKeys: { type: 'string', pattern: '^[-._a-zA-Z0-9]*$' } }),
        resources,
        ingress: object({
          enabled: flag, className: text, annotations: anything, hosts: list(text), tls: list(anything)
        }),
        httpRoute: object({ enabled: flag, parentRefs: list(anything), hostnames: list(text) }),
        from: list(anything)
      })
    })
  }
  return JSON.stringify(schema, null, 2) + '\n'
}

interface Value { readonly path: string, readonly fallback: string, readonly text: string }

/** Reads the commented values of values.yaml; a value without a comment that stands under none is a mistake. */
export function chartValues (yaml: string): readonly Value[] {
  const values: Value[] = []
  const path: { readonly indent: number, readonly name: string }[] = []
  let said: string | undefined
  for (const line of yaml.split('\n')) {
    const comment = /^\s*# (-- )?(.*)$/.exec(line)
    if (comment !== null) {
      if (comment[1] !== undefined) said = comment[2] ?? ''
      else if (said !== undefined) said += ` ${comment[2] ?? ''}`
      continue
    }
    const [, space = '', name = '', value = ''] = /^( *)([A-Za-z]\w*):(?: +(.*))?$/.exec(line) ?? []
    if (name === '') continue
    while ((path.at(-1)?.indent ?? -1) >= space.length) path.pop()
    path.push({ indent: space.length, name })
    const full = path.map(one => one.name).join('.')
    if (said !== undefined) values.push({ path: full, fallback: value, text: said })
    else if (value !== '') throw new Error(`values.yaml: ${full} has no comment`)
    said = undefined
  }
  return values
}

/** README.md of the chart. */
export function chartReadme (): string {
  const rows = chartValues(readFileSync(new URL('helm/postern/values.yaml', root), 'utf8'))
  const cell = (content: string): string => content.replaceAll('|', '\\|')
  return `<!-- Made by \`npm run docs\` from values.yaml; change that, not this page. -->

# Chart of Postern

Runs the 2FA service, and if you want the gateway in front of a console, on Kubernetes 1.27 or newer.

\`\`\`sh
helm install postern helm/postern -n postern --create-namespace -f values.yaml
\`\`\`

Settings of the service stand under \`settings\`, those of the gateway under \`gateway.settings\`. They are checked against
[the service's own list](../../docs/settings.md) and [the gateway's](../../docs/gateway-settings.md) before anything is
installed; secrets are named, never given.

| value | default | what it is for |
|---|---|---|
${rows.map(({ path, fallback, text: what }) => `| \`${path}\` | ${fallback === '' ? '' : `\`${cell(fallback)}\``} | ${cell(what)} |`).join('\n')}
`
}
