// What checks requests and writes answers, made from a route's schemas when the route is first asked. To make all of
// it took a quarter of a start, and 9 MB, for routes of which most processes are asked a few.

import type { FastifyInstance, FastifyServerOptions, onRequestHookHandler } from 'fastify'
import { once } from './once.ts'

type Factories = NonNullable<NonNullable<FastifyServerOptions['schemaController']>['compilersFactory']>
type SerializerFactory = NonNullable<Factories['buildSerializer']>

/** The part of the compiler's function that the framework uses; its own type also names what only its makers need. */
interface Validate {
  (data: unknown): unknown
  errors?: unknown
}
type ValidatorFactory = (external: unknown, options: unknown) => (definition: { readonly schema: unknown }) => Validate

export interface Compilers {
  /** For `schemaController`. */
  readonly compilersFactory: Factories
  /** Adds the hook that loads the compilers before the first request is looked at; the first of all hooks. */
  readonly loadOnUse: (app: FastifyInstance) => void
  readonly load: () => Promise<void>
}

export function createCompilers (): Compilers {
  let loading: Promise<void> | undefined
  let validators: ValidatorFactory | undefined
  let serializers: SerializerFactory | undefined

  const load = async (): Promise<void> => {
    const [ajv, stringify] = await Promise.all([import('@fastify/ajv-compiler'), import('@fastify/fast-json-stringify-compiler')])
    validators = ajv.default() as unknown as ValidatorFactory
    serializers = stringify.default()
  }
  const loadOnce = async (): Promise<void> => { await (loading ??= load()) }
  const loaded: onRequestHookHandler = (_request, _reply, done) => {
    if (validators !== undefined && serializers !== undefined) done()
    else loadOnce().then(() => { done() }, done)
  }

  return {
    compilersFactory: {
      buildValidator: asFactory((external, options) => {
        const compile = once(() => needed(validators)(external, options))
        return definition => {
          const validate = once(() => compile()(definition))
          // The framework reads the errors from the function that it called.
          const onUse: Validate = data => {
            const valid = validate()(data)
            onUse.errors = validate().errors
            return valid
          }
          return onUse
        }
      }),
      buildSerializer: (external, options) => {
        const compile = once(() => needed(serializers)(external, options))
        return definition => {
          const serialize = once(() => compile()(definition))
          return document => serialize()(document)
        }
      }
    },
    loadOnUse: app => { app.addHook('onRequest', loaded) },
    load: loadOnce
  }
}

function needed<T> (loaded: T | undefined): T {
  if (loaded === undefined) throw new TypeError('compilers are loaded with the first request')
  return loaded
}

/** The boundary to the framework's types, as above. */
function asFactory (factory: ValidatorFactory): NonNullable<Factories['buildValidator']> {
  return factory as unknown as NonNullable<Factories['buildValidator']>
}
