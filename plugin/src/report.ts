// Which route asks for what, and the self-check that no route is out of the gate's reach.

import type { FastifyInstance } from 'fastify'
import type { Rule } from './rules.ts'

export interface ReportedRoute {
  readonly method: string
  readonly url: string
  readonly rule: 'gated' | 'public' | 'step-up' | 'own' | 'unknown'
  readonly maxAge?: number
  /** Looks like a settings route but has no step-up. */
  readonly warning?: string
}

export interface Report {
  readonly mode: string
  readonly routes: readonly ReportedRoute[]
  readonly warnings: readonly string[]
  /** What `observe` would have refused, by reason. */
  readonly observed: Readonly<Record<string, number>>
}

export const GATE_HOOK = 'posternGate'

const LOOKS_LIKE_SETTINGS =
  /(?:^|[/_-])(?:settings?|preferences|account|profile|password|e?mail|security|2fa|mfa|tokens?|api[-_]?keys?|users?|admin|roles?|permissions)(?:[/_:-]|$)/i
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

export function reportedRoute (method: string, url: string, rule: Rule): ReportedRoute {
  if (rule.stepUp !== null) return { method, url, rule: 'step-up', maxAge: rule.stepUp.maxAge }
  const warning =
    rule.rule !== 'gated' || SAFE.has(method) || !LOOKS_LIKE_SETTINGS.test(url)
      ? {}
      : { warning: 'looks like settings, but asks for no step-up' }
  return { method, url, rule: rule.rule, ...warning }
}

export interface ListedRoute {
  readonly methods: readonly string[]
  readonly url: string
  readonly gated: boolean
}

/**
 * Every route the router knows, from the tree it prints with its hooks: also those added before the plugin was
 * loaded.
 */
export function listRoutes (app: FastifyInstance): readonly ListedRoute[] {
  const tree = app.printRoutes({ includeHooks: true, commonPrefix: false })
  const routes: { methods: readonly string[]; url: string; gated: boolean }[] = []
  const path: string[] = []
  for (const line of tree.split('\n')) {
    const [, margin = '', text = ''] = /^([│├└─\s]*)(.*)$/.exec(line) ?? []
    if (text.startsWith('•')) {
      const last = routes.at(-1)
      if (last !== undefined && text.startsWith('• (preParsing)') && text.includes(`"${GATE_HOOK}()"`)) { last.gated = true }
      continue
    }
    const [, part, methods] = /^(.*) \(([A-Z-]+(?:, [A-Z-]+)*)\)(?: .*)?$/.exec(text) ?? []
    if (text === '') continue
    const depth = Math.max(0, Math.floor(margin.length / 4) - 1)
    // A node that is printed twice (GET, then HEAD with other hooks) stands without a branch of its own.
    const level = /[├└]/.test(margin) ? depth : Math.max(0, path.length - 1)
    path.length = level
    path.push(part ?? text)
    if (methods !== undefined) routes.push({ methods: methods.split(', '), url: path.join(''), gated: false })
  }
  return routes
}

/** A sentence that names what is out of reach, or nothing. */
export function outOfReach (routes: readonly ListedRoute[]): string | undefined {
  const open = routes.filter(route => !route.gated)
  if (open.length === 0) return undefined
  const names = open
    .slice(0, 5)
    .map(({ methods, url }) => `${methods.join('/')} ${url}`)
    .join(', ')
  return `postern cannot start: ${open.length} route${open.length === 1 ? '' : 's'} out of the gate's reach (${names}); register the plugin on the root instance, not inside another plugin.`
}

/** The report as people read it. */
export function printedReport ({ mode, routes, warnings, observed }: Report): string {
  const width = Math.max(0, ...routes.map(route => route.method.length + route.url.length + 1))
  const lines = routes.map(
    ({ method, url, rule, maxAge, warning }) =>
      `${`${method} ${url}`.padEnd(width)}  ${rule}${maxAge === undefined ? '' : ` (at most ${maxAge} s old)`}${warning === undefined ? '' : `  ! ${warning}`}`
  )
  const counts = Object.entries(observed).map(([code, count]) => `would have refused: ${code} ${count} times`)
  return [`mode: ${mode}`, ...lines, ...counts, ...warnings.map(warning => `! ${warning}`), ''].join('\n')
}
