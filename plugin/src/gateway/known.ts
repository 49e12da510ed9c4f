// The console as its preset describes it, with the calls to it that are the gateway's own.

import type { Failed, Upstream } from '../proxy/exchange.ts'
import type { ConsoleKnown } from './preset.ts'
import { ConfigError, listed, type Config } from './settings.ts'

export interface Clocks {
  readonly now: () => number
  readonly today: () => number
}

/** Throws ConfigError with everything that the preset finds wrong. */
export function createKnown (
  config: Config,
  read: Upstream['read'],
  clocks: Clocks,
  warn: (sentence: string) => void
): ConsoleKnown {
  const { host } = new URL(config.publicOrigin)
  const mistakes: string[] = []
  const known = config.preset.create({
    value: name => config.presetValues.get(name),
    list: name => listed(config.presetValues.get(name) ?? ''),
    wrong: sentence => { mistakes.push(sentence) },
    warn,
    publicOrigin: config.publicOrigin,
    prefix: config.prefix,
    trustedProxies: config.trustedProxies,
    today: clocks.today,
    now: clocks.now,
    call: async ({ method, path, headers = {}, body }) => {
      const answer = await read({
        method,
        path,
        headers: ['host', host, 'accept-encoding', 'identity', ...Object.entries(headers).flat()],
        body: body === undefined ? undefined : Buffer.from(body)
      })
      if ('failed' in answer) throw Object.assign(new Error('the console did not answer'), answer)
      return answer
    }
  })
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  return known
}

// The one narrowing of this boundary: the error that a call rejects with.
export function isUpstreamError (error: unknown): error is Error & Failed {
  return error instanceof Error && 'failed' in error
}
