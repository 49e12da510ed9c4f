// Transactions that come at the same time are made durable together. Waiting for the disk is most of what a
// transaction takes, and stops the process; who comes meanwhile joins the next wait instead of having one of their
// own. Each is a savepoint, so that it can be undone alone, and nobody hears of success before the disk has it.

import type { SqliteHandle } from './sqlite-dialect.ts'
import type { Turns } from './turns.ts'

/** Transactions that are durable together, or not at all. */
export interface Group {
  /** Resolves once it is on the disk; rejects where it is lost. */
  readonly done: Promise<void>
  readonly kept: () => void
  readonly lost: (error: unknown) => void
}

/** All are called by whoever has the turn to write. */
export interface Commits {
  /** A transaction within the open group, or the first of a new one, for which `begin` takes the file. */
  readonly enter: (begin: () => Promise<unknown>) => Promise<Group>
  /** The transaction ends well; it is durable when its group is done. */
  readonly keep: (group: Group) => void
  /** The transaction never was. */
  readonly undo: (group: Group) => void
  /** Makes what is open durable now, for a statement that no transaction may hold. */
  readonly settle: () => void
}

/** Longest that setTimeout takes; who waits before the end of a group does not wait that long. */
const FOREVER_MS = 2 ** 31 - 1

export function createCommits (writer: SqliteHandle, turns: Turns): Commits {
  let open: Group | undefined

  const lose = (group: Group, error: unknown): void => {
    if (open === group) open = undefined
    try {
      writer.run('rollback', [])
    } catch {
      // A full disk has rolled back by itself.
    }
    group.lost(error)
  }
  const commit = (group: Group): void => {
    if (open !== group) return
    try {
      writer.run('commit', [])
      open = undefined
      group.kept()
    } catch (error) {
      lose(group, error)
    }
  }
  /** Ends the group behind those who wait for their turn by then: they belong to it. */
  const endSoon = (group: Group): void => {
    setImmediate(() => {
      void turns.take('write', FOREVER_MS).then(endTurn => {
        commit(group)
        endTurn()
      })
    })
  }

  return {
    enter: async begin => {
      if (open === undefined) {
        await begin()
        open = newGroup()
        endSoon(open)
      }
      writer.run('savepoint one', [])
      return open
    },
    keep: group => {
      try {
        writer.run('release one', [])
      } catch (error) {
        // An error of the disk has undone them all.
        lose(group, error)
      }
    },
    undo: group => {
      try {
        writer.run('rollback to one', [])
        writer.run('release one', [])
      } catch (error) {
        lose(group, error)
      }
    },
    settle: () => {
      if (open !== undefined) commit(open)
    }
  }
}

function newGroup (): Group {
  let kept: () => void = () => {}
  let lost: (error: unknown) => void = () => {}
  const done = new Promise<void>((resolve, reject) => {
    kept = resolve
    lost = reject
  })
  // Everybody in it may have been undone, and nobody waits.
  done.catch(() => {})
  return { done, kept, lost }
}
