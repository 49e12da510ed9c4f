// What a route asks for: from its own declaration, or from patterns where a console cannot declare.

import type { FastifyRequest } from 'fastify'
import type { RouteRule } from './model.ts'
import { checkedMaxAge, type Settings } from './options.ts'
import { canonicalTarget } from './path.ts'

export interface Rule {
  readonly rule: 'gated' | 'public' | 'own'
  readonly stepUp: { readonly maxAge: number; readonly action: string | undefined } | null
}

/** What the plugin's own routes declare. Compared by identity, so no console can declare it by accident. */
export const OWN_ROUTE: RouteRule = Object.freeze({ public: true })
/** The hidden route that stands for an upgrade: asks what the upgrade's own target asks. */
export const UPGRADE_ROUTE: RouteRule = Object.freeze({})

export type Ruled = Rule | { readonly refused: string }

const GATED: Rule = { rule: 'gated', stepUp: null }
const PUBLIC: Rule = { rule: 'public', stepUp: null }
const OWN: Rule = { rule: 'own', stepUp: null }

export interface Rules {
  readonly of: (request: FastifyRequest, target: string) => Ruled
  /**
   * For a route that is known before any request: `url` as it was declared. Throws a sentence on a wrong declaration.
   */
  readonly declared: (method: string, url: string, config: unknown) => Rule
}

export function createRules (settings: Pick<Settings, 'stepUpPatterns' | 'publicPatterns'>): Rules {
  // A route's rule never changes, except where one route stands for many paths or a pattern names a method.
  const known = new WeakMap<object, Rule>()

  function byPattern (method: string, path: string): Rule | undefined {
    const asked = method === 'HEAD' ? 'GET' : method
    const named = (one: { readonly method: string | undefined; readonly test: (path: string) => boolean }): boolean =>
      (one.method === undefined || one.method === asked) && one.test(path)
    const stepUps = settings.stepUpPatterns.filter(named)
    if (stepUps.length > 0) { return { rule: 'gated', stepUp: { maxAge: Math.min(...stepUps.map(one => one.maxAge)), action: undefined } } }
    return settings.publicPatterns.some(named) ? PUBLIC : undefined
  }

  function declaredRule (method: string, url: string, rule: RouteRule | undefined): Rule {
    const where = `the route ${method} ${url}`
    if (rule === OWN_ROUTE) return OWN
    if (rule === undefined || rule === UPGRADE_ROUTE) return byPattern(method, url) ?? GATED
    const { public: open, stepUp, ...rest } = rule
    const unknown = Object.keys(rest)
    if (unknown.length > 0) { throw new Error(`postern cannot start: ${where} declares "${unknown[0]}", which is not "public" or "stepUp".`) }
    if (open !== undefined && typeof open !== 'boolean') { throw new Error(`postern cannot start: ${where} declares "public" as something else than true or false.`) }
    if (stepUp !== undefined && stepUp !== true && (typeof stepUp !== 'object' || stepUp === null)) { throw new Error(`postern cannot start: ${where} declares "stepUp" as something else than true or { maxAge }.`) }
    if (stepUp === undefined) return open === true ? PUBLIC : (byPattern(method, url) ?? GATED)
    if (open === true) throw new Error(`postern cannot start: ${where} is declared public and step-up at once.`)
    return {
      rule: 'gated',
      stepUp: {
        maxAge: checkedMaxAge(stepUp === true ? undefined : stepUp.maxAge, where),
        action: stepUp === true ? undefined : stepUp.action
      }
    }
  }

  function ofTarget (method: string, target: string): Ruled {
    const canonical = canonicalTarget(target)
    return 'refused' in canonical ? canonical : (byPattern(method, canonical.path) ?? GATED)
  }

  return {
    declared: (method, url, config) => declaredRule(method, url, ruleOf(config)),
    of: (request, target) => {
      const config: object & { readonly url?: string; readonly postern?: RouteRule | undefined } =
        request.routeOptions.config
      const rule = known.get(config)
      if (rule !== undefined) return rule
      const url = config.url
      if (
        url === undefined ||
        config.postern === UPGRADE_ROUTE ||
        (url.includes('*') && config.postern !== OWN_ROUTE)
      ) {
        // Whoever parses the path again must read what we read.
        const ruled = ofTarget(request.method, target)
        if ('refused' in ruled || config.postern === undefined || config.postern === UPGRADE_ROUTE) return ruled
        const declared = declaredRule(request.method, url ?? 'that is not found', config.postern)
        return (ruled.stepUp ?? declared.stepUp)
          ? { rule: 'gated', stepUp: strictest(ruled.stepUp, declared.stepUp) }
          : declared
      }
      const fresh = declaredRule(request.method, url, config.postern)
      // One route of several methods has one config: its pattern may name only one of them.
      if (config.postern !== undefined || settings.stepUpPatterns.length + settings.publicPatterns.length === 0) {
        known.set(config, fresh)
      }
      return fresh
    }
  }
}

function strictest (one: Rule['stepUp'], other: Rule['stepUp']): Rule['stepUp'] {
  if (one === null || other === null) return one ?? other
  return one.maxAge < other.maxAge ? one : other
}

// The one narrowing of this boundary: a route's config, which the console wrote.
function ruleOf (config: unknown): RouteRule | undefined {
  return typeof config === 'object' && config !== null
    ? (config as { readonly postern?: RouteRule }).postern
    : undefined
}
