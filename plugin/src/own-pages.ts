// The pages that must work without the service, or must not show it what was typed.

import { readFileSync, readdirSync } from 'node:fs'
import { CODE_FIELD, type Field } from './forms.ts'
import type { Settings } from './options.ts'
import type { OpenChallenge, ServiceProblem } from './model.ts'

export interface OwnPage {
  readonly html: string | Buffer
  readonly charset: 'utf-8' | 'windows-1252'
}

export interface OwnPages {
  readonly away: (see: Seen, seconds: number) => OwnPage
  /** The service takes no more calls from this client's address for a while. */
  readonly tooMany: (see: Seen, seconds: number) => OwnPage
  readonly cookies: (see: Seen) => OwnPage
  readonly refused: (see: Seen) => OwnPage
  readonly signedOut: (see: Seen) => OwnPage
  /** A console whose pages keep no login: its own user name and password are asked for here. */
  readonly signIn: (see: Seen, wrong: boolean) => OwnPage
  /** A console that keeps its token in script: the page takes it over. */
  readonly handOver: (see: Seen, token: NonNullable<Settings['tokenInScript']>) => OwnPage
  /** A held login is let in: the page puts its token where the console's pages look for it, and goes on. */
  readonly release: (see: Seen, token: NonNullable<Settings['tokenInScript']>, value: string, to: string) => OwnPage
  /** The console behind a gateway does not answer. */
  readonly upstream: (see: Seen, how: 'unreachable' | 'late') => OwnPage
  readonly policy: string
  /** A form that cannot be carried: what to do instead. */
  readonly first: (see: Seen, challenge?: string) => OwnPage
  /** Asks for the code and sends the form on, or asks for one with a GET that needs it. */
  readonly code: (see: Seen, ask: CodeAsk) => OwnPage
}

/** Who looks at the page. */
export interface Seen {
  readonly locale: string | undefined
  readonly acceptLanguage: string | undefined
  readonly requestId: string
}

export interface CodeAsk {
  readonly challenge: OpenChallenge
  readonly action: string | undefined
  readonly target: string
  readonly fields: readonly Field[]
  readonly charset: 'utf-8' | 'windows-1252'
  readonly carried: boolean
  readonly rejected: ServiceProblem | undefined
}

/** Strict: nothing inline, nobody frames it, nothing is fetched from elsewhere. */
export const CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

type Words = (key: string, values?: Readonly<Record<string, string | number>>) => string

const FALLBACK = 'en'

