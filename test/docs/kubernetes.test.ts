// docs/kubernetes.md walked as a newcomer walks it, as far as that goes without a cluster: its keys are made by its
// commands, its values rendered by its helm lines, and what it names is there.

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readConfig as readGatewayConfig } from '../../plugin/src/gateway/settings.ts'
import { PRESETS } from '../../plugin/src/presets/index.ts'
import { readConfig } from '../../service/src/config.ts'
import { environmentOf, nameOf, noHelm, rendered, type Rendered } from '../helpers/helm.ts'
import { dataFolder, postern } from '../helpers/processes.ts'

t.setTimeout(300_000)

const page = readFileSync(fileURLToPath(new URL('../../docs/kubernetes.md', import.meta.url)), 'utf8')
const blocks = (language: string): readonly string[] =>
  [...page.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'gm'))].map(([, text = '']) => text)
/** Each command in a block or in a line of text, whole. */
const commands = [
  ...blocks('sh').flatMap(text => text.replaceAll('\\\n', ' ').split('\n')), ...[...page.matchAll(/`((?:helm|kubectl|docker) [^`]+)`/g)].map(([, line = '']) => line)
].map(line => line.replaceAll(/\s+/g, ' ').trim()).filter(line => line !== '')
const startingWith = (words: string): readonly string[] => commands.filter(line => line.startsWith(words))

t.test('no command has brackets that a shell would take for a pattern', async t => {
  for (const line of commands) t.notMatch(line.replaceAll(/'[^']*'|<[^>]*>/g, ''), /[[\]*?{}]/, line)
})

t.test('the commands of the image that the page names exist', async t => {
  const { out: help } = await postern(['--help'])
  const named = commands.flatMap(line => [/^docker run .*\/postern:\S+ (\w+)/, / -- postern ([\w-]+)/].flatMap(found => found.exec(line)?.[1] ?? []))
  t.ok(['keys', 'tenants', 'doctor', 'migrate', 'backup'].every(name => named.includes(name)), String(named))
  for (const name of named) t.match(help, new RegExp(`^  postern ${name}\\b`, 'm'))
})

if (noHelm !== undefined) {
  t.comment(noHelm)
} else {
  t.test('keys, Secrets, values and helm lines of the page make manifests that service and gateway take', async t => {
    // Step 2, by the commands that stand there.
    const made = await Promise.all(startingWith('docker run --rm').map(async line => (await postern(line.split(' ').slice(4))).out.trim()))
    const [encryption = '', server = '', tenant = ''] = made
    const [, key = '', entry = '', sha256 = ''] = /key: +(\S+)\nentry: (.*"sha256":"(\w+)".*)/.exec(tenant) ?? []
    // Step 3: what stands for a secret is filled with it.
    const secrets = new Map(startingWith('kubectl -n postern create secret generic').map(line => {
      const literals = [...line.matchAll(/--from-literal=([\w-]+)='([^']*)'/g)].map(([, name = '', value = '']) => [name, value] as const)
      return [line.split(' ')[6] ?? '', new Map(literals)] as const
    }))
    const filled: Readonly<Record<string, string>> = { 'encryption-keys': encryption, 'server-key': server, 'tenant-key': key }
    const secret = (name: string, of: string): string => {
      const given = secrets.get(of)?.get(name)
      if (given === undefined) throw new Error(`no command of the page puts ${name} into ${of}`)
      return filled[name] ?? given.replace('…', 'secret')
    }
    // Step 4 and the gateway's values, in one file.
    const values = join(dataFolder(t), 'values.yaml')
    const fill = (text: string): string =>
      text.replaceAll('<registry>', 'registry.example').replaceAll('<the entry>', entry).replaceAll('<from the entry>', sha256)
    const [service = '', gateway = ''] = blocks('yaml')
    const render = async (line: string): Promise<Rendered> => {
      const text = fill(line).replace(/^helm (install|upgrade) /, '').replace(' -f values.yaml', ` -f '${values}'`)
      return await rendered(execFileSync('bash', ['-c', `printf '%s\\0' ${text}`], { encoding: 'utf8' }).split('\0').slice(0, -1))
    }

    const helmLines = commands.filter(line => /^helm (install|upgrade) /.test(line))
    t.equal(helmLines.length, 3)
    for (const text of [service, service + gateway]) {
      writeFileSync(values, fill(text))
      for (const line of helmLines) {
        const one = await render(line)
        const names = one.manifests.map(nameOf)
        for (const command of commands) {
          const of = /deployment\/(\S+)/.exec(command)?.[1]
          if (of !== undefined) t.ok(names.includes(`Deployment/${of}`), command)
          if (/^(helm|kubectl) .*(postern|rollback)/.test(command) && !/create namespace/.test(command)) t.match(command, / -n postern\b/, command)
        }
        const config = readConfig(environmentOf(one, 'postern', line.includes('quickstart') ? name => filled[name] ?? '' : secret))
        t.equal(config.tenants[0]?.id, 'shop', line)
        const [, address = ''] = /`service: '([^']+)'`/.exec(page) ?? []
        t.equal(address, `http://postern.postern:${config.port}`)
        t.ok(names.includes('Service/postern'))
        if (!names.includes('Deployment/postern-gateway')) continue
        t.match(readGatewayConfig(environmentOf(one, 'postern-gateway', secret), PRESETS), { preset: { name: 'rustdesk' }, tenantKey: key })
      }
    }
  })
}
