// What a command of the command line is, and what it may use.

/** One command: its words, a line for --help, and what it does. Returns the exit code. */
export interface Command {
  readonly usage: string
  readonly text: string
  readonly run: (args: readonly string[], io: Io) => Promise<number>
}

export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>
  /** A line for people or scripts on standard output. */
  readonly print: (line: string) => void
  /** A line on standard error. */
  readonly complain: (line: string) => void
}

/** Words and `--flags`; a flag that is not in `flags` is a mistake. */
export function parse (
  args: readonly string[],
  flags: readonly string[]
): { readonly words: readonly string[]; readonly set: ReadonlySet<string>; readonly mistake: string | undefined } {
  const set = new Set(args.filter(arg => arg.startsWith('--')).map(arg => arg.slice(2)))
  const unknown = [...set].find(flag => !flags.includes(flag))
  return {
    words: args.filter(arg => !arg.startsWith('--')),
    set,
    mistake: unknown === undefined ? undefined : `--${unknown} is not an option`
  }
}
