// Helm and kubeconform, and the schemas of Kubernetes that it holds manifests against. Both are made by Go from its
// module proxy where they are not installed, the schemas come from the modules that publish them; all is kept.

import { execFile, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { parse, parseAllDocuments } from 'yaml'
import { cacheFolder } from './cache.ts'

const run = promisify(execFile)

export const CHART = fileURLToPath(new URL('../../helm/postern', import.meta.url))
/** The Kubernetes that manifests are made for and held against. */
const KUBERNETES = '1.34.2'
const MODULES = {
  helm: 'helm.sh/helm/v3/cmd/helm@v3.22.0',
  kubeconform: 'github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0',
  kubernetes: `k8s.io/kubernetes@v${KUBERNETES}`,
  gateway: 'sigs.k8s.io/gateway-api@v1.4.0',
  monitoring: 'github.com/prometheus-operator/prometheus-operator@v0.85.0',
  secrets: 'github.com/external-secrets/external-secrets@v1.3.2'
}

const bin = cacheFolder('bin')
const find = (name: string, ...places: readonly string[]): string | undefined =>
  [...places, ...(process.env['PATH'] ?? '').split(delimiter)].map(folder => join(folder, name)).find(path => existsSync(path))

const go = find('go', '/usr/local/go/bin', '/opt/homebrew/bin')
const version = (name: keyof typeof MODULES): string => MODULES[name].split('@')[1] ?? ''

/** A program by its own version's name in the cache, else made by Go. */
async function made (name: 'helm' | 'kubeconform'): Promise<string | undefined> {
  const kept = join(bin, `${name}-${version(name)}`)
  if (existsSync(kept)) return kept
  if (go === undefined) return find(name)
  // A folder of its own, so that two runs at once do not get half a program.
  const folder = mkdtempSync(join(bin, 'make-'))
  try {
    await run(go, ['install', MODULES[name]], { cwd: folder, env: { ...process.env, GOBIN: folder, GOFLAGS: '' }, maxBuffer: 16 << 20 })
    renameSync(join(folder, name), kept)
    return kept
  } catch {
    return find(name)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export const helm = await made('helm')

/** Why a chart cannot be rendered here, or undefined. */
export const noHelm = helm !== undefined && spawnSync(helm, ['version']).status === 0
  ? undefined
  : 'Helm is not installed and Go is not here to make it, so the chart is not rendered.'

export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string, readonly annotations?: Readonly<Record<string, string>> }
  readonly [field: string]: unknown
}

export interface Rendered {
  readonly text: string
  readonly manifests: readonly Manifest[]
}

/** A file of values that the tests render. */
export const valuesFile = (name: string): string => fileURLToPath(new URL(`../helm/values/${name}.yaml`, import.meta.url))

export const nameOf = ({ kind, metadata }: Manifest): string => `${kind}/${metadata.name}`

/** Every leaf of a value by its path. */
export function leaves (value: unknown, path = ''): readonly (readonly [string, unknown])[] {
  if (typeof value !== 'object' || value === null) return [[path, value]]
  const entries = Object.entries(value)
  return entries.length === 0 ? [[path, value]] : entries.flatMap(([name, part]) => leaves(part, `${path}/${name}`))
}

interface Variable {
  readonly name: string
  readonly value?: string
  readonly valueFrom?: { readonly secretKeyRef: { readonly name: string, readonly key: string } }
}

/** The environment of a Deployment's pods, as the cluster makes it; `secret` says what a key of a Secret holds. */
export function environmentOf (
  { manifests }: Rendered, deployment: string, secret: (key: string, name: string) => string
): Record<string, string> {
  const found = (kind: string, name: string) => manifests.find(one => nameOf(one) === `${kind}/${name}`)
  interface Container {
    readonly envFrom: readonly { readonly configMapRef: { readonly name: string } }[]
    readonly env: readonly Variable[]
  }
  const { template: pod } = found('Deployment', deployment)?.['spec'] as { template: { spec: { containers: readonly [Container] } } }
  const { env, envFrom } = pod.spec.containers[0]
  const fromMaps = envFrom.map(({ configMapRef: { name } }) => found('ConfigMap', name)?.['data'] as Record<string, string>)
  const own = env.map(({ name, value, valueFrom: from }) =>
    [name, value ?? secret(from?.secretKeyRef.key ?? '', from?.secretKeyRef.name ?? '')] as const)
  return Object.assign({}, ...fromMaps, Object.fromEntries(own)) as Record<string, string>
}

interface Said { readonly ok: boolean, readonly out: string, readonly err: string }

async function helmSays (args: readonly string[]): Promise<Said> {
  const env = { ...process.env, HELM_CACHE_HOME: cacheFolder('helm'), HELM_CONFIG_HOME: cacheFolder('helm'), HELM_DATA_HOME: cacheFolder('helm') }
  return await run(helm ?? 'helm', [...args], { cwd: join(CHART, '../..'), env, maxBuffer: 16 << 20 }).then(
    ({ stdout, stderr }) => ({ ok: true, out: stdout, err: stderr }),
    ({ stdout, stderr }: { stdout: string, stderr: string }) => ({ ok: false, out: stdout, err: stderr }))
}

/** The arguments that give Helm these values, and what removes their file. */
function valued (files: readonly string[], values: unknown): { args: readonly string[], done: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'postern-values-'))
  const own = join(folder, 'values.json')
  writeFileSync(own, JSON.stringify(values ?? {}))
  return { args: [...files, own].flatMap(file => ['-f', file]), done: () => { rmSync(folder, { recursive: true, force: true }) } }
}

