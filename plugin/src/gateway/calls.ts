// Reading what a call or an answer says, strictly: JSON objects and forms, one value a name.

import type { FastifyRequest } from 'fastify'
import { readForm } from '../forms.ts'
import type { Reply } from './preset.ts'

/** Largest login call that is looked at. */
export const CALL_LIMIT = 65_536

/** The body in memory; undefined past the limit. */
export async function readBody (stream: AsyncIterable<Buffer | string>): Promise<Buffer | undefined> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of stream) {
    const bytes = Buffer.from(part)
    length += bytes.length
    if (length > CALL_LIMIT) return undefined
    parts.push(bytes)
  }
  return Buffer.concat(parts)
}

/** The fields of a call. JSON is read whatever the type says, because consoles do. */
export function fieldsOf (request: FastifyRequest, body: Buffer): Readonly<Record<string, unknown>> {
  if (body.length === 0) return {}
  const { rawHeaders } = request.raw
  const type = rawHeaders[rawHeaders.findIndex((one, i) => i % 2 === 0 && one.toLowerCase() === 'content-type') + 1] ?? ''
  if (!/^\s*application\/x-www-form-urlencoded\s*(?:;|$)/i.test(type)) return objectIn(body)
  const reading = readForm(body)
  return 'fields' in reading ? Object.fromEntries(reading.fields.map(({ name, value }) => [name, value])) : {}
}

// The one narrowing of this boundary: JSON that somebody else wrote, as something whose members may be looked at.
export function objectIn (body: Buffer): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Readonly<Record<string, unknown>> : {}
  } catch {
    return {}
  }
}

/** What stands at `data.user.id`. */
export function at (value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((inner, name) =>
    typeof inner === 'object' && inner !== null && Object.hasOwn(inner, name) ? Reflect.get(inner, name) : undefined, value)
}

/** A text that is there, or a whole number as text. */
export function textAt (value: unknown, path: string): string | undefined {
  const found = at(value, path)
  if (typeof found === 'number' && Number.isSafeInteger(found)) return String(found)
  return typeof found === 'string' && found !== '' ? found : undefined
}

/** The value of a cookie as it came; the gate has refused a request that sends it twice. */
export function cookieIn (request: FastifyRequest, name: string): string | undefined {
  const pair = (request.headers.cookie ?? '').split(';').map(one => one.trim()).find(one => one.startsWith(`${name}=`))
  return pair?.slice(name.length + 1)
}

export function jsonReply (status: number, body: unknown): Reply {
  return { status, headers: { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' }, body: JSON.stringify(body) }
}
