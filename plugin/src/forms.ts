// Posted forms as bytes: order, duplicates and charset stay as the browser sent them.

/** The field and header of an inline code. */
export const CODE_FIELD = '2fa-code'

/** Largest form that is carried through a step-up. */
export const FORM_LIMIT = 65_536

export interface Field {
  readonly name: string
  readonly value: string
}

export type FormReading =
  | { readonly fields: readonly Field[]; readonly charset: 'utf-8' | 'windows-1252' }
  /** It holds what a hidden field cannot send again. */
  | { readonly unfit: string }

/** Splits off the code: what is left is byte for byte what came. `null` = several codes. */
export function takeCode (body: Buffer): { readonly code: string | null | undefined; readonly rest: Buffer } {
  const pairs = body.toString('latin1').split('&')
  const codes = pairs.filter(isCode)
  if (codes.length === 0) return { code: undefined, rest: body }
  const code =
    codes.length > 1 ? null : unescapedBytes(codes[0]?.slice(codes[0].indexOf('=') + 1) ?? '').toString('utf8')
  return { code, rest: Buffer.from(pairs.filter(pair => !isCode(pair)).join('&'), 'latin1') }
}

/**
 * Reads a form so that a page can carry it. Bytes that are not UTF-8 travel as windows-1252, in which every byte has
 * a character.
 */
export function readForm (body: Buffer): FormReading {
  const pairs = body
    .toString('latin1')
    .split('&')
    .filter(pair => pair !== '')
    .map(pair => {
      const equals = pair.indexOf('=')
      return {
        name: unescapedBytes(equals === -1 ? pair : pair.slice(0, equals)),
        value: unescapedBytes(equals === -1 ? '' : pair.slice(equals + 1))
      }
    })
  if (pairs.some(({ name }) => name.length === 0)) return { unfit: 'a field without a name' }
  if (pairs.some(({ name, value }) => name.includes(0) || value.includes(0))) return { unfit: 'a zero byte' }
  const charset = pairs.every(({ name, value }) => isUtf8(name) && isUtf8(value)) ? 'utf-8' : 'windows-1252'
  const decoder = new TextDecoder(charset, { ignoreBOM: true })
  return {
    charset,
    fields: pairs.map(({ name, value }) => ({ name: decoder.decode(name), value: decoder.decode(value) }))
  }
}

function isCode (pair: string): boolean {
  const equals = pair.indexOf('=')
  return (
    unescapedBytes(equals === -1 ? pair : pair.slice(0, equals))
      .toString('latin1')
      .toLowerCase()
      .replaceAll('_', '-') === CODE_FIELD
  )
}

function isUtf8 (bytes: Buffer): boolean {
  return Buffer.from(bytes.toString('utf8')).equals(bytes)
}

function unescapedBytes (text: string): Buffer {
  return Buffer.from(
    text
      .replaceAll('+', ' ')
      .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1'
  )
}
