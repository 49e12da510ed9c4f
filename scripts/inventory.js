// What an image holds, made while it is built: sbom.cdx.json (CycloneDX 1.6) and licences.txt with every licence text.
// node inventory.js <folder> <package>. Plain JavaScript: it runs before anything is installed beside it. The same
// input gives the same bytes, so two builds can be compared.

import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { npmPackage } from './npm-packages.js'

const [folder = '.', own = 'service'] = process.argv.slice(2)
const json = path => JSON.parse(readFileSync(path, 'utf8'))

/** Every folder of a package below node_modules, also nested ones. */
function packageFolders (modules) {
  if (!existsSync(modules)) return []
  return readdirSync(modules, { withFileTypes: true }).flatMap(entry => {
    if (!entry.isDirectory() || entry.name.startsWith('.')) return []
    const path = join(modules, entry.name)
    return entry.name.startsWith('@') ? packageFolders(path) : [path, ...packageFolders(join(path, 'node_modules'))]
  })
}

/** The system's packages, from the lists that the package manager keeps. */
function debianPackages () {
  const status = '/var/lib/dpkg/status'
  if (!existsSync(status)) return []
  return readFileSync(status, 'utf8').split('\n\n').flatMap(block => {
    const field = name => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1]
    const [name, version] = [field('Package'), field('Version')]
    if (name === undefined || version === undefined || !/^Status: .* installed$/m.test(block)) return []
    const file = `/usr/share/doc/${name}/copyright`
    const copyright = existsSync(file) ? readFileSync(file, 'utf8') : ''
    const licences = [...new Set([...copyright.matchAll(/^License: *(\S.*)$/gm)].map(([, licence]) => licence.trim()))]
    return [{
      type: 'library',
      name,
      version,
      licence: licences.join('; '),
      purl: `pkg:deb/debian/${name}@${encodeURIComponent(version)}`,
      text: ''
    }]
  })
}

const self = json(join(folder, own, 'package.json'))
const node = {
  type: 'platform',
  name: 'node',
  version: process.versions.node,
  licence: 'MIT',
  purl: `pkg:generic/node@${process.versions.node}`,
  text: existsSync('/usr/local/LICENSE') ? readFileSync('/usr/local/LICENSE', 'utf8').trim() : ''
}
const bundled = join(folder, own, 'dist/bundled.json')
const libraries = [
  ...[join(folder, 'node_modules'), join(folder, own, 'node_modules')].flatMap(packageFolders).flatMap(npmPackage),
  ...existsSync(bundled) ? json(bundled) : []
]
const debian = debianPackages()
const byPurl = new Map([...libraries, node, ...debian].map(one => [one.purl, one]))
const all = [...byPurl.values()].sort((a, b) => a.purl < b.purl ? -1 : 1)

const unlicensed = libraries.filter(({ licence }) => licence === '' || licence === 'UNLICENSED')
if (unlicensed.length > 0) {
  throw new Error(`No licence: ${unlicensed.map(({ name }) => name).join(', ')}. An image may not hold what nobody may pass on.`)
}

/** SPDX expressions go where tools look for them; free text where they do not take it for one. */
const licencesOf = ({ purl, licence }) =>
  licence === '' ? [] : purl.startsWith('pkg:npm/') ? [{ expression: licence }] : [{ license: { name: licence } }]

const components = all.map(({ type, name, version, purl, licence }) =>
  ({ type, 'bom-ref': purl, name, version, licenses: licencesOf({ purl, licence }), purl }))
const hex = createHash('sha256').update(JSON.stringify(components)).digest('hex')
const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`

writeFileSync(join(folder, 'sbom.cdx.json'), JSON.stringify({
  bomFormat: 'CycloneDX',
  specVersion: '1.6',
  serialNumber: `urn:uuid:${uuid}`,
  version: 1,
  metadata: {
    component: {
      type: 'application',
      'bom-ref': self.name,
      name: self.name,
      version: self.version,
      licenses: [{ expression: self.license }]
    }
  },
  components,
  dependencies: [{ ref: self.name, dependsOn: components.map(one => one['bom-ref']) }]
}, null, 1) + '\n')

const rule = '='.repeat(78)
writeFileSync(join(folder, 'licences.txt'), [
  `${self.name} ${self.version} (${self.license}) and what this image holds beside it.`,
  'The texts of the system\'s packages are in /usr/share/doc/<package>/copyright.',
  ...all.map(({ name, version, licence }) => `${name} ${version}: ${licence === '' ? 'see its copyright file' : licence}`),
  ...all.filter(({ text }) => text !== '').map(({ name, version, text }) => `${rule}\n${name} ${version}\n${rule}\n${text}`)
].join('\n') + '\n')

process.stdout.write(`${libraries.length} npm packages, Node ${node.version}, ${debian.length} system packages\n`)
