// What the step-up dialog of single-page consoles is made of: its script as one tag loads it, its words and its look.

import { readFileSync, readdirSync } from 'node:fs'

export interface DialogFiles {
  /** `postern.js` as a classic script that installs itself: shorter, and nothing of it is seen by the page. */
  readonly script: () => string
  /** JSON: the words of the first language wanted that there is, and the style sheet of the pages. */
  readonly dialog: (wanted: readonly string[]) => string
}

const FALLBACK = 'en'

export function createDialogFiles (): DialogFiles {
  const browser = (name: string): string => readFileSync(new URL(`../browser/${name}`, import.meta.url), 'utf8')
  const folder = new URL('../locales/', import.meta.url)
  const answers = new Map<string, string>()
  const names = readdirSync(folder).filter(file => file.endsWith('.json')).map(file => file.slice(0, -5))
  let script: string | undefined

  function made (language: string): string {
    const words = Object.fromEntries([FALLBACK, language].flatMap(name =>
      Object.entries(stringsOf(readFileSync(new URL(`${name}.json`, folder), 'utf8'))))
      .filter(([key]) => key.startsWith('code.') || key.startsWith('dialog.')))
    // What the pages say of their root is said of the dialog, which stands in a tree of its own.
    const style = browser('style.css').replaceAll(':root', 'dialog') + browser('dialog.css')
    return JSON.stringify({ language, words, style })
  }

  return {
    script: () => {
      script ??= `(() => {'use strict'\n${shortened(browser('postern.js'))}\ninstallPostern({ language: document.currentScript?.dataset.language })\n})()\n`
      return script
    },
    dialog: wanted => {
      const primary = (name: string): string | undefined => name.toLowerCase().split('-')[0]
      const first = wanted.find(one => names.some(name => primary(name) === primary(one))) ?? FALLBACK
      const alike = names.filter(name => primary(name) === primary(first))
      const language = alike.find(name => name.toLowerCase() === first.toLowerCase()) ?? alike[0] ?? FALLBACK
      const answer = answers.get(language) ?? made(language)
      answers.set(language, answer)
      return answer
    }
  }
}

/** Without lines of comment, indentation and the word `export`. No string of the script runs over several lines. */
function shortened (source: string): string {
  return source.split('\n').map(line => line.trim()).filter(line => line !== '' && !/^(?:\/\/|\/\*\*|\*)/.test(line))
    .join('\n').replace(/^export /gm, '')
}

// The one narrowing of this boundary: a language file of ours.
function stringsOf (json: string): Readonly<Record<string, string>> {
  return JSON.parse(json) as Record<string, string>
}