/** The manifests that these values give; rejects with what Helm says. */
export async function template (files: readonly string[], values?: unknown, chart = CHART): Promise<Rendered> {
  const { args, done } = valued(files, values)
  return await rendered(['shop', chart, '--namespace', 'postern', ...args]).finally(done)
}

/** The manifests that `helm template` makes of these words, from the folder of the repository. */
export async function rendered (words: readonly string[]): Promise<Rendered> {
  const { ok, out, err } = await helmSays(['template', '--kube-version', KUBERNETES, ...words])
  if (!ok) throw new Error(err)
  const manifests = parseAllDocuments(out).map(one => one.toJS() as Manifest | null).filter(one => one !== null)
  return { text: out, manifests }
}

/** What Helm says against these values; empty where it has nothing to say. */
export async function refusal (files: readonly string[], values?: unknown): Promise<string> {
  return await template(files, values).then(() => '', (error: Error) => error.message)
}

export async function lint (files: readonly string[], values?: unknown): Promise<{ ok: boolean, out: string }> {
  const { args, done } = valued(files, values)
  const { ok, out, err } = await helmSays(['lint', '--strict', '--kube-version', KUBERNETES, CHART, ...args])
  done()
  return { ok, out: out + err }
}

/** What Helm would say after an install: rendered as a value of an object, because an install needs a cluster. */
export async function notes (files: readonly string[], values?: unknown): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-notes-'))
  cpSync(CHART, folder, { recursive: true })
  const text = readFileSync(join(CHART, 'templates/NOTES.txt'), 'utf8')
  writeFileSync(join(folder, 'templates/zz-notes.yaml'), `{{ define "notes" }}${text}{{ end }}
apiVersion: v1
kind: ConfigMap
metadata: { name: notes }
data: { notes: {{ include "notes" . | toJson }} }
`)
  const { manifests } = await template(files, values, folder)
  rmSync(folder, { recursive: true, force: true })
  return (manifests.find(({ metadata }) => metadata.name === 'notes')?.['data'] as { notes: string }).notes
}

type Schema = Record<string, unknown>

interface Definition {
  readonly group: string
  readonly names: { readonly kind: string }
  readonly versions: readonly { readonly name: string, readonly schema: { readonly openAPIV3Schema: Schema } }[]
}

/** A module's folder, downloaded by Go. */
async function moduleFolder (name: keyof typeof MODULES): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-go-'))
  writeFileSync(join(folder, 'go.mod'), 'module schemas\n')
  const { stdout } = await run(go ?? 'go', ['mod', 'download', '-json', MODULES[name]], { cwd: folder, maxBuffer: 16 << 20 })
  rmSync(folder, { recursive: true, force: true })
  return (JSON.parse(stdout) as { Dir: string }).Dir
}

