// The image as buildah makes it from the Dockerfile, and run as a cluster would: PID 1, a number for a user, no
// capability, a read-only root. The base image is made from the distribution's packages and Node's from npm, so that no
// image registry is needed; it is kept between runs.

import { execFile, spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { cacheFolder } from './cache.ts'
import type { Teardown } from './service.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

const NODE = '24.21.0'
const NPM = '11.19.1'
const BASE = 'docker.io/library/node:24-bookworm-slim'

const asRoot: readonly string[] = process.getuid?.() === 0 ? [] : ['sudo', '-n', '--preserve-env=STORAGE_DRIVER,BUILDAH_ISOLATION']

/** Whether this machine can build and run an image: it needs Linux, and root without being asked for a password. */
export const canBuild = process.platform === 'linux' &&
  (asRoot.length === 0 || spawnSync('sudo', ['-n', 'true']).status === 0)

/** Runs a script as root; its arguments are $1, $2, … Rejects with what it said. */
async function shell (script: string, ...args: readonly string[]): Promise<string> {
  const [command = 'bash', ...rest] = [...asRoot, 'bash', '-euo', 'pipefail', '-c', script, 'image', ...args]
  try {
    const { stdout } = await run(command, rest, {
      cwd: root, maxBuffer: 64 << 20, env: { ...process.env, STORAGE_DRIVER: 'vfs', BUILDAH_ISOLATION: 'chroot' }
    })
    return stdout
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string, stderr?: string }
    throw new Error(`${script.trim().split('\n')[0] ?? ''} …\n${(stdout + stderr).slice(-4000)}`)
  }
}

const cache = cacheFolder('image')
const BUILDAH = `buildah --root '${join(cache, 'storage')}' --runroot '${join(tmpdir(), 'postern-buildah')}'`

/** Makes the base image under the name that the Dockerfile asks for, unless an earlier run did. */
async function needBase (): Promise<void> {
  for (const name of ['buildah', 'debootstrap']) {
    const found = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin'].some(folder => existsSync(join(folder, name)))
    if (!found) throw new Error(`${name} is not installed: the image needs the packages buildah and debootstrap`)
  }
  const mark = join(cache, `base-${NODE}-${NPM}`)
  if (existsSync(mark)) return
  const { VERSION_CODENAME: codename = '' } = Object.fromEntries(
    readFileSync('/etc/os-release', 'utf8').split('\n').map(line => line.replaceAll('"', '').split('=')))
  // The mirror that this machine's own package manager uses.
  const { stdout: targets } = await run('apt-get', ['indextargets', '--format', '$(CODENAME) $(COMPONENT) $(REPO_URI)'])
  const mirror = targets.split('\n').find(line => line.startsWith(`${codename} main `))?.split(' ')[2]
  if (mirror === undefined) throw new Error(`apt has no list of ${codename} main: run apt-get update`)
  const folder = cacheFolder('image', 'packages')
  const architecture = process.arch === 'arm64' ? 'arm64' : 'x64'
  await run('npm', ['pack', '--silent', `node-linux-${architecture}@${NODE}`, `npm@${NPM}`], { cwd: folder, maxBuffer: 64 << 20 })
  await shell(`
    files=$(mktemp -d); trap 'rm -rf "$files"' EXIT
    debootstrap --variant=minbase "$1" "$files" "$2" > /dev/null
    rm -rf "$files"/dev/* "$files"/var/cache/apt/* "$files"/var/lib/apt/lists/*
    tar -xzf "$3" -C "$files/usr/local" --strip-components=1 --no-same-owner package/bin/node package/LICENSE
    mkdir -p "$files/usr/local/lib/node_modules/npm"
    tar -xzf "$4" -C "$files/usr/local/lib/node_modules/npm" --strip-components=1 --no-same-owner
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$files/usr/local/bin/npm"
    extra=()
    if [ -n "$5" ]; then
      install -D -m 0644 "$5" "$files/etc/ssl/certs/ca-certificates.crt"
      extra=(--env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt)
    fi
    container=$(${BUILDAH} from scratch)
    ${BUILDAH} copy -q "$container" "$files" / > /dev/null
    ${BUILDAH} config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "\${extra[@]}" --cmd node "$container"
    ${BUILDAH} commit -q --rm "$container" ${BASE} > /dev/null
  `, codename, mirror, join(folder, `node-linux-${architecture}-${NODE}.tgz`), join(folder, `npm-${NPM}.tgz`), process.env['NODE_EXTRA_CA_CERTS'] ?? '')
  writeFileSync(mark, '')
}

/** What the image says of itself. */
export interface ImageConfig {
  readonly User: string
  readonly Env: readonly string[]
  readonly Entrypoint: readonly string[]
  readonly Cmd: readonly string[] | null
  readonly WorkingDir: string
  readonly StopSignal?: string
  readonly Volumes?: Readonly<Record<string, unknown>>
  readonly Healthcheck?: { readonly Test: readonly string[] }
}

