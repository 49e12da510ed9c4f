// A thread for what would hold up the event loop: it answers one question after another, and starts with the first.

import { Worker } from 'node:worker_threads'

export interface Thread {
  /** Rejects where the program threw or the thread ended; the next question starts a new one. */
  readonly ask: (question: unknown) => Promise<unknown>
  readonly close: () => Promise<void>
}

interface Asked {
  readonly resolve: (answer: unknown) => void
  readonly reject: (error: unknown) => void
}

/**
 * `program` defines `answer(question)`; it is text, so that no file has to be found beside a bundle. `data` is its
 * `workerData`.
 */
export function createThread (program: string, data: unknown): Thread {
  let running: { readonly worker: Worker, readonly asked: Asked[] } | undefined

  const start = (): NonNullable<typeof running> => {
    const worker = new Worker(`
      const { parentPort, workerData } = require('node:worker_threads')
      ${program}
      parentPort.on('message', question => { parentPort.postMessage(answer(question)) })
    `, { eval: true, workerData: data })
    const own = { worker, asked: [] as Asked[] }
    const end = (error: unknown): void => {
      if (running === own) running = undefined
      for (const one of own.asked.splice(0)) one.reject(error)
    }
    worker.on('message', answer => {
      own.asked.shift()?.resolve(answer)
      if (own.asked.length === 0) worker.unref()
    })
    worker.on('error', end)
    worker.on('exit', () => { end(new Error('the thread ended')) })
    return own
  }

  return {
    ask: async question => await new Promise((resolve, reject) => {
      running ??= start()
      running.asked.push({ resolve, reject })
      // It keeps the process only while somebody waits for it.
      running.worker.ref()
      running.worker.postMessage(question)
    }),
    close: async () => { await running?.worker.terminate() }
  }
}
