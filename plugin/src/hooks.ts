// Carries the gate's decisions out in Fastify's hooks. Denials throw, after the answer is out.

import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Answering } from './carry.ts'
import { takeCode } from './forms.ts'
import { openPassage, refuse, stateOf, type Decision, type Denial, type Gate, type Passage } from './gate.ts'
import type { Clock, PosternState } from './model.ts'
import type { Settings } from './options.ts'
import { mediaType, readFormBody, sameOrigin } from './requests.ts'
import type { Sockets, Upgrade } from './sockets.ts'
import { takeCodeFromBody, type StepUp } from './step-up.ts'

export interface HooksParts {
  readonly settings: Settings
  readonly gate: Gate
  readonly stepUp: StepUp
  readonly answering: Answering
  readonly sockets: Sockets
  readonly now: Clock
  /** Mode `off`, until its end. */
  readonly isOff: () => boolean
}

type Done = (error?: Error) => void
type DonePayload = (error?: Error | null, payload?: Readable) => void

// eslint wants no classes: the error that ends a denied request after its answer is out.
function denied (): Error {
  return Object.assign(new Error('postern denied this request; its answer has been sent'), {
    code: 'POSTERN_DENIED',
    statusCode: 403
  })
}

const NOT_PASSED: Pick<Passage, 'state' | 'answer'> = { state: undefined, answer: undefined }
const UNSEEN: PosternState = { status: 'anonymous', totp: null, stepUp: null, expiresIn: null }
const OBSERVED: PosternState = { status: 'observed', totp: null, stepUp: null, expiresIn: null }
const OFF: PosternState = { status: 'off', totp: null, stepUp: null, expiresIn: null }

// On the request itself: a weak map of all requests costs the collector more than the gate does.
const PASSAGE = Symbol('postern passage')

interface Marks {
  [PASSAGE]?: Passage
}

// Where the mark of a request is: on Node's own, which other code of the console may hold too.
const marks = (raw: IncomingMessage & Marks): Marks => raw

