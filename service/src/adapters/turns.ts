// Turns: who wants the same thing comes one after another, and nobody waits for ever.

/** Thrown to whoever waited too long for a turn. */
export class TurnNeverCame extends Error {
  constructor () {
    super('the turn did not come in time')
    this.name = 'TurnNeverCame'
  }
}

export interface Turns {
  /** Resolves with what ends the turn of `name`, in the order of asking; TurnNeverCame after `waitMs`. */
  readonly take: (name: string, waitMs: number) => Promise<() => void>
}

export function createTurns (): Turns {
  const queues = new Map<string, (() => void)[]>()
  const end = (name: string) => {
    let ended = false
    return () => {
      if (ended) return
      ended = true
      const next = queues.get(name)?.shift()
      if (next === undefined) queues.delete(name)
      else next()
    }
  }
  return {
    take: async (name, waitMs) => {
      const queue = queues.get(name)
      if (queue === undefined) {
        queues.set(name, [])
        return end(name)
      }
      await new Promise<void>((resolve, reject) => {
        const enter = () => {
          clearTimeout(timer)
          resolve()
        }
        const timer = setTimeout(() => {
          queue.splice(queue.indexOf(enter), 1)
          reject(new TurnNeverCame())
        }, waitMs)
        queue.push(enter)
      })
      return end(name)
    }
  }
}
