#!/usr/bin/env node
// The command `postern`. What it needs is loaded behind a setting of the engine that must stand before.

import { setFlagsFromString } from 'node:v8'

// A start makes many objects once. The memory for young ones would grow to twice 16 MB for them, and stay: 23 MB of
// what an idle service holds. It may grow again when requests come.
setFlagsFromString('--semi-space-growth-factor=1')
const { run } = await import('./cli/run.ts')
await run(process.argv.slice(2))
