// The disk under SQLite, waited for away from the event loop. SQLite itself would wait on it: milliseconds after each
// transaction, and longer where it moves its log into the file.

import { realpathSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { SQLITE_DRIVER } from './sqlite-driver.ts'
import { createThread } from './thread.ts'

export interface Disk {
  /** Resolves once all that was committed by then is on the disk. */
  readonly sync: () => Promise<void>
  /**
   * Moves what was committed from the log into the file, as far as nobody reads it in the log still; true where that
   * was all, which the disk then has.
   */
  readonly checkpoint: () => Promise<boolean>
  readonly close: () => Promise<void>
}

const CHECKPOINT = `
  const { emitWarning } = process
  process.emitWarning = () => {}
  const { DatabaseSync } = require(workerData.driver)
  process.emitWarning = emitWarning
  const database = new DatabaseSync(workerData.path)
  // Not for every write: this connection writes nothing, and a checkpoint waits for the disk before it forgets a log.
  database.exec('pragma synchronous = full; pragma busy_timeout = 0')
  const statement = database.prepare('pragma wal_checkpoint(passive)')
  const answer = () => {
    const [{ busy, log, checkpointed }] = statement.all()
    return busy === 0 && log === checkpointed
  }
`

/** `path` is that of a file in WAL mode that stays open. */
export function createDisk (path: string): Disk {
  // SQLite puts its log beside the file that a link leads to.
  const file = realpathSync(path)
  const thread = createThread(CHECKPOINT, { path: file, driver: SQLITE_DRIVER })
  let log: Promise<FileHandle> | undefined
  return {
    sync: async () => {
      log ??= open(`${file}-wal`, 'r+').catch((error: unknown) => {
        log = undefined
        throw error
      })
      await (await log).datasync()
    },
    checkpoint: async () => await thread.ask(undefined) === true,
    close: async () => {
      await thread.close()
      await log?.then(async one => { await one.close() })
    }
  }
}
