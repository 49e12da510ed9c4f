// E-mail and network addresses: what may be used, and how much of one is shown or kept.

const mailbox =
  /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/

/**
 * A single mailbox exactly as given, or `undefined`. Lists, groups, display names, quotes and line breaks are
 * refused: mailers parse them into other recipients.
 */
export function singleMailbox (address: string): string | undefined {
  return address.length <= 254 && address.lastIndexOf('@') <= 64 && mailbox.test(address) ? address : undefined
}

/** `a•••@e•••.org`: enough for its owner to know it, too little for anyone else. */
export function maskAddress (address: string): string {
  const at = address.lastIndexOf('@')
  const domain = address.slice(at + 1)
  const dot = domain.lastIndexOf('.')
  const host = dot > 0 ? domain.slice(0, 1) + '•••' + domain.slice(dot) : domain.slice(0, 1) + '•••'
  return address.slice(0, 1) + '•••@' + host
}

/** The client's network as the audit log keeps it: IPv4 /24, IPv6 /48; `undefined` for anything else. */
export function addressPrefix (address: string | undefined): string | undefined {
  if (address === undefined) return undefined
  const mapped = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.\d{1,3}$/i.exec(address)
  if (mapped !== null) return `${mapped[1]}.${mapped[2]}.${mapped[3]}.0/24`
  if (!/^[0-9a-f:]+(?:%[\w.]+)?$/i.test(address) || !address.includes(':')) return undefined
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? []
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right]
  return (
    groups
      .slice(0, 3)
      .map(group => parseInt(group, 16).toString(16))
      .join(':') + '::/48'
  )
}
