// A browser in known words. What a client calls itself is its own text: repeated in a mail, an attacker could write
// to the owner in it.

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/\bEdg(?:e|A|iOS)?\/\d/, 'Edge'],
  [/\bOPR\/\d/, 'Opera'],
  [/\bSamsungBrowser\/\d/, 'Samsung Internet'],
  [/\b(?:Firefox|FxiOS)\/\d/, 'Firefox'],
  [/\b(?:Chrome|CriOS)\/\d/, 'Chrome'],
  [/\bVersion\/\d.*\bSafari\/\d/, 'Safari']
]

const SYSTEMS: readonly (readonly [RegExp, string])[] = [
  [/\bAndroid\b/, 'Android'],
  [/\biPhone\b/, 'iPhone'],
  [/\biPad\b/, 'iPad'],
  [/\bWindows NT\b/, 'Windows'],
  [/\bCrOS\b/, 'ChromeOS'],
  [/\bMac OS X\b/, 'macOS'],
  [/\bLinux\b/, 'Linux']
]

/** Name and system, each where it is known. A program that is no browser has the letters of its own name. */
export function describeUserAgent (text: string): { readonly name?: string; readonly system?: string } {
  const known = (table: typeof NAMES) => table.find(([pattern]) => pattern.test(text))?.[1]
  const name = known(NAMES) ?? (text.startsWith('Mozilla/') ? undefined : /^([A-Za-z]{2,20})\/\d/.exec(text)?.[1])
  const system = known(SYSTEMS)
  return { ...(name === undefined ? {} : { name }), ...(system === undefined ? {} : { system }) }
}
