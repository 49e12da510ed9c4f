// The dialogs that more than one change shows: are you sure, and codes that are seen once.

import type { FastifyReply } from 'fastify'
import type { Banner, Page } from '../page.ts'

/** Are you sure? `action` is where the form goes, below the prefix. */
export function showConfirm (
  page: Page,
  action: string,
  words: {
    readonly title: string
    readonly lines: readonly string[]
    readonly submit: string
    readonly danger: boolean
  },
  banner?: Banner,
  status = 200
): FastifyReply {
  return page.show('confirm', { ...words, action: page.url(action), banner }, status)
}

/** `done` says what happened; `next` is where it goes on. */
export function showCodes (page: Page, codes: readonly string[], done: string, next: string): FastifyReply {
  return page.show('codes', { title: page.words.say('codes.title'), codes, done, next })
}
