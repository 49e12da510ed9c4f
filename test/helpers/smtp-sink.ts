// A mail server that misbehaves on request: one line of SMTP at a time, in plain text, each answer a test's to choose.

import { createServer, type Socket } from 'node:net'
import type { Teardown } from './service.ts'

/** What the client said, without arguments; `message` is the end of a mail's text. */
export type Step = 'connect' | 'EHLO' | 'AUTH' | 'MAIL' | 'RCPT' | 'DATA' | 'message'

/** An answer of SMTP, nothing at all, or the end of the connection. */
export type Reply = string | 'silence' | 'hang up'

const USUAL: Readonly<Record<Step, string>> = {
  connect: '220 sink',
  EHLO: '250-sink\r\n250 AUTH PLAIN',
  AUTH: '235 in',
  MAIL: '250 ok',
  RCPT: '250 ok',
  DATA: '354 go on',
  message: '250 taken'
}

export async function startSmtpSink (
  t: Teardown,
  /** What to say at a step instead of the usual; `line` is what the client said. */
  answer: (step: Step, line: string) => Reply | undefined | Promise<Reply | undefined> = () => undefined
) {
  const said: string[] = []
  const messages: string[] = []
  const open = new Set<Socket>()
  const server = createServer(socket => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    socket.on('error', () => {})
    let buffer = ''
    let text: string | undefined
    const reply = async (step: Step, line = ''): Promise<void> => {
      const chosen = await answer(step, line) ?? USUAL[step]
      if (chosen === 'hang up') socket.destroy()
      else if (chosen !== 'silence' && socket.writable) socket.write(`${chosen}\r\n`)
      if (step === 'DATA' && chosen.startsWith('354')) text = ''
    }
    let turn = reply('connect')
    socket.on('data', data => {
      buffer += data.toString('latin1')
      for (let end = buffer.indexOf('\r\n'); end >= 0; end = buffer.indexOf('\r\n')) {
        const line = buffer.slice(0, end)
        buffer = buffer.slice(end + 2)
        turn = turn.then(async () => {
          if (text !== undefined) {
            if (line !== '.') { text += `${line}\n`; return }
            messages.push(text)
            text = undefined
            await reply('message')
            return
          }
          said.push(line)
          const word = line.split(' ')[0]?.toUpperCase() ?? ''
          if (word in USUAL) await reply(word as Step, line)
          else socket.write(word === 'QUIT' ? '221 bye\r\n' : '502 what\r\n')
        })
      }
    })
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const address = server.address()
  const cut = (): void => { for (const socket of open) socket.destroy() }
  t.teardown(async () => {
    cut()
    await new Promise(resolve => { server.close(resolve) })
  })
  return { port: typeof address === 'object' && address !== null ? address.port : 0, said, messages, connections: () => open.size, cut }
}
