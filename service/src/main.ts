#!/usr/bin/env node
// The command `postern`. What it needs is loaded behind a setting of the engine that must stand before.

import { holdYoungMemory } from './cli/young-memory.ts'

holdYoungMemory()
const { run } = await import('./cli/run.ts')
await run(process.argv.slice(2))
