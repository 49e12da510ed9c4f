// Session fixation: a session seen with nobody in it must not become somebody's, because whoever knew its id before
// would share the login, and what it passed.

export interface EmptySessions {
  readonly add: (session: string) => void
  readonly has: (session: string) => boolean
}

const REMEMBERED = 20_000

export function createEmptySessions (): EmptySessions {
  const seen = new Set<string>()
  return {
    add: session => {
      if (seen.size >= REMEMBERED) seen.clear()
      seen.add(session)
    },
    has: session => seen.has(session)
  }
}
