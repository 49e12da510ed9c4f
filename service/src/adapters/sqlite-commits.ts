// Transactions that come at the same time are made durable together. Waiting for the disk is most of what a
// transaction takes; who comes meanwhile joins the next wait instead of having one of their own. Each is a savepoint,
// so that it can be undone alone. Nobody hears of success, and no reader sees any of it, before the disk has it.

import type { SqliteHandle } from './sqlite-dialect.ts'
import type { Disk } from './sqlite-disk.ts'
import type { Turns } from './turns.ts'

/** Transactions that are durable together, or not at all. */
export interface Group {
  /** Resolves once it is on the disk; rejects where it is lost. */
  readonly done: Promise<void>
  readonly kept: () => void
  readonly lost: (error: unknown) => void
}

/** All but `close` are called by whoever has the turn to write. */
export interface Commits {
  /** A transaction within the open group, or the first of a new one, for which `begin` takes the file. */
  readonly enter: (begin: () => Promise<unknown>) => Promise<Group>
  /** The transaction ends well; it is durable when its group is done. */
  readonly keep: (group: Group) => void
  /** The transaction never was. */
  readonly undo: (group: Group) => void
  /** Makes what is open durable, for a statement that no transaction may hold. */
  readonly settle: () => Promise<void>
  /** Resolves when all is durable and nothing is under way. */
  readonly close: () => Promise<void>
}

export interface CommitsParts {
  readonly writer: SqliteHandle
  /** `writer` itself for a database in memory, which has no disk. */
  readonly reader: SqliteHandle
  readonly disk: Disk | undefined
  readonly turns: Turns
}

/** Longest that setTimeout takes; who waits before the end of a group does not wait that long. */
const FOREVER_MS = 2 ** 31 - 1
/** Groups after which the log is moved into the file: some 10 MB of it. */
const CHECKPOINT_EVERY = 250

export function createCommits ({ writer, reader, disk, turns }: CommitsParts): Commits {
  let open: Group | undefined
  /** Until the disk has the group that was committed last; there is never more than one. */
  let syncing: Promise<void> = Promise.resolve()
  /** After a sync that failed nobody knows what the disk has. */
  let doubt: unknown
  let sinceCheckpoint = 0
  let checkpointing: Promise<void> | undefined

  const lose = (group: Group, error: unknown): void => {
    if (open === group) open = undefined
    try {
      writer.run('rollback', [])
    } catch {
      // A full disk has rolled back by itself.
    }
    group.lost(error)
  }
  /** Readers stay at what is durable: a transaction of theirs that has begun sees nothing newer. */
  const holdReaders = (): void => {
    reader.run('begin', [])
    reader.run('select 1 from sqlite_schema limit 1', [])
  }
  const letReaders = (): void => {
    try {
      reader.run('commit', [])
    } catch {
      // They were not held, for the same reason for which the group is lost.
    }
  }
  const commit = (group: Group): void => {
    if (open !== group) return
    try {
      if (disk !== undefined) holdReaders()
      writer.run('commit', [])
    } catch (error) {
      if (disk !== undefined) letReaders()
      lose(group, error)
      return
    }
    open = undefined
    if (disk === undefined) group.kept()
    else syncing = made(disk, group)
  }
  const made = async (disk: Disk, group: Group): Promise<void> => {
    const error = await disk.sync().then(() => undefined, (error: unknown) => error)
    letReaders()
    if (error === undefined) group.kept()
    else {
      doubt = error
      group.lost(error)
    }
    sinceCheckpoint += 1
    if (sinceCheckpoint < CHECKPOINT_EVERY || checkpointing !== undefined) return
    sinceCheckpoint = 0
    // A full disk takes none: it is tried again later, and must not end the process.
    checkpointing = checkpoint(disk).catch(() => {}).finally(() => { checkpointing = undefined })
  }
  /** Nothing is written behind what may be missing, until the file itself has all of it. */
  const endDoubt = async (): Promise<void> => {
    if (doubt === undefined || disk === undefined) return
    if (!await disk.checkpoint()) throw doubt
    doubt = undefined
  }
  const settle = async (): Promise<void> => {
    await syncing
    if (open !== undefined) commit(open)
    await syncing
  }
  /** Most of it beside everybody else; then the rest while nobody writes, or the log would never begin anew. */
  const checkpoint = async (disk: Disk): Promise<void> => {
    await disk.checkpoint().catch(() => {})
    const endTurn = await turns.take('write', FOREVER_MS)
    try {
      await settle()
      // Without the thread the event loop waits, which is better than a log that grows.
      await disk.checkpoint().catch(() => { writer.run('pragma wal_checkpoint(passive)', []) })
    } finally {
      endTurn()
    }
  }
  /** Ends the group behind those who wait for their turn by then, or until the disk is free: they belong to it. */
  const endSoon = async (group: Group): Promise<void> => {
    await new Promise(resolve => { setImmediate(resolve) })
    await syncing
    const endTurn = await turns.take('write', FOREVER_MS)
    commit(group)
    endTurn()
  }

  return {
    enter: async begin => {
      if (open === undefined) {
        await endDoubt()
        await begin()
        open = newGroup()
        void endSoon(open)
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
    settle,
    close: async () => {
      const endTurn = await turns.take('write', FOREVER_MS)
      await settle()
      endTurn()
      await checkpointing
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
