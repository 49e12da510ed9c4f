// A console's login answer is kept until the code is right: with the challenge and sealed, so that any replica can
// release it.

import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { browserName } from '../binding.ts'
import { whoIs } from '../gate.ts'
import type { By, LoggedIn } from '../model.ts'
import type { Inside } from '../inside.ts'
import type { Answered } from '../proxy/exchange.ts'
import type { Seal } from '../seal.ts'
import type { AskedFor, Held, HeldAnswer, Login } from './preset.ts'

export interface Holding extends Held {
  /** Keeps the answer and opens a challenge; `released` where no code is asked for. */
  readonly hold: (
    request: FastifyRequest,
    reply: FastifyReply,
    login: Login,
    device: string,
    answer: Answered
  ) => Promise<{ readonly asked: 'released' } | AskedFor>
  /** The answer that a page of ours released; undefined where it cannot be read. */
  readonly unsealed: (held: string) => Answered | undefined
}

/** What the service keeps with a challenge. */
const LONGEST = 16_384

export function createHolding ({ inside, seal, prefix, publicOrigin }: {
  readonly inside: Inside
  readonly seal: Seal
  readonly prefix: string
  readonly publicOrigin: string
}): Holding {
  const { client, assurances, binding, pageCookie, about } = inside

  const unsealed: Holding['unsealed'] = held => {
    const bytes = seal.open('held', held)
    if (bytes === undefined) return undefined
    const { status, headers, body } = parsedAnswer(bytes)
    return { status, headers, body: Buffer.from(body, 'base64') }
  }

  /** Its own browser: a native client keeps no cookies, so `none`; a browser is bound by this very answer. */
  function bind (request: FastifyRequest, reply: FastifyReply, login: Login) {
    const presented = inside.passageOf(request.raw)?.presented.binding ?? ''
    const value = login.ask === 'client' ? '' : binding.wellFormed(presented) ? presented : binding.fresh()
    const who = whoIs(login.identity, value)
    if (value !== '') void reply.header('set-cookie', binding.cookie(value))
    const by: By = { ...assurances.by(who), browser: browserName(value) }
    return { by, value }
  }

  return {
    unsealed,

    hold: async (request, reply, login, device, answer) => {
      // The console's own word for a login that needs no code; the service says whether the tenant takes it.
      if (login.identity.exempt !== undefined) {
        const standing = await assurances.ask(whoIs(login.identity, ''))
        if (standing.standing === 'passed' && !standing.grace) return { asked: 'released' }
      }
      const { by, value } = bind(request, reply, login)
      const { identity } = login
      const held = seal.close('held', JSON.stringify({ ...answer, body: answer.body.toString('base64') }))
      if (held.length > LONGEST) return { asked: 'unavailable', retryAfter: 5, code: 'held_too_long' }
      const opened = await client.open({
        by,
        purpose: 'login',
        about: about(request, whoIs(identity, value)),
        held,
        ...(login.ask === 'page' ? { returnPath: login.returnPath ?? '/' } : {})
      })
      if (opened.outcome === 'away') return { asked: 'unavailable', retryAfter: opened.retryAfter, code: 'unavailable' }
      if (opened.outcome === 'problem') {
        const { code, retryAfter = 30 } = opened.problem
        if (code !== 'enrolment_required') return { asked: 'unavailable', retryAfter, code }
        if (login.ask === 'page') void reply.header('set-cookie', pageCookie.cookie(identity, { next: 'enrol' }))
        return { asked: 'enrol', enrolUrl: `${publicOrigin}${prefix}/enrol` }
      }
      if (opened.answer.status !== 'open') return { asked: 'released' }
      const { challenge } = opened.answer
      if (login.ask === 'page') void reply.header('set-cookie', pageCookie.cookie(identity, { next: `verify/${challenge.id}` }))
      const { kind, session } = identity
      const ticket: Ticket = { challenge: challenge.id, by, device, identity: { kind, session } }
      return {
        asked: 'code',
        challenge,
        secret: login.ask === 'client' ? seal.close('secret', JSON.stringify(ticket)) : '',
        verifyUrl: `${prefix}/verify/${challenge.id}`
      }
    },

    answer: async (secret, device, code, request): Promise<HeldAnswer> => {
      const bytes = secret.length > 4096 ? undefined : seal.open('secret', secret)
      if (bytes === undefined) return { held: 'unknown' }
      const ticket = parsedTicket(bytes)
      if (ticket.device !== device) return { held: 'unknown' }
      const { challenge, by } = ticket
      const agent = request.headers['user-agent']
      const asked = await client.verify({
        challenge,
        by,
        about: {
          address: request.ip.slice(0, 64),
          ...(agent === undefined ? {} : { user_agent: agent.slice(0, 512) })
        },
        code: code.slice(0, 64),
        // An equal repeat is answered alike, whichever replica it comes to.
        key: createHash('sha256').update(`${challenge}\0${code}`).digest('base64url')
      })
      if (asked.outcome === 'away') return { held: 'away', retryAfter: asked.retryAfter }
      if (asked.outcome === 'problem') return { held: 'refused', problem: asked.problem }
      assurances.forgetSession(ticket.identity.kind, ticket.identity.session)
      const answer = asked.answer.held === undefined ? undefined : unsealed(asked.answer.held)
      return answer === undefined ? { held: 'unknown' } : { held: 'released', answer }
    }
  }
}

interface Ticket {
  readonly challenge: string
  readonly by: By
  readonly device: string
  readonly identity: Pick<LoggedIn, 'kind' | 'session'>
}

// The narrowing functions of this boundary: what only we can have sealed.
function parsedTicket (bytes: Buffer): Ticket {
  return JSON.parse(bytes.toString('utf8')) as Ticket
}
function parsedAnswer (bytes: Buffer): Omit<Answered, 'body'> & { readonly body: string } {
  return JSON.parse(bytes.toString('utf8')) as Omit<Answered, 'body'> & { readonly body: string }
}
