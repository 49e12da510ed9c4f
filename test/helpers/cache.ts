// Where what is slow to make is kept between runs: beside the tree, in the user's cache.

import { mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** A folder below the user's cache, made where it is missing. */
export function cacheFolder (...names: readonly string[]): string {
  const base = process.env['XDG_CACHE_HOME'] ?? join(homedir(), process.platform === 'darwin' ? 'Library/Caches' : '.cache')
  const folder = join(base, 'postern-tests', ...names)
  mkdirSync(folder, { recursive: true })
  return folder
}
