// What npm packages say of themselves: name, version, licence and its text. Plain JavaScript: it runs before anything
// is installed beside it.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The licence as an SPDX expression; old packages write an object or a list. */
function licenceOf ({ license, licenses }) {
  const given = license ?? licenses
  const names = [given].flat().map(one => typeof one === 'string' ? one : one?.type).filter(one => one !== undefined)
  return names.join(' OR ')
}

/** The package in a folder as a component of an inventory; none where its manifest names nothing. */
export function npmPackage (path) {
  const manifest = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'))
  if (manifest.name === undefined || manifest.version === undefined) return []
  const texts = readdirSync(path).filter(file => /^(licen[cs]e|copying|notice)/i.test(file)).sort()
  return [{
    type: 'library',
    name: manifest.name,
    version: manifest.version,
    licence: licenceOf(manifest),
    purl: `pkg:npm/${manifest.name.replace('@', '%40')}@${manifest.version}`,
    text: texts.map(file => readFileSync(join(path, file), 'utf8').trim()).join('\n\n')
  }]
}
