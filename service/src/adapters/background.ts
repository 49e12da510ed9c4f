// Work that comes round: one run at a time, never overlapping, and stopping waits for the run under way.

/** Runs `work` every `everyMs` after the last run ended. Errors go to `onError`; the next run comes all the same. */
export function recurring (
  everyMs: number,
  work: () => Promise<void>,
  onError: (error: unknown) => void
): { readonly stop: () => Promise<void>; readonly now: () => void } {
  let stopped = false
  let running: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  const run = () => {
    if (stopped || running !== undefined) return
    clearTimeout(timer)
    running = work()
      .catch(onError)
      .finally(() => {
        running = undefined
        if (!stopped) timer = setTimeout(run, everyMs).unref()
      })
  }
  timer = setTimeout(run, everyMs).unref()
  return {
    now: run,
    stop: async () => {
      stopped = true
      clearTimeout(timer)
      await running
    }
  }
}
