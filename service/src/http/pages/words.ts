// Languages of the pages: words, plurals, times and dates. No text stands in code.

import { readFileSync } from 'node:fs'
import { once } from '../once.ts'
import { PACKAGE_FOLDER } from '../../package-folder.ts'

type Plural = Readonly<Partial<Record<Intl.LDMLPluralRule, string>>>
type Table = ReadonlyMap<string, string | Plural>

export interface Words {
  /** BCP 47 tag of the page. */
  readonly language: string
  /** The words of a key; `count` chooses the plural. Unknown keys are a programming mistake. */
  readonly say: (key: string, values?: Readonly<Record<string, string | number>>) => string
  readonly has: (key: string) => boolean
  /** `40 seconds`, `4 minutes`: rounded up. */
  readonly time: (seconds: number) => string
  readonly date: (at: number) => string
}

export interface Languages {
  /** Every language with its own name. */
  readonly names: readonly { readonly tag: string; readonly name: string }[]
  /** The best of what was asked for, in order: chosen on the page, the browser's list, what the console says. */
  readonly choose: (...asked: readonly (string | undefined)[]) => Words
}

const TAGS = ['en', 'zh-CN'] as const
const FALLBACK = 'en'

function isPlural (value: unknown): value is Plural {
  return typeof value === 'object' && value !== null && Object.values(value).every(one => typeof one === 'string')
}

function load (tag: string): Table {
  const parsed: unknown = JSON.parse(readFileSync(new URL(`locales/${tag}.json`, PACKAGE_FOLDER), 'utf8'))
  if (typeof parsed !== 'object' || parsed === null) throw new TypeError(`locales/${tag}.json is not an object`)
  return new Map(
    Object.entries(parsed).map(([key, value]: [string, unknown]) => {
      if (typeof value !== 'string' && !isPlural(value)) throw new TypeError(`locales/${tag}.json: ${key}`)
      return [key, value]
    })
  )
}

/**
 * `zh`, `zh-Hans-SG` and `zh-CN` are read as zh-CN; traditional Chinese falls to English until it has words of its
 * own.
 */
function matching (tag: string): string | undefined {
  const lower = tag.toLowerCase()
  if (lower === 'zh' || /^zh-(cn|sg|hans)/.test(lower)) return 'zh-CN'
  return TAGS.find(one => one.toLowerCase() === lower || one === lower.split('-')[0])
}

/** Tags of an Accept-Language list, most wanted first. */
function wanted (list: string): readonly string[] {
  return list
    .slice(0, 500)
    .split(',')
    .map(part => {
      const [tag = '', ...parameters] = part.trim().split(';')
      const quality = parameters
        .map(one => /^\s*q=([01](?:\.\d{0,3})?)\s*$/.exec(one)?.[1])
        .find(one => one !== undefined)
      return { tag, quality: quality === undefined ? 1 : Number(quality) }
    })
    .filter(({ quality }) => quality > 0)
    .sort((a, b) => b.quality - a.quality)
    .map(({ tag }) => tag)
}

export function loadLanguages (): Languages {
  const tables = new Map<string, Table>(TAGS.map(tag => [tag, load(tag)]))
  const wordsOf = (tag: string): Words => {
    const table = tables.get(tag) ?? new Map()
    // Made when first said: they took 24 ms of a start.
    const plural = once(() => new Intl.PluralRules(tag))
    const date = once(() => new Intl.DateTimeFormat(tag, { dateStyle: 'long', timeZone: 'UTC' }))
    const say: Words['say'] = (key, values = {}) => {
      const found = table.get(key)
      if (found === undefined) throw new TypeError(`no words for ${key}`)
      const { count } = values
      const text =
        typeof found === 'string'
          ? found
          : (found[typeof count === 'number' ? plural().select(count === 1 ? 1 : count) : 'other'] ?? found.other ?? '')
      // Chinese has one plural form; where a language gives words for exactly one, they are used.
      const exact = typeof found !== 'string' && count === 1 && found.one !== undefined ? found.one : text
      return exact.replace(/\{(\w+)\}/g, (_: string, name: string) => String(values[name] ?? ''))
    }
    return {
      language: tag,
      say,
      has: key => table.has(key),
      time: seconds =>
        seconds < 60
          ? say('time.seconds', { count: Math.max(1, seconds) })
          : say('time.minutes', { count: Math.ceil(seconds / 60) }),
      date: at => date().format(at)
    }
  }
  const all = new Map(TAGS.map(tag => [tag as string, wordsOf(tag)]))
  const fallback = wordsOf(FALLBACK)
  return {
    names: TAGS.map(tag => ({ tag, name: all.get(tag)?.say('language') ?? tag })),
    choose: (...asked) => {
      for (const list of asked) {
        for (const tag of list === undefined ? [] : wanted(list)) {
          const found = all.get(matching(tag) ?? '')
          if (found !== undefined) return found
        }
      }
      return fallback
    }
  }
}