export function createHooks ({ settings, gate, stepUp, answering, sockets, now, isOff }: HooksParts) {
  const observed: Record<string, number> = {}

  function passageOf (request: FastifyRequest): Passage {
    const passage = marks(request.raw)[PASSAGE]
    if (passage === undefined) throw new Error('postern: the gate did not see this request')
    return passage
  }

  /** Sends the answer and waits until it is out; what comes after it never runs, whatever hooks do to the answer. */
  async function carryOut (passage: Passage, denial: Denial, reply: FastifyReply): Promise<Error> {
    await answering.carry(passage, denial, reply)
    await new Promise<void>(resolve => {
      reply.then(resolve, () => {
        resolve()
      })
    })
    // A client that hung up counts as answered for Fastify: without this the handler would run.
    if (!reply.sent) reply.hijack()
    return denied()
  }

  function settle (
    passage: Passage,
    decision: Decision,
    reply: FastifyReply,
    passed: () => void,
    refused: (error: Error) => void
  ): void {
    if (decision.decision === 'pass') {
      passage.state = decision.state
      return passed()
    }
    if (decision.decision === 'read_body') return refused(new Error('postern: nothing more to read'))
    if (settings.mode.mode === 'observe') {
      const { denial } = decision
      const code = denial.denial === 'refused' || denial.denial === 'unavailable' ? denial.code : denial.denial
      observed[code] = (observed[code] ?? 0) + 1
      passage.request.log.warn({ postern: code }, 'postern would have refused this request')
      passage.state = OBSERVED
      return passed()
    }
    carryOut(passage, decision.denial, reply).then(refused, refused)
  }

  /** Session, credentials and login: after every onRequest hook, before any body is read. */
  function posternGate (request: FastifyRequest, reply: FastifyReply, payload: Readable, done: DonePayload): void {
    const upgrade = sockets.upgradeOf(request)
    const passage = openPassage(request, request.raw.url ?? '', upgrade !== undefined)
    marks(request.raw)[PASSAGE] = passage
    const off = isOff()
    if (off) passage.state = OFF
    if (upgrade !== undefined) return gateUpgrade(passage, upgrade, off, reply, done)
    if (off) return done(null, payload)
    const decision = gate.decide(passage)
    if (!(decision instanceof Promise)) return decided(passage, decision, payload, reply, done)
    decision.then(one => { decided(passage, one, payload, reply, done) }).catch(done)
  }

  function decided (
    passage: Passage,
    decision: Decision,
    payload: Readable,
    reply: FastifyReply,
    done: DonePayload
  ): void {
    if (decision.decision === 'pass') {
      passage.state = decision.state
      done(null, payload)
    } else if (decision.decision === 'read_body') readBody(passage, payload, reply, done)
    else settle(passage, decision, reply, () => { done(null, payload) }, done)
  }

  /** An upgrade ends here: whoever listens for it takes the socket, and no handler runs. */
  function gateUpgrade (
    passage: Passage,
    upgrade: Upgrade,
    off: boolean,
    reply: FastifyReply,
    done: DonePayload
  ): void {
    const go = (): void => {
      reply.hijack()
      sockets.pass(upgrade, passage.rule.rule === 'gated' ? passage.who : undefined)
    }
    if (off) return go()
    const decided = (one: Decision): void => { settle(passage, one, reply, go, done) }
    const decision = decideUpgrade(passage)
    if (decision instanceof Promise) decision.then(decided).catch(done)
    else decided(decision)
  }

  function decideUpgrade (passage: Passage): Decision | Promise<Decision> {
    const { method, headers: { origin } } = passage.request
    if (method !== 'GET') return refuse(400, 'bad_request', 'an upgrade that is not a GET')
    if (origin !== undefined && !sameOrigin(passage.request, settings.publicOrigin)) { return refuse(403, 'origin_refused', 'a socket from another origin') }
    return gate.decide(passage)
  }

  /** A form is read here, as bytes, so that it can be carried and loses its code before anybody parses it. */
  function readBody (passage: Passage, payload: Readable, reply: FastifyReply, done: DonePayload): void {
    const { request } = passage
    if (mediaType(request) !== 'application/x-www-form-urlencoded') {
      passage.bodyDecides = true
      return done(null, payload)
    }
    const refused = (decision: Decision): void => {
      settle(passage, decision, reply, () => { done(null, payload) }, done)
    }
    readFormBody(request, payload)
      .then(async body => {
        if (body === undefined) {
          return refused(refuse(413, 'form_too_large', 'a form that is too large to be carried through a verification'))
        }
        const { code, rest } = takeCode(body)
        if (code === null) return refused(refuse(400, 'bad_request', 'more than one code'))
        passage.form = rest
        const decision = await stepUp.afterBody(passage, code)
        request.raw.headers['content-length'] = String(rest.length)
        delete request.raw.headers['transfer-encoding']
        const stripped = Object.assign(Readable.from(rest.length === 0 ? [] : [rest], { objectMode: false }), {
          receivedEncodedLength: rest.length
        })
        settle(passage, decision, reply, () => { done(null, stripped) }, done)
      })
      .catch(done)
  }

  /** The inline code of a parsed body, taken out before schema and handler see it. */
  function posternCode (request: FastifyRequest, reply: FastifyReply, done: Done): void {
    const passage = marks(request.raw)[PASSAGE]
    if (passage === undefined) return done(new Error('postern: the gate did not see this request'))
    const waits = passage.bodyDecides
    if ((!waits && (request.body === undefined || passage.rule.rule !== 'gated')) || isOff()) return done()
    const code = takeCodeFromBody(request)
    if (code === null) return settle(passage, refuse(400, 'bad_request', 'more than one code'), reply, done, done)
    passage.code ??= code
    if (!waits) return done()
    passage.bodyDecides = false
    stepUp
      .afterBody(passage, passage.code)
      .then(decision => {
        settle(passage, decision, reply, done, done)
      })
      .catch(done)
  }

  /** A console that loads its session later than onRequest would have everybody pass as nobody. */
  function posternLateIdentity (request: FastifyRequest, reply: FastifyReply, done: Done): void {
    const passage = marks(request.raw)[PASSAGE]
    if (passage === undefined) return done(new Error('postern: the gate did not see this request'))
    if (passage.identity !== null || passage.rule.rule !== 'gated' || isOff()) return done()
    Promise.resolve(settings.identify(request))
      .then(late => {
        if (late === null) return done()
        request.log.error(
          'postern: "identify" found nobody before the body was read and somebody after it; load the session in an onRequest hook'
        )
        settle(passage, refuse(500, 'identity_late', 'the session was loaded after the gate'), reply, done, done)
      })
      .catch(done)
  }

  return {
    posternGate,
    posternCode,
    posternLateIdentity,
    settle,
    /** What a request has told so far; throws for one that the gate did not see. */
    passageOf,
    passageOfRaw: (raw: IncomingMessage): Passage | undefined => marks(raw)[PASSAGE],
    stateOf: (request: FastifyRequest): PosternState => {
      const { state, answer } = marks(request.raw)[PASSAGE] ?? NOT_PASSED
      return state === null && answer !== undefined ? stateOf(answer, now) : state ?? UNSEEN
    },
    /** What mode `observe` would have refused, by code. */
    observed: (): Readonly<Record<string, number>> => ({ ...observed })
  }
}
