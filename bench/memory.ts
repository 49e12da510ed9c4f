// Memory and waits: how soon the built service is ready, what it holds idle and after much load, and how long a
// verification takes while slow work runs beside it.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { dataFolder, settingsIn } from '../test/helpers/processes.ts'
import { freePort, startRedis } from '../test/helpers/redis.ts'
import { encoded } from '../test/helpers/replicas.ts'
import { totpCode, type Teardown } from '../test/helpers/service.ts'
import { startSmtpSink } from '../test/helpers/smtp-sink.ts'
import { connectTo, json, WrongAnswer, type Connection } from './connection.ts'
import { median, paced, quantile, residentOf, slice, type Plan, type Thing } from './harness.ts'
import type { Figure, Part } from './report.ts'
import { createCleaning } from './servers.ts'
import { createWalk } from './subjects.ts'
import { name43, SUBJECTS, startFilled, verification } from './verify.ts'

const MAIN = fileURLToPath(new URL('../service/dist/main.js', import.meta.url))
const STARTS = 10
const MB = 1024 * 1024
/** What an hour of a busy console is here. */
const LOAD_MS = 40_000
const REST_MS = 15_000
const WRONG_A_SECOND = 500
/** Accounts that they are for, whose budgets refuse most of them. */
const ACCOUNTS = 20
/** Wrong codes that a challenge takes before it is spent. */
const WRONG_A_CHALLENGE = 4

const after = async (ms: number): Promise<void> => { await new Promise(resolve => { setTimeout(resolve, ms) }) }

/** Milliseconds from the start of the process to its first 200 of /readyz. */
async function readyIn (): Promise<number> {
  const cleaning = createCleaning()
  try {
    const port = await freePort()
    const { settings } = settingsIn(dataFolder(cleaning), { POSTERN_OPERATIONS_PORT: String(port) })
    const began = performance.now()
    const child = spawn(process.execPath, [MAIN, 'serve'], { env: { ...process.env, ...settings }, stdio: 'ignore' })
    const ended = new Promise<void>(resolve => { child.on('close', () => { resolve() }) })
    cleaning.teardown(async () => {
      child.kill('SIGKILL')
      await ended
    })
    while (child.exitCode === null) {
      const line = await connectTo(`http://127.0.0.1:${port}`).catch(() => undefined)
      const answer = await line?.ask('GET', '/readyz')
      line?.close()
      if (answer?.status === 200) return performance.now() - began
      await after(2)
    }
    throw new Error('the service ended')
  } finally {
    await cleaning.clean()
  }
}

/** Enrols a new subject: a key with its picture, six backup codes, and a mail about it. */
function enrolling (key: string) {
  const headers = `authorization: Bearer ${key}\r\n`
  return async (connection: Connection): Promise<void> => {
    const subject = `new ${name43()}`
    const by = { subject, session: name43(), browser: name43() }
    const path = `/v1/subjects/${encoded(subject)}/totp`
    const about = { email: 'somebody@example.org' }
    const begun = json<{ id: string, key: string }>(
      await connection.ask('POST', path, headers, JSON.stringify({ by, about })))
    const body = JSON.stringify({ by, about, code: totpCode(begun.key, Date.now()) })
    const confirmed = json<{ backup_codes: readonly string[] }>(
      await connection.ask('POST', `${path}/${begun.id}/confirm`, headers, body))
    if (confirmed.backup_codes.length !== 6) throw new WrongAnswer(`${confirmed.backup_codes.length} backup codes`)
  }
}

/** Opens a challenge and answers it with backup codes that are wrong, as often as it takes them. */
function guessing (key: string) {
  const headers = `authorization: Bearer ${key}\r\n`
  let turn = 0
  return async (connection: Connection): Promise<void> => {
    const by = { subject: `u${turn++ % SUBJECTS}`, session: name43(), browser: name43() }
    const { challenge: { id } } = json<{ challenge: { id: string } }>(
      await connection.ask('POST', '/v1/challenges', headers, JSON.stringify({ by, purpose: 'login' })))
    for (let i = 0; i < WRONG_A_CHALLENGE; i++) {
      const code = randomBytes(8).toString('hex')
      const answer = await connection.ask('POST', `/v1/challenges/${id}/verification`, headers, JSON.stringify({ by, code }))
      const problem = json<{ code: string }>(answer, answer.status)
      if (problem.code !== 'code_rejected') throw new WrongAnswer(`a wrong backup code: ${JSON.stringify(problem)}`)
    }
  }
}

/**
 * One wrong backup code for one of a few accounts, whose passwords somebody knows: a challenge is opened anew whenever
 * one is spent. What their budgets do not refuse is hashed.
 */
function hammering (key: string, accounts: number) {
  const headers = `authorization: Bearer ${key}\r\n`
  const open = new Map<number, { readonly by: { readonly subject: string }, readonly id: string }>()
  let turn = 0
  return async (connection: Connection): Promise<void> => {
    const account = turn++ % accounts
    let challenge = open.get(account)
    if (challenge === undefined) {
      const by = { subject: `u${account}`, session: name43(), browser: name43() }
      const { challenge: { id } } = json<{ challenge: { id: string } }>(
        await connection.ask('POST', '/v1/challenges', headers, JSON.stringify({ by, purpose: 'login' })))
      challenge = { by, id }
      open.set(account, challenge)
    }
    const { by, id } = challenge
    const body = JSON.stringify({ by, code: randomBytes(8).toString('hex') })
    const { status, body: said } = await connection.ask('POST', `/v1/challenges/${id}/verification`, headers, body)
    if (status < 400 || status >= 500) throw new WrongAnswer(`a wrong backup code: ${status} ${said.toString().slice(0, 200)}`)
    if (!said.includes('"code_rejected"')) open.delete(account)
  }
}

