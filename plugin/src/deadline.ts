// A deadline that leaves nothing behind.

/**
 * Works with a signal that ends the work after `ms`. Its timer goes with the work: that of `AbortSignal.timeout` fires
 * for every call that was answered long ago, and makes an error with a stack each time.
 */
export async function within<T> (ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const ending = new AbortController()
  const timer = setTimeout(() => { ending.abort() }, ms)
  // It does not keep a process that is about to end.
  timer.unref()
  try {
    return await work(ending.signal)
  } finally {
    clearTimeout(timer)
  }
}
