// Types of build.js, which is plain JavaScript so that `prepare` can run it.

export function isStale (): boolean
export function build (): Promise<void>
