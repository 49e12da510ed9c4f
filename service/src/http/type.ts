// JSON Schemas with the types of TypeBox. The schemas are plain objects, while its library is 700 modules, an eighth of
// a start and 10 MB: only its types are used.

import type { Type as TypeBox } from 'typebox'

type Schema = Readonly<Record<string, unknown>>

const optional = new WeakSet<Schema>()

const builders = {
  Array: (items: Schema, options?: Schema): Schema => ({ type: 'array', items, ...options }),
  Boolean: (options?: Schema): Schema => ({ type: 'boolean', ...options }),
  Integer: (options?: Schema): Schema => ({ type: 'integer', ...options }),
  Literal: (value: string | boolean, options?: Schema): Schema => ({ type: typeof value, const: value, ...options }),
  Null: (options?: Schema): Schema => ({ type: 'null', ...options }),
  Object: (properties: Readonly<Record<string, Schema>>, options?: Schema): Schema => {
    const required = Object.entries(properties).filter(([, schema]) => !optional.has(schema)).map(([name]) => name)
    return { type: 'object', ...(required.length > 0 ? { required } : {}), properties, ...options }
  },
  Optional: (schema: Schema): Schema => {
    const copy = { ...schema }
    optional.add(copy)
    return copy
  },
  String: (options?: Schema): Schema => ({ type: 'string', ...options }),
  Union: (anyOf: readonly Schema[], options?: Schema): Schema => ({ anyOf, ...options })
}

// The one narrowing of this boundary: what is built has the form that TypeBox's own builders give it.
export const Type = builders as unknown as Pick<typeof TypeBox, keyof typeof builders>
