// Programs the tests need beside Node: where they are on this machine.

import { accessSync, constants, existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'

interface Tool {
  /** Names on the PATH. */
  readonly names: readonly string[]
  /** Places beside the PATH. */
  readonly places: () => readonly string[]
  /** Packages that bring it. */
  readonly apt: string
  readonly brew: readonly string[]
}

function postgresFolders (): readonly string[] {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  return versions.map(version => join(debian, version, 'bin/initdb'))
}

const CHROME = 'Contents/MacOS'

export const TOOLS = {
  'redis-server': { names: ['redis-server'], places: () => ['/opt/homebrew/bin/redis-server'], apt: 'redis-server', brew: ['redis'] },
  chromium: {
    names: ['chromium', 'chromium-browser', 'google-chrome'],
    places: () => [`/Applications/Chromium.app/${CHROME}/Chromium`, `/Applications/Google Chrome.app/${CHROME}/Google Chrome`],
    apt: 'chromium',
    brew: ['--cask', 'chromium']
  },
  oathtool: { names: ['oathtool'], places: () => ['/opt/homebrew/bin/oathtool'], apt: 'oathtool', brew: ['oath-toolkit'] },
  nginx: { names: ['nginx'], places: () => ['/usr/sbin/nginx', '/opt/homebrew/bin/nginx'], apt: 'nginx', brew: ['nginx'] },
  caddy: { names: ['caddy'], places: () => ['/opt/homebrew/bin/caddy'], apt: 'caddy', brew: ['caddy'] },
  // The server's own folder first: the commands on the PATH may be wrappers.
  initdb: { names: ['initdb'], places: postgresFolders, apt: 'postgresql', brew: ['postgresql@16'] }
} as const satisfies Record<string, Tool>

export type ToolName = keyof typeof TOOLS

/** The file of a program, or undefined where it is not installed. */
export function findTool (name: ToolName): string | undefined {
  const tool: Tool = TOOLS[name]
  const onPath = (process.env['PATH'] ?? '').split(delimiter).flatMap(folder => tool.names.map(one => join(folder, one)))
  return [...tool.places(), ...onPath].find(isProgram)
}

/** The file of a program; throws one clear sentence where it is not installed. */
export function tool (name: ToolName): string {
  const found = findTool(name)
  if (found === undefined) throw new Error(`${name} is not installed; npm test installs it where it may, else install the package ${TOOLS[name].apt}`)
  return found
}

function isProgram (file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
