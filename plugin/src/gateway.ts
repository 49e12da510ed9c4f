#!/usr/bin/env node
// postern-gateway: keeps V8's young generation small, then loads the process and runs it.

import { setFlagsFromString } from 'node:v8'

// What was streamed lies in the young generation until that is full. Loading the modules already makes it grow, so they
// are loaded after this.
setFlagsFromString('--semi-space-growth-factor=1')
const { main } = await import('./gateway/process.ts')
await main(process.argv.slice(2))
