// What a route asks for: from its own declaration, or from patterns where a console cannot declare.

import type { FastifyRequest } from 'fastify'
import type { RouteRule } from './model.ts'
import { checkedMaxAge, type Settings } from './options.ts'
import { canonicalTarget, pattern } from './path.ts'

export interface Rule {
  readonly rule: 'gated' | 'public' | 'own'
  readonly stepUp: { readonly maxAge: number; readonly action: string | undefined } | null
}

/** What the plugin's own routes declare. Compared by identity, so no console can declare it by accident. */
export const OWN_ROUTE: RouteRule = Object.freeze({ public: true })

export type Ruled = Rule | { readonly refused: string }

const GATED: Rule = { rule: 'gated', stepUp: null }
const PUBLIC: Rule = { rule: 'public', stepUp: null }
const OWN: Rule = { rule: 'own', stepUp: null }

export interface Rules {
  readonly of: (request: FastifyRequest, target: string, upgrade: boolean) => Ruled
  /**
   * For a route that is known before any request: `url` as it was declared. Throws a sentence on a wrong declaration.
   */
  readonly declared: (method: string, url: string, config: unknown) => Rule
}

export function createRules (settings: Pick<Settings, 'stepUpPatterns' | 'publicPatterns'>): Rules {
  // A route's rule never changes, except where one route stands for many paths or a pattern names a method.
  const known = new WeakMap<object, Rule>()
  const sensitive: { readonly test: (path: string) => boolean; readonly stepUp: NonNullable<Rule['stepUp']> }[] = []

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
    if (rule === undefined) return byPattern(method, url) ?? GATED
    const { public: open, stepUp, ...rest } = rule
    const unknown = Object.keys(rest)
    if (unknown.length > 0) { throw new Error(`postern cannot start: ${where} declares "${unknown[0]}", which is not "public" or "stepUp".`) }
    if (open !== undefined && typeof open !== 'boolean') { throw new Error(`postern cannot start: ${where} declares "public" as something else than true or false.`) }
    if (stepUp !== undefined && stepUp !== true && (typeof stepUp !== 'object' || stepUp === null)) { throw new Error(`postern cannot start: ${where} declares "stepUp" as something else than true or { maxAge }.`) }
    // Types do not see it: a route's config takes any key. Another age than the one meant must not be asked for.
    const stray = Object.keys(stepUp === undefined || stepUp === true ? {} : stepUp).find(key => key !== 'maxAge' && key !== 'action')
    if (stray !== undefined) { throw new Error(`postern cannot start: ${where} declares "stepUp" with "${stray}", which is not "maxAge" or "action".`) }
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
    if ('refused' in canonical) return canonical
    const rule = byPattern(method, canonical.path) ?? GATED
    // Byte for byte, as it came: a handler that does not decode reads another path.
    return rule === PUBLIC && canonical.path !== pathOf(target) ? GATED : rule
  }

  // Whoever takes an upgrade reads the path anew and knows nothing of routes: none is open but by a pattern, and what
  // any route of that path asks for, however it is spelled, is asked here too.
  function ofUpgrade (request: FastifyRequest, target: string): Ruled {
    const ruled = ofTarget('GET', target)
    if ('refused' in ruled) return ruled
    const { url, postern } = configOf(request)
    const path = pathOf(target)
    const stepUp = [
      url === undefined || postern === OWN_ROUTE ? null : declaredRule('GET', url, postern).stepUp,
      ...sensitive.filter(one => one.test(path)).map(one => one.stepUp)
    ].reduce(strictest, ruled.stepUp)
    return stepUp === null ? ruled : { rule: 'gated', stepUp }
  }

  return {
    declared: (method, url, config) => {
      const rule = declaredRule(method, url, ruleOf(config))
      if (rule.stepUp !== null) sensitive.push({ test: routePattern(url), stepUp: rule.stepUp })
      return rule
    },
    of: (request, target, upgrade) => {
      if (upgrade) return ofUpgrade(request, target)
      const config = configOf(request)
      const rule = known.get(config)
      if (rule !== undefined) return rule
      const { url, postern } = config
      if (url === undefined || (url.includes('*') && postern !== OWN_ROUTE)) {
        // Whoever parses the path again must read what we read.
        const ruled = ofTarget(request.method, target)
        if ('refused' in ruled || postern === undefined) return ruled
        const declared = declaredRule(request.method, url ?? 'that is not found', postern)
        return (ruled.stepUp ?? declared.stepUp)
          ? { rule: 'gated', stepUp: strictest(ruled.stepUp, declared.stepUp) }
          : declared
      }
      const fresh = declaredRule(request.method, url, postern)
      if (url.includes(':') && postern !== OWN_ROUTE && settings.stepUpPatterns.length > 0) {
        // One route stands for many paths, and a pattern may mean one of them.
        const named = byPattern(request.method, pathOf(target))?.stepUp ?? null
        return named === null ? fresh : { rule: 'gated', stepUp: strictest(named, fresh.stepUp) }
      }
      // One route of several methods has one config: its pattern may name only one of them.
      if (postern !== undefined || settings.stepUpPatterns.length + settings.publicPatterns.length === 0) {
        known.set(config, fresh)
      }
      return fresh
    }
  }
}

function pathOf (target: string): string {
  const mark = target.indexOf('?')
  return mark === -1 ? target : target.slice(0, mark)
}

/** A declared route as a loose pattern of paths. */
function routePattern (url: string): (path: string) => boolean {
  const text = url.split('/').map(segment => (/^[^:*()]*$/.test(segment) ? segment : '*')).join('/')
  return pattern(text.startsWith('/') ? text : `/${text}`, 'loose').test
}

interface RouteConfig {
  readonly url?: string
  readonly postern?: RouteRule | undefined
}

function configOf (request: FastifyRequest): object & RouteConfig {
  return request.routeOptions.config
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
