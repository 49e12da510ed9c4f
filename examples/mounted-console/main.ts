// Starts the console from a JSON file: `node --import tsx examples/mounted-console/main.ts <file>`.

import { readFileSync } from 'node:fs'
import { buildConsole, type ConsoleConfig } from './server.ts'

const file = process.argv[2]
if (file === undefined) throw new Error('Name the configuration: main.ts <file>')

// The file is written by whoever starts the console; wrong options stop the start by the plugin's own check.
const config = JSON.parse(readFileSync(file, 'utf8')) as ConsoleConfig & { readonly host?: string, readonly port: number }
const app = await buildConsole(config)
await app.listen({ host: config.host ?? '127.0.0.1', port: config.port })
app.log.info({ url: config.publicOrigin }, 'ready')

const stop = (): void => { app.close().then(() => process.exit(0), () => process.exit(1)) }
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
