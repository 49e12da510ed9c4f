// What mails say: the words of mails/<language>.json, filled in. No text stands in code.

import { readdirSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { CODES, NOTICES } from '../domain/messages.ts'
import { mailPage } from './mail-page.ts'
import type { Letter } from './mail-transport.ts'
import { describeUserAgent } from './user-agent.ts'
import { PACKAGE_FOLDER } from '../package-folder.ts'

/** A sentence, or sentences for certain values of one value (`by`), as `{ "by": "left", "1": …, "other": … }`. */
type Phrase = string | ReadonlyMap<string, string>

interface Message {
  readonly subject: string
  readonly text: readonly Phrase[]
  /** What stands over browser, time and address. */
  readonly who?: string | undefined
  /** What to do if it was not you. */
  readonly notYou: string
}

interface Language {
  readonly tag: string
  readonly script: string
  readonly words: ReadonlyMap<string, string>
  readonly messages: ReadonlyMap<string, Message>
}

export interface MailTexts {
  /** A mail in the language asked for, else in English; undefined where no message has this name. */
  readonly write: (
    message: string,
    locale: string | null | undefined,
    values: Readonly<Record<string, string>>,
    at: number
  ) => Letter | undefined
}

const FOLDER = new URL('mails/', PACKAGE_FOLDER)
const FALLBACK = 'en'
const WORDS = ['browser', 'browser_on', 'time', 'ip_address', 'unknown', 'footer'] as const

/** Reads every language; one that lacks a message or has one too many is a programming mistake. */
export function loadMailTexts (): MailTexts {
  const languages = readdirSync(FOLDER).filter(file => file.endsWith('.json')).map(readLanguage)
  const byScript = new Map(languages.map(language => [language.script, language]))
  const fallback = languages.find(({ tag }) => tag === FALLBACK)
  if (fallback === undefined) throw new TypeError(`mails/${FALLBACK}.json is missing`)
  return {
    write: (message, locale, values, at) => {
      const language = byScript.get(scriptOf(locale ?? FALLBACK) ?? '') ?? fallback
      const entry = language.messages.get(message)
      return entry === undefined ? undefined : compose(language, entry, plainValues(values), at)
    }
  }
}

/** `zh`, `zh-CN` and `zh-SG` are written in one script, `zh-TW` in another. */
function scriptOf (tag: string): string | undefined {
  try {
    const { language, script } = new Intl.Locale(tag).maximize()
    return `${language}-${script ?? ''}`
  } catch {
    return undefined
  }
}

function readLanguage (file: string): Language {
  const tag = file.slice(0, -'.json'.length)
  const wrong = (what: string) => new TypeError(`mails/${file}: ${what}`)
  const open = (given: unknown, what: string): Map<string, unknown> => {
    if (typeof given !== 'object' || given === null || Array.isArray(given)) throw wrong(what)
    return new Map(Object.entries(given))
  }
  const text = (given: unknown, what: string): string => {
    if (typeof given !== 'string' || given === '') throw wrong(what)
    return given
  }
  const texts = (given: unknown, what: string): Map<string, string> =>
    new Map([...open(given, what)].map(([name, value]) => [name, text(value, `${what} ${name}`)]))
  const all = open(JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')), 'not an object')

  const words = texts(all.get('words'), 'words')
  const messages = new Map([...open(all.get('messages'), 'messages')].map(([name, given]): [string, Message] => {
    const entry = open(given, name)
    const phrases = entry.get('text')
    if (!Array.isArray(phrases) || phrases.length === 0) throw wrong(`${name} text`)
    return [name, {
      subject: text(entry.get('subject'), `${name} subject`),
      text: phrases.map((one: unknown) => typeof one === 'string' ? one : texts(one, `${name} text`)),
      who: entry.has('who') ? text(entry.get('who'), `${name} who`) : undefined,
      notYou: text(entry.get('not_you'), `${name} not_you`)
    }]
  }))
  for (const [found, needed] of [[words, WORDS], [messages, [...CODES, ...NOTICES]]] as const) {
    const names = new Set<string>(needed)
    const odd = [...names].filter(name => !found.has(name)).concat([...found.keys()].filter(name => !names.has(name)))
    if (odd.length > 0) throw wrong(`missing or not used: ${odd.join(', ')}`)
  }
  return { tag, script: scriptOf(tag) ?? tag, words, messages }
}

/** Nobody's value breaks a line, turns the direction of writing or fills a mail. */
function plainValues (values: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
  return new Map(Object.entries(values).map(([name, value]) =>
    [name, value.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]+/gu, ' ').slice(0, 256)]))
}

type Values = ReadonlyMap<string, string>

function fill (phrase: Phrase, values: Values): string {
  const text = typeof phrase === 'string'
    ? phrase
    : phrase.get(values.get(phrase.get('by') ?? '') ?? '') ?? phrase.get('other') ?? ''
  return text.replace(/\{(\w+)\}/g, (_: string, name: string) => values.get(name) ?? '')
}

/** Who asked: each fact that is known, on a line of its own. */
function factsOf ({ words }: Language, values: Values, at: number): readonly string[] {
  const line = (word: (typeof WORDS)[number], value: string) =>
    fill(words.get(word) ?? '', new Map([['value', value]]))
  const facts: string[] = []
  const userAgent = values.get('browser') ?? ''
  if (userAgent !== '') {
    const { name = words.get('unknown') ?? '', system } = describeUserAgent(userAgent)
    const both = fill(words.get('browser_on') ?? '', new Map([['name', name], ['system', system ?? '']]))
    facts.push(line('browser', system === undefined ? name : both))
  }
  facts.push(line('time', `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`))
  // The console may have it from a header that anybody fills: only what is an address is repeated.
  const address = (values.get('address') ?? '').split('%')[0] ?? ''
  if (isIP(address) !== 0) facts.push(line('ip_address', address))
  return facts
}

function compose (language: Language, message: Message, values: Values, at: number): Letter {
  const subject = fill(message.subject, values)
  const code = values.get('code')
  const paragraphs = message.text.map(phrase => fill(phrase, values))
  const facts = factsOf(language, values, at)
  const who = message.who === undefined ? [] : [fill(message.who, values)]
  const notYou = fill(message.notYou, values)
  const footer = fill(language.words.get('footer') ?? '', values)
  const blocks = [
    ...(code === undefined ? [] : [code]),
    ...paragraphs,
    [...who, ...facts.map(fact => `  ${fact}`)].join('\n'),
    notYou,
    `-- \n${footer}`
  ]
  return {
    subject,
    language: language.tag,
    text: blocks.join('\n\n') + '\n',
    html: mailPage(language.tag, { subject, code, paragraphs, who, facts, notYou, footer })
  }
}
