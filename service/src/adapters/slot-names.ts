// How slots and their subjects are named in motion: no user name stands in a key, and no name can move one.

import type { By, SlotKind } from '../domain/model.ts'
import type { Randomness, Sealer } from '../domain/ports.ts'

const KINDS = ['login', 'step_up', 'enrol_totp', 'enrol_email', 'proof'] as const satisfies readonly SlotKind[]
/** Set in the kind byte of a slot that keeps a held answer and so has a key of its own. */
const HELD = 0x80
const TAG_BYTES = 12
const ID_BYTES = TAG_BYTES + 1 + 16
/** Calls under way whose names are kept. */
const CALLS = 64

export interface SlotId {
  readonly kind: SlotKind
  readonly held: boolean
  /** 128 random bits, base64url. */
  readonly random: string
}

interface Names {
  readonly by: By
  readonly tag: Buffer
  readonly slots: Map<SlotKind, Buffer>
}

export function createSlotNames ({
  sealer,
  randomness
}: {
  readonly sealer: Sealer
  readonly randomness: Randomness
}) {
  const tagBytes = (tenant: string, subject: string): Buffer =>
    Buffer.from(sealer.keyedHash('tag', tenant, subject), 'base64url').subarray(0, TAG_BYTES)
  // A call names the keys of whoever asks several times over. In a ring, newest first looked at: a map that loses its
  // oldest for each call makes its table anew all the time, and that is what the large collections are for.
  const known: (Names | undefined)[] = Array.from({ length: CALLS })
  let newest = 0
  const of = (by: By): Names => {
    for (let i = 0; i < CALLS; i++) {
      const one = known[(newest - i + CALLS) % CALLS]
      if (one === undefined) break
      if (one.by === by) return one
    }
    const made = { by, tag: tagBytes(by.tenant, by.subject), slots: new Map<SlotKind, Buffer>() }
    newest = (newest + 1) % CALLS
    known[newest] = made
    return made
  }
  const slotBytes = (by: By, kind: SlotKind): Buffer => {
    const { slots } = of(by)
    let bytes = slots.get(kind)
    if (bytes === undefined) {
      const hash = sealer.keyedHash('slot', by.tenant, by.subject, by.session, by.browser, kind)
      bytes = Buffer.from(hash, 'base64url').subarray(0, 16)
      slots.set(kind, bytes)
    }
    return bytes
  }
  const idOf = (by: By, kind: SlotKind, held: boolean, random: Uint8Array): string =>
    Buffer.concat([
      of(by).tag,
      Buffer.of(KINDS.indexOf(kind) | (held ? HELD : 0)),
      random
    ]).toString('base64url')

  return {
    /** base64url of 12 bytes; the hash tag of all keys of a subject. */
    tag: (tenant: string, subject: string): string => tagBytes(tenant, subject).toString('base64url'),
    /** The same for whoever asks. */
    tagOf: (by: By): string => of(by).tag.toString('base64url'),
    /** 16 bytes: the slot of a `by` and kind. */
    slotBytes,
    /** The same as base64url. */
    slot: (by: By, kind: SlotKind): string => slotBytes(by, kind).toString('base64url'),
    /** A new id: tag, kind, 128 random bits. */
    newId: (by: By, kind: SlotKind, held: boolean): string => idOf(by, kind, held, randomness.bytes(16)),
    /** The id of a slot whose random part is known. */
    idOf: (by: By, kind: SlotKind, held: boolean, random: string): string =>
      idOf(by, kind, held, Buffer.from(random, 'base64url')),
    /** What an id says; `undefined` where its tag is not that of `by`: gone without a look. */
    read: (by: By, id: string): SlotId | undefined => {
      const bytes = Buffer.from(id, 'base64url')
      if (bytes.length !== ID_BYTES || bytes.toString('base64url') !== id) return undefined
      if (!bytes.subarray(0, TAG_BYTES).equals(of(by).tag)) return undefined
      const flags = bytes[TAG_BYTES] ?? 0
      const kind = KINDS[flags & 0x7f]
      return kind === undefined
        ? undefined
        : { kind, held: (flags & HELD) !== 0, random: bytes.subarray(TAG_BYTES + 1).toString('base64url') }
    }
  }
}

export type SlotNames = ReturnType<typeof createSlotNames>