const limit = (name: string, value: number, most: number, unit: string): Figure => ({
  name, value: `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`, must: `< ${most} ${unit}`, kept: value < most
})

export async function memory (t: Teardown, plan: Plan, quick: boolean): Promise<Part> {
  const starts: number[] = []
  for (let i = 0; i < (quick ? 3 : STARTS); i++) starts.push(await readyIn())

  const smtp = await startSmtpSink(t)
  const redis = await startRedis(t)
  const service = await startFilled(t, `sqlite:${join(dataFolder(t), 'memory.db')}`, redis.url, {
    subjects: SUBJECTS,
    more: { POSTERN_SMTP: `smtp://127.0.0.1:${smtp.port}`, POSTERN_MAIL_FROM: 'postern@example.org' }
  })
  const { url, pid, key } = service
  const thing = (operation: Thing['operation']): Thing => ({ name: '', url, pids: [pid], operation })
  const verifying = thing(verification(key, createWalk(SUBJECTS), { address: true }))
  const enrolments = thing(enrolling(key))
  const guesses = thing(guessing(key))
  const resident = (): number => residentOf(pid) / MB

  await after(1_000)
  const idle = resident()
  const loadMs = quick ? plan.sliceMs * 3 : LOAD_MS
  let most = 0
  const watch = setInterval(() => { most = Math.max(most, resident()) }, 100)
  // Flat out: how many verifications it carries beside the rest is what half of capacity is the half of.
  const [full] = await Promise.all([
    slice(verifying, loadMs, plan.connections), slice(enrolments, loadMs, 2), slice(guesses, loadMs, 4)
  ])
  clearInterval(watch)
  if (!quick) await after(REST_MS)
  const later = resident()

  const alone = await slice(verifying, plan.sliceMs, plan.connections)
  const half = alone.perSecond / 2
  const ms = quick ? plan.sliceMs : plan.sliceMs * 2
  const p99 = (times: readonly number[]): number => quantile(times, 0.99)
  // In rounds, with and without in turn: the p99 of one stretch varies threefold on a machine that does other things.
  const ratios = { without: [] as number[], beside: [] as number[] }
  for (let round = 0; round < plan.rounds; round++) {
    const without = await paced(verifying, half, ms)
    ratios.without.push(p99(without) / median(without))
    const [beside] = await Promise.all([paced(verifying, half, ms), slice(enrolments, ms, 2)])
    ratios.beside.push(p99(beside) / median(beside))
  }

  const quiet: number[] = []
  const hammered: number[] = []
  const guessed: number[] = []
  const accounts = thing(hammering(key, ACCOUNTS))
  // A p99 is made of few: twice as many rounds, in turn.
  for (let round = 0; round < plan.rounds * 2; round++) {
    quiet.push(...await paced(verifying, half / 2, plan.sliceMs))
    const [beside] = await Promise.all([
      paced(verifying, half / 2, plan.sliceMs), paced(accounts, WRONG_A_SECOND, plan.sliceMs)
    ])
    hammered.push(...beside)
    if (round % 2 === 1) continue
    const [times] = await Promise.all([
      paced(verifying, half / 2, plan.sliceMs),
      paced(guesses, WRONG_A_SECOND / WRONG_A_CHALLENGE, plan.sliceMs)
    ])
    guessed.push(...times)
  }

  return {
    tables: [],
    figures: [
      limit(`ready after the start of the process, median of ${starts.length}`, median(starts) / 1_000, 0.5, 's'),
      limit('resident when idle', idle, 100, 'MB'),
      limit(`resident at most, in ${loadMs / 1_000} s flat out (${full.perSecond.toFixed(0)} verifications a second, enrolments and wrong codes)`, most, 200, 'MB'),
      { name: 'resident after a rest', value: `${later.toFixed(0)} MB` },
      limit(
        `p99 to median of a verification at ${half.toFixed(0)} a second, half of capacity, beside enrolments with pictures, backup codes and mail, median of ${plan.rounds} rounds from ${Math.min(...ratios.beside).toFixed(1)} to ${Math.max(...ratios.beside).toFixed(1)} (without them, in turn: ${median(ratios.without).toFixed(1)} x)`,
        median(ratios.beside), 5, 'x'),
      limit(
        `p99 of a verification beside ${WRONG_A_SECOND} wrong backup codes a second for ${ACCOUNTS} accounts, to that without (${p99(quiet).toFixed(1)} ms)`,
        p99(hammered) / p99(quiet), 1.5, 'x'),
      {
        name: `the same with another account for each ${WRONG_A_CHALLENGE} of them, so that each is hashed and recorded`,
        value: `${(p99(guessed) / p99(quiet)).toFixed(1)} x`
      }
    ]
  }
}
