// For a proxy that asks before it forwards: nginx auth_request, Traefik ForwardAuth, Caddy forward_auth.

import type { IncomingMessage } from 'node:http'
import { BlockList, isIPv6 } from 'node:net'
import { folded } from '../credentials.ts'
import { createWhoAmI, whoSettings } from '../gateway/who-am-i.ts'
import type { ConsoleKnown, Preset, PresetParts, Question } from '../gateway/preset.ts'
import { ELSEWHERE } from '../proxy/headers.ts'

export const forwardAuth: Preset = {
  name: 'forward-auth',
  text: 'a console behind nginx, Traefik or Caddy, which ask the gateway before they forward a request',
  settings: {
    forward_auth_path: { type: 'text', default: '/forward-auth', text: 'Where proxies ask. Only addresses of `POSTERN_GATEWAY_TRUSTED_PROXIES` may.' },
    ...whoSettings('forward_auth'),
    forward_auth_password: { type: 'list', text: 'Calls that change the password; all other verifications of the user end as such a call is let through.' },
    forward_auth_logout: { type: 'list', text: 'Calls that log out.' }
  },
  create: parts => createForwardAuth(parts)
}

function createForwardAuth (parts: PresetParts): ConsoleKnown {
  const { value, list, wrong, trustedProxies, prefix, publicOrigin } = parts
  const console = createWhoAmI(parts, 'forward_auth', 'let it make a new one at login')
  const path = value('forward_auth_path') ?? ''
  if (!/^(?:\/[A-Za-z0-9_-]+)+$/.test(path) || path === prefix || path.startsWith(`${prefix}/`)) {
    wrong('POSTERN_GATEWAY_FORWARD_AUTH_PATH must be a path like /forward-auth, and not one of the pages')
  }
  if (trustedProxies.length === 0) {
    wrong('POSTERN_GATEWAY_TRUSTED_PROXIES must name the addresses of the proxies that ask')
  }
  const trusted = addressesOf(trustedProxies)
  const { host, hostname } = new URL(publicOrigin)

  return {
    credentials: console.credentials,
    tokenInScript: console.tokenInScript,
    passwordPatterns: list('forward_auth_password'),
    logoutPatterns: list('forward_auth_logout'),
    identify: console.identify,
    passing: console.passing,
    logins: [],
    asked: {
      paths: new Map([[path, 'whole'], [`${path}/ask`, 'verdict'], [`${path}/explain`, 'reason']]),
      question: raw => {
        if (!trusted(raw.socket.remoteAddress ?? '')) return { refused: 'only the proxies that the gateway trusts may ask', status: 403 }
        return questionIn(raw, named => named === host || named === hostname)
      }
    }
  }
}

/** What a proxy says of the original request, in exactly one header each. */
function questionIn ({ rawHeaders }: IncomingMessage, ownHost: (named: string) => boolean): Question {
  const said = new Map<string, string>()
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = folded(rawHeaders[i] ?? '')
    // The proxy forwards what the client sent: what would name another request to the console.
    if (ELSEWHERE.has(name)) return bad(`the header ${name}, which servers take for another path or method`)
    if (!ORIGINAL.has(name)) continue
    if (said.has(name)) return bad(`more than one header ${name}`)
    said.set(name, rawHeaders[i + 1] ?? '')
  }
  const method = said.get('x-forwarded-method') ?? ''
  const target = said.get('x-forwarded-uri') ?? ''
  if (!/^[A-Z]{1,20}$/.test(method) || target === '') return bad('the proxy does not say which request it asks about')
  if (!ownHost((said.get('x-forwarded-host') ?? '').toLowerCase())) return bad('the request is for another host than that of the public origin')
  return { method, target }
}

const ORIGINAL = new Set(['x-forwarded-method', 'x-forwarded-uri', 'x-forwarded-host'])

function bad (refused: string): Question {
  return { refused, status: 400 }
}

/** More proxies than anybody has; others ask too, where the port is open to them. */
const ADDRESSES_KEPT = 100

/** Is an address in these networks? To look it up costs more than the rest of a question, so the verdicts are kept. */
function addressesOf (networks: readonly string[]): (address: string) => boolean {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits] = network.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  const verdicts = new Map<string, boolean>()
  return address => {
    const kept = verdicts.get(address)
    if (kept !== undefined) return kept
    const verdict = list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
    if (verdicts.size >= ADDRESSES_KEPT) verdicts.clear()
    verdicts.set(address, verdict)
    return verdict
  }
}
