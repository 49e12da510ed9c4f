// Session fixation: a session stays with whoever was first seen in it, be it nobody. If it became somebody's, whoever
// knew its id before would share the login; if it became another's, the one who verified would open it for both.

export interface SessionUsers {
  /** Seen with this user, or `null` for nobody; false where it was another's before, or nobody's. */
  readonly stays: (session: string, subject: string | null) => boolean
}

const REMEMBERED = 20_000

export function createSessionUsers (): SessionUsers {
  const users = new Map<string, string | null>()
  return {
    stays: (session, subject) => {
      const before = users.get(session)
      if (subject !== null && before !== undefined) return before === subject
      const [oldest] = users.size < REMEMBERED ? [] : users.keys()
      if (oldest !== undefined) users.delete(oldest)
      users.set(session, subject)
      return true
    }
  }
}
