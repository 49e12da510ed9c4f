// Sessions whose assurance must end at the service: log-out, and a session in which nobody is logged in any more.

import type { Assurances } from './assurances.ts'
import { sessionName } from './binding.ts'
import type { Client } from './client.ts'

export interface SessionEnds {
  /** Ends it; where the service does not answer, it is owed, and the session does not pass before it is settled. */
  readonly end: (kind: string, session: string) => Promise<boolean>
  readonly owed: (kind: string, session: string) => boolean
  /** Ends it if that is owed; false while the service does not answer. */
  readonly settle: (kind: string, session: string) => Promise<boolean>
  /** The console named its credentials, so a session that was only just made is told from one that came along. */
  readonly namesCredentials: boolean
}

const REMEMBERED = 10_000

export function createSessionEnds ({
  client,
  assurances,
  namesCredentials
}: {
  readonly client: Client
  readonly assurances: Assurances
  readonly namesCredentials: boolean
}): SessionEnds {
  /** true = ended and seen with nobody since, false = owed. */
  const sessions = new Map<string, boolean>()

  function note (key: string, ended: boolean): void {
    sessions.delete(key)
    if (sessions.size >= REMEMBERED) {
      // What is owed outlives what is only remembered: a flood of sessions in which nobody is logged in forgets no
      // log-out.
      let gone = sessions.keys().next().value
      for (const [one, done] of sessions) {
        if (!done) continue
        gone = one
        break
      }
      if (gone !== undefined) sessions.delete(gone)
    }
    sessions.set(key, ended)
  }

  async function finish (kind: string, session: string, key: string): Promise<boolean> {
    const asked = await client.end(sessionName(kind, session))
    // Whatever was asked while it ended may have been answered before.
    assurances.forgetSession(kind, session)
    note(key, asked.outcome === 'answer')
    return asked.outcome === 'answer'
  }

  return {
    namesCredentials,
    owed: (kind, session) => sessions.size > 0 && sessions.has(`${kind}\n${session}`),
    settle: async (kind, session) => {
      const key = `${kind}\n${session}`
      const ended = sessions.get(key)
      if (ended === undefined) return true
      if (!ended && !(await finish(kind, session, key))) return false
      // Somebody is logged in again: the next time nobody is, it ends anew.
      sessions.delete(key)
      return true
    },
    end: async (kind, session) => {
      const key = `${kind}\n${session}`
      if (sessions.get(key) === true) return true
      assurances.forgetSession(kind, session)
      note(key, false)
      return await finish(kind, session, key)
    }
  }
}
