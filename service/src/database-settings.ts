// The address of a PostgreSQL server as configuration: which of its parameters are understood.

const MODES = ['disable', 'require', 'verify-ca', 'verify-full'] as const

/** What is wrong with an address of a database; undefined: nothing. Never repeats it, since a password stands in it. */
export function mistakeInPostgresUrl (text: string): string | undefined {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    return ' cannot be read as an address; percent-encode user and password'
  }
  for (const name of url.searchParams.keys()) {
    if (!['sslmode', 'host', 'application_name'].includes(name)) {
      return ` must not hold "${name}"${name.startsWith('ssl') ? '; the certificate authority is POSTERN_DATABASE_CA' : ''}`
    }
  }
  const mode = url.searchParams.get('sslmode') ?? 'disable'
  // "prefer" and "allow" fall back to plain text without a word, "no-verify" talks to anybody.
  if (!MODES.some(one => one === mode)) return `: sslmode must be one of ${MODES.join(', ')}`
  return undefined
}
