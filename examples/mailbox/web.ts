// The mailbox's page: newest mail first, text and HTML part; `/messages` gives scripts the same as JSON.

import { readFileSync } from 'node:fs'
import fastify, { type FastifyInstance } from 'fastify'
import { html, type Html } from '../mounted-console/html.ts'
import type { Message } from './mailbox.ts'

const sheet = readFileSync(new URL('mailbox.css', import.meta.url), 'utf8')
const LOCAL = /^(?:localhost|127\.0\.0\.1)(?::\d+)?$/

function page (title: string, content: Html, refresh = false): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${refresh && html`<meta http-equiv="refresh" content="5">`}
<title>${title}</title>
<link rel="stylesheet" href="/mailbox.css">
</head>
<body><main>${content}</main></body>
</html>`.markup
}

function listPage (messages: readonly Message[]): string {
  const rows = messages.map(one => html`<li><a href="/messages/${one.id}">${one.subject}</a>
    <span>${one.to.join(', ')}</span> <time>${one.received.slice(11, 19)}</time></li>`)
  return page('Mailbox', html`<h1>Mailbox</h1>
<p>Every mail of the demo ends here. The page looks for new ones every five seconds.</p>
${messages.length === 0 ? html`<p class="none">No mail yet.</p>` : html`<ul>${rows}</ul>`}`, true)
}

function messagePage (message: Message): string {
  return page(message.subject, html`<p><a href="/">All mail</a></p>
<h1>${message.subject}</h1>
<p>From ${message.from} to ${message.to.join(', ')}, ${message.received.slice(0, 19).replace('T', ' ')} UTC</p>
<h2>Text</h2>
<pre>${message.text}</pre>
${message.html !== '' && html`<h2>HTML</h2>
<iframe sandbox title="HTML part" src="/messages/${message.id}/html"></iframe>`}`)
}

export function createWeb (messages: () => readonly Message[]): FastifyInstance {
  const app = fastify({ forceCloseConnections: true })
  const find = (id: string): Message | undefined => messages().find(one => one.id === id)

  app.addHook('onRequest', async (request, reply) => {
    reply.headers({
      'cache-control': 'no-store',
      'content-security-policy': "default-src 'none'; style-src 'self'; frame-src 'self'; frame-ancestors 'none'",
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff'
    })
    // A page of another site whose name is made to point here must not read codes.
    if (!LOCAL.test(request.headers.host ?? '')) return reply.code(403).send({ error: 'Open the mailbox under localhost or 127.0.0.1' })
  })

  app.get('/', (request, reply) => reply.type('text/html').send(listPage(messages().toReversed())))
  app.get('/mailbox.css', (request, reply) => reply.type('text/css').send(sheet))
  app.get('/messages', () => messages().toReversed())

  app.get<{ Params: { id: string } }>('/messages/:id', (request, reply) => {
    const message = find(request.params.id)
    return message === undefined ? reply.callNotFound() : reply.type('text/html').send(messagePage(message))
  })

  // The mail's own markup: no script, no request, no origin.
  app.get<{ Params: { id: string } }>('/messages/:id/html', (request, reply) => {
    const message = find(request.params.id)
    if (message === undefined) return reply.callNotFound()
    return reply.type('text/html')
      .header('content-security-policy', "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'")
      .send(message.html)
  })
  return app
}