/** Unknown fields are mistakes: a misspelt one is silently nothing in a cluster. */
function strict (schema: unknown, inline: (ref: string) => unknown): unknown {
  if (Array.isArray(schema)) return schema.map(one => strict(one, inline))
  if (typeof schema !== 'object' || schema === null) return schema
  const given = schema as Schema
  if (typeof given['$ref'] === 'string') return inline(given['$ref'])
  const own = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, strict(value, inline)]))
  if (given['x-kubernetes-int-or-string'] === true || given['format'] === 'int-or-string') {
    return { oneOf: [{ type: 'string' }, { type: 'integer' }] }
  }
  return given['properties'] !== undefined && given['additionalProperties'] === undefined && given['x-kubernetes-preserve-unknown-fields'] !== true
    ? { ...own, additionalProperties: false }
    : own
}

/** Writes one JSON schema a kind, named as kubeconform looks for it. */
async function makeSchemas (folder: string): Promise<void> {
  const file = (kind: string, group: string, of: string): string =>
    join(folder, `${[kind, group.split('.')[0], of].filter(part => part !== '').join('-')}.json`.toLowerCase())
  const swagger = JSON.parse(readFileSync(join(await moduleFolder('kubernetes'), 'api/openapi-spec/swagger.json'), 'utf8')) as
    { definitions: Record<string, Schema> }
  const kinds = new Set(['ConfigMap', 'Deployment', 'HorizontalPodAutoscaler', 'Ingress', 'Job', 'NetworkPolicy', 'PersistentVolumeClaim', 'Pod',
    'PodDisruptionBudget', 'Secret', 'Service', 'ServiceAccount'])
  const deep = (ref: string): unknown => {
    const name = ref.replace('#/definitions/', '')
    // These stand for "anything" and for themselves.
    if (/JSONSchemaProps|RawExtension/.test(name)) return {}
    return strict(swagger.definitions[name] ?? {}, deep)
  }
  for (const definition of Object.values(swagger.definitions)) {
    for (const { group, version: of, kind } of (definition['x-kubernetes-group-version-kind'] ?? []) as { group: string, version: string, kind: string }[]) {
      if (kinds.has(kind)) writeFileSync(file(kind, group, of), JSON.stringify(strict(definition, deep)))
    }
  }
  for (const [name, path] of [
    ['gateway', 'config/crd/standard/gateway.networking.k8s.io_httproutes.yaml'],
    ['monitoring', 'example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml'],
    ['secrets', 'config/crds/bases/external-secrets.io_externalsecrets.yaml']
  ] as const) {
    const { spec } = parse(readFileSync(join(await moduleFolder(name), path), 'utf8')) as
      { spec: Definition }
    for (const { name: of, schema: { openAPIV3Schema } } of spec.versions) {
      const schema = strict(openAPIV3Schema, () => ({})) as { properties: Schema }
      // The definition leaves these to the API server.
      const metadata = strict(swagger.definitions['io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta'], deep)
      const whole = { ...schema, properties: { ...schema.properties, metadata } }
      writeFileSync(file(spec.names.kind, spec.group, of), JSON.stringify(whole))
    }
  }
  writeFileSync(join(folder, 'done'), '')
}

/** What kubeconform finds wrong, a line each; undefined where it cannot be had on this machine. */
export async function conform (text: string): Promise<readonly string[] | undefined> {
  const program = await made('kubeconform')
  const folder = cacheFolder('schemas', ['kubernetes', 'gateway', 'monitoring', 'secrets'].map(name => version(name as keyof typeof MODULES)).join('-'))
  if (!existsSync(join(folder, 'done'))) {
    if (go === undefined) return undefined
    await makeSchemas(folder)
  }
  if (program === undefined || readdirSync(folder).length < 10) return undefined
  const own = mkdtempSync(join(tmpdir(), 'postern-manifests-'))
  writeFileSync(join(own, 'all.yaml'), text)
  const location = join(folder, '{{ .ResourceKind }}{{ .KindSuffix }}.json')
  const args = ['-strict', '-output', 'json', '-schema-location', location, join(own, 'all.yaml')]
  const said = await run(program, args, { maxBuffer: 16 << 20 })
    .then(({ stdout }) => stdout, ({ stdout }: { stdout: string }) => stdout)
  rmSync(own, { recursive: true, force: true })
  const { resources } = JSON.parse(said) as
    { resources: readonly { kind: string, name: string, status: string, msg: string }[] | null }
  return (resources ?? []).map(({ kind, name, status, msg }) => `${kind} ${name}: ${status} ${msg}`)
}
