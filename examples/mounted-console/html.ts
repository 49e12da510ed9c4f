// Templates that escape what is put into them.

/** Markup that needs no escaping any more. */
export interface Html {
  readonly markup: string
}

type Piece = string | number | Html | null | undefined | false | readonly Piece[]

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

export function html (strings: TemplateStringsArray, ...pieces: readonly Piece[]): Html {
  return { markup: strings.reduce((text, string, i) => text + render(pieces[i - 1]) + string) }
}

function render (piece: Piece): string {
  if (piece === null || piece === undefined || piece === false) return ''
  if (Array.isArray(piece)) return piece.map(render).join('')
  if (typeof piece === 'object' && 'markup' in piece) return piece.markup
  return String(piece).replace(/[&<>"']/g, character => ENTITIES[character] ?? '')
}
