// The configuration that a try found, written down to be kept: as files of settings, for Compose, or for the chart.

export interface Kept {
  readonly service: Readonly<Record<string, string>>
  readonly gateway: Readonly<Record<string, string>>
}

type Files = Readonly<Record<string, string>>

const ORIGIN = 'https://console.example'

const lines = (settings: Readonly<Record<string, string>>): string =>
  Object.entries(settings).map(([name, value]) => `${name}=${value}\n`).join('')

/** Two files of settings, as systemd's EnvironmentFile and docker's --env-file read them. */
export function envOf ({ service, gateway }: Kept): Files {
  return {
    'postern.env': lines({ ...service, POSTERN_DATABASE: 'sqlite:postern.db' }),
    'postern-gateway.env': lines({ ...gateway, POSTERN_GATEWAY_SERVICE: 'http://127.0.0.1:7070', POSTERN_GATEWAY_PUBLIC_ORIGIN: ORIGIN })
  }
}

export function composeOf (kept: Kept): Files {
  const files = envOf(kept)
  return {
    ...files,
    // The image says where its database is, and listens for others.
    'postern.env': lines(kept.service),
    'postern-gateway.env': lines({ ...kept.gateway, POSTERN_GATEWAY_SERVICE: 'http://postern:7070', POSTERN_GATEWAY_PUBLIC_ORIGIN: ORIGIN }),
    'compose.yaml': `# Set POSTERN_GATEWAY_PUBLIC_ORIGIN in postern-gateway.env to what browsers see, and POSTERN_GATEWAY_UPSTREAM to the
# console as containers reach it.
services:
  postern:
    image: postern
    env_file: postern.env
    volumes: [ "postern-data:/data" ]
  gateway:
    image: postern-gateway
    env_file: postern-gateway.env
    ports: [ "127.0.0.1:8080:8080" ]
    depends_on: { postern: { condition: service_healthy } }
volumes:
  postern-data: {}
`
  }
}

/** Values of the chart, and what goes into the Secrets that they name. */
export function helmOf ({ service, gateway }: Kept): Files {
  const { POSTERN_GATEWAY_TENANT_KEY: key = '', ...plain } = gateway
  const settings = Object.entries({ ...plain, POSTERN_GATEWAY_PUBLIC_ORIGIN: ORIGIN }).map(([name, value]) =>
    `    ${name.replace('POSTERN_GATEWAY_', '').toLowerCase()}: ${JSON.stringify(value)}\n`).join('')
  return {
    'tenant-key': key,
    'encryption-keys': service['POSTERN_ENCRYPTION_KEYS'] ?? '',
    'server-key': service['POSTERN_SERVER_KEY'] ?? '',
    'values.yaml': `# kubectl create secret generic postern-gateway --from-file=tenant-key
# kubectl create secret generic postern --from-file=encryption-keys --from-file=server-key
# The upstream is the console as pods reach it, public_origin what browsers see.
replicas: 1
stores: { database: sqlite, redis: false }
secrets: { existingSecret: postern }
tenants: ${service['POSTERN_TENANTS'] ?? '[]'}
gateway:
  enabled: true
  secret: { existingSecret: postern-gateway, tenantKey: tenant-key }
  settings:
${settings}`
  }
}
