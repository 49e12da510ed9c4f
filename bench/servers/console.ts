// The console of `gate` as a server; with SERVICE behind the gate.

import { createConsole } from './console-app.ts'

const { SERVICE, KEY = '' } = process.env
const app = await createConsole(SERVICE === undefined ? undefined : { service: SERVICE, tenantKey: KEY })
process.stdout.write(`listening ${await app.listen({ port: 0, host: '127.0.0.1' })}\n`)