export function createOwnPages (prefix: string): OwnPages {
  const folder = new URL('../locales/', import.meta.url)
  const languages = new Map(readdirSync(folder).filter(file => file.endsWith('.json')).map(file =>
    [file.slice(0, -5), stringsOf(readFileSync(new URL(file, folder), 'utf8'))]))

  function language ({ locale, acceptLanguage }: Seen): string {
    const wanted = [locale ?? '', ...(acceptLanguage ?? '').split(',').map(one => one.split(';')[0]?.trim() ?? '')].map(one => one.toLowerCase())
    for (const one of wanted) {
      if (one === '') continue
      for (const name of languages.keys()) if (name.toLowerCase() === one || name.toLowerCase().split('-')[0] === one.split('-')[0]) return name
    }
    return FALLBACK
  }

  function render (see: Seen, body: (words: Words) => { readonly title: string, readonly body: string, readonly script?: string }, charset: 'utf-8' | 'windows-1252' = 'utf-8'): OwnPage {
    const name = language(see)
    const table = languages.get(name)
    const words: Words = (key, values = {}) => escape((table?.get(key) ?? languages.get(FALLBACK)?.get(key) ?? key).replace(/\{(\w+)\}/g, (_, value: string) => String(values[value] ?? '')))
    const { title, body: inner, script } = body(words)
    const html = `<!doctype html>
<html lang="${name}">
<head>
<meta charset="${charset}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${title}</title>
<link rel="stylesheet" href="${prefix}/own/style.css">
${script === undefined ? '' : `<script src="${prefix}/own/${script}" defer></script>`}
</head>
<body>
<main class="card">
<h1>${title}</h1>
${inner}
<p class="note">${words('request', { id: see.requestId })}</p>
</main>
</body>
</html>
`
    // Characters that the form's charset lacks stand as references, so that the page can be in it.
    return { charset, html: charset === 'utf-8' ? html : Buffer.from([...html].map(reference).join(''), 'latin1') }
  }

  const text = (...paragraphs: readonly string[]): string => paragraphs.map(one => `<p>${one}</p>`).join('\n')
  const link = (href: string, label: string): string => `<p class="actions"><a class="button" href="${escape(href)}">${label}</a></p>`

  const later = (what: 'away' | 'too_many') => (see: Seen, seconds: number): OwnPage =>
    render(see, words => ({ title: words(`${what}.title`), body: text(words(`${what}.text`), words('away.next', { seconds })) + link('', words('away.retry')) }))

  return {
    away: later('away'),
    tooMany: later('too_many'),
    cookies: see => render(see, words => ({ title: words('cookies.title'), body: text(words('cookies.text'), words('cookies.next')) + link('/', words('cookies.retry')) })),
    refused: see => render(see, words => ({ title: words('refused.title'), body: text(words('refused.text'), words('refused.next')) + link('/', words('refused.home')) })),
    signedOut: see => render(see, words => ({ title: words('signed_out.title'), body: text(words('signed_out.text')) + link('/', words('signed_out.home')) })),
    signIn: (see, wrong) => render(see, words => ({
      title: words('sign_in.title'),
      body: `${text(words('sign_in.text'))}
<form method="post" action="${prefix}/own/sign-in">
${wrong ? `<p class="error" id="error" role="alert">${words('sign_in.wrong')}</p>` : ''}
<label for="username">${words('sign_in.name')}</label>
<input id="username" name="username" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="255" required autofocus>
<label for="password">${words('sign_in.password')}</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1024" required${wrong ? ' aria-invalid="true" aria-describedby="error"' : ''}>
<p class="actions"><button class="button" type="submit">${words('sign_in.submit')}</button></p>
</form>`
    })),
    handOver: (see, { key, header, scheme }) => render(see, words => ({
      title: words('hand_over.title'),
      script: 'session.js',
      body: `<div data-token data-key="${escape(key)}" data-header="${escape(header)}" data-scheme="${escape(scheme)}" data-session="${prefix}/session">
<noscript><p>${words('hand_over.script')}</p></noscript>
${['wait', 'nobody', 'cookies', 'failed'].map(what => `<p data-says="${what}" role="status"${what === 'wait' ? '' : ' hidden'}>${words(`hand_over.${what}`)}</p>`).join('\n')}
</div>${link('/', words('signed_out.home'))}`
    })),
    policy: CONTENT_SECURITY_POLICY,
    release: (see, { key, copies, quoted }, value, to) => render(see, words => ({
      title: words('release.title'),
      script: 'release.js',
      body: `<p data-release data-keys="${escape(JSON.stringify([key, ...copies]))}" data-value="${escape(quoted ? JSON.stringify(value) : value)}" data-to="${escape(to)}" role="status">${words('release.text')}</p>
<noscript><p>${words('hand_over.script')}</p></noscript>`
    })),
    upstream: (see, how) => render(see, words => ({ title: words('upstream.title'), body: text(words(`upstream.${how}`)) + link('', words('away.retry')) })),
    first: (see, challenge) => render(see, words => ({ title: words('first.title'), body: text(words('first.text'), words('first.next')) + link(`${prefix}/verify${challenge === undefined ? '' : `/${challenge}`}`, words('first.verify')) })),
    code: (see, { challenge, action, target, fields, charset, carried, rejected }) => render(see, words => {
      const email = challenge.methods[0] === 'email'
      const error = rejected === undefined ? '' : `<p class="error" id="error" role="alert">${verdict(words, rejected, challenge.attemptsLeft)}</p>`
      return {
        title: words('code.title'),
        script: 'carried.js',
        body: `${text(words('code.text'))}
${action === undefined ? '' : text(words('code.action', { action }))}
${carried ? text(words('code.carried')) : ''}
<form method="post" action="${escape(target)}" accept-charset="${charset}" data-carried>
${fields.map(({ name, value }) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`).join('\n')}
${error}
<label for="code">${email ? words('code.label_email', { address: challenge.maskedAddress ?? '' }) : words('code.label')}</label>
<input class="code" id="code" name="${CODE_FIELD}" autocomplete="one-time-code" autocapitalize="characters" spellcheck="false" maxlength="64" required autofocus${rejected === undefined ? '' : ' aria-invalid="true" aria-describedby="error"'}>
<p class="actions"><button class="button" type="submit">${words('code.submit')}</button></p>
</form>
<p class="note"><a href="/">${words('code.cancel')}</a></p>`
      }
    }, charset)
  }
}

function verdict (words: Words, { code, retryAfter, nextIn }: ServiceProblem, left: number): string {
  switch (code) {
    case 'code_malformed': return words('code.malformed')
    case 'code_used': return words('code.used', { seconds: nextIn ?? 30 })
    case 'waiting': return words('code.waiting', { seconds: retryAfter ?? 30 })
    case 'locked': return words('code.locked')
    case 'challenge_gone': return words('code.gone')
    default: return left === 1 ? words('code.rejected_last') : words('code.rejected', { left })
  }
}

/** For text and double-quoted attributes. Line ends as references, or the parser would drop a first one. */
export function escape (text: string): string {
  return text.replace(/[&<>"'\r\n]/g, character => `&#${character.charCodeAt(0)};`)
}

function reference (character: string): string {
  return character <= '\u007f' ? character : `&#${character.codePointAt(0) ?? 0};`
}

// The one narrowing of this boundary: a language file of ours.
function stringsOf (json: string): ReadonlyMap<string, string> {
  return new Map(Object.entries(JSON.parse(json) as Record<string, string>))
}
