// Types of the module that bundlers take: import { installPostern } from 'fastify-postern/browser'.

export interface PosternScriptOptions {
  /** Language of the dialog, as `zh-CN`; default: what was chosen on a page, else `<html lang>`, else the browser's. */
  readonly language?: string | undefined
}

/** Wraps `fetch` and `XMLHttpRequest` of this window; returns a function that takes the wrapping off. */
export function installPostern (options?: PosternScriptOptions): () => void