export interface Image {
  readonly config: ImageConfig
  /** Where its file system is on this machine; do not write there. */
  readonly files: string
  readonly compressed: number
  readonly unpacked: number
}

/** Builds a target; what it made is gone with the test. */
export async function buildImage (t: Teardown, target: string): Promise<Image> {
  await needBase()
  const name = `postern-test-${target}-${process.pid}`
  const packed = join(cache, `${name}.oci`)
  t.teardown(async () => {
    await shell(`
      ${BUILDAH} rm ${name} > /dev/null 2>&1 || true
      ${BUILDAH} rmi -f ${name} > /dev/null 2>&1 || true
      rm -rf "$1"
    `, packed)
  })
  const npm = cacheFolder('image', 'npm')
  await shell(`
    ${BUILDAH} bud --pull-never --network host --format docker --volume "$1:/root/.npm" --target "$2" -t ${name} . 2>&1
    ${BUILDAH} from --name ${name} --pull-never ${name}
  `, npm, target)
  const files = (await shell(`${BUILDAH} mount ${name}`)).trim()
  const { Docker: { config } } = JSON.parse(await shell(`${BUILDAH} inspect --type image ${name}`)) as
    { Docker: { config: ImageConfig } }
  await shell(`${BUILDAH} push -q --format oci ${name} "oci:$1:latest"`, packed)
  const compressed = Number((await shell('find "$1/blobs" -type f -size +0 -printf \'%s\\n\' | awk \'{ n += $1 } END { print n }\'', packed)).trim())
  const unpacked = Number((await shell('du -sb "$1" | cut -f1', files)).trim())
  rmSync(packed, { recursive: true, force: true })
  return { config, files, compressed, unpacked }
}

/**
 * Runs a command in the image's file system with the image's own settings: PID 1 of its own PID namespace, the user of
 * the image, no capabilities, no new privileges, `/` read-only, `/data` in memory.
 */
export function runImage (
  t: Teardown, { config, files }: Image, args: readonly string[], settings: Readonly<Record<string, string>> = {}
) {
  const [uid = '', gid = ''] = config.User.split(':')
  const env = [...config.Env, ...Object.entries(settings).map(([name, value]) => `${name}=${value}`)]
  const script = `
    root=$1 uid=$2 gid=$3 folder=$4; shift 4
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o nosuid,mode=0755 tmpfs "$root/dev"
    for name in null zero random urandom; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
    mount -t tmpfs -o "nosuid,nodev,noexec,mode=0750,uid=$uid,gid=$gid" tmpfs "$root/data"
    exec chroot "$root" setpriv --reuid="$uid" --regid="$gid" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
      env -i --chdir="$folder" "$@"
  `
  const [command = 'unshare', ...rest] = [
    ...asRoot, 'unshare', '--pid', '--fork', '--kill-child', '--mount', '--propagation', 'private', '--',
    'bash', '-euc', script, 'run', files, uid, gid, config.WorkingDir, ...env, ...args
  ]
  const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
  const output: string[] = []
  const ended = new Promise<{ readonly code: number | null, readonly output: string }>(resolve => {
    child.on('close', code => { resolve({ code, output: output.join('') }) })
  })
  for (const stream of [child.stdout, child.stderr]) stream.on('data', data => output.push(String(data)))
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) await shell('kill -KILL "$1" || true', String(pid() ?? child.pid))
    await ended
  })

  /** The process inside, by its number out here. */
  function pid (): number | undefined {
    const below = (of: number): number | undefined => {
      const first = readFileSync(`/proc/${of}/task/${of}/children`, 'utf8').trim().split(' ')[0]
      return first === undefined || first === '' ? undefined : Number(first)
    }
    const own = child.pid === undefined ? undefined : below(child.pid)
    return asRoot.length === 0 || own === undefined ? own : below(own)
  }

  return {
    ended,
    output,
    pid,
    /** Resolves with what the log line `ready` says. */
    ready: async () => await new Promise<{ readonly url: string, readonly operations: string }>((resolve, reject) => {
      const look = (): void => {
        const line = output.join('').split('\n').find(one => one.includes('"msg":"ready"') && one.endsWith('}'))
        if (line !== undefined) resolve(JSON.parse(line) as { url: string, operations: string })
      }
      for (const stream of [child.stdout, child.stderr]) stream.on('data', look)
      look()
      void ended.then(() => { reject(new Error(`it ended: ${output.join('')}`)) })
    }),
    signal: async (name: 'TERM' | 'INT' | 'KILL') => { await shell(`kill -${name} "$1"`, String(pid())) },
    /** What the kernel says of the process. */
    status: async (): Promise<string> => await shell('cat "/proc/$1/status" "/proc/$1/mountinfo"', String(pid()))
  }
}
