import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { freePort } from './ports.ts'

export interface Told {
  readonly stdout: string
  readonly stderr: string
  readonly code: number
}

export interface Series {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [timeS: number, value: string]
}

export interface Rule {
  readonly name: string
  readonly health: string
  readonly state: string
  readonly lastError?: string
}

export interface Prometheus {
  /** The answer to an instant query. Rejects if it is no PromQL. */
  query(expr: string): Promise<readonly Series[]>
  /** The same by one label; 'none' without it. */
  values(expr: string, label?: string): Promise<Readonly<Record<string, number>>>
  rules(): Promise<readonly Rule[]>
}

/** Often enough that nobody waits for it. */
const EVERY = '200ms'

/** Runs a program with some text as its input. Throws if it is not installed. */
export async function run(program: 'prometheus' | 'promtool', args: readonly string[], input = ''): Promise<Told> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      if (error?.code === 'ENOENT') reject(missing(program))
      else resolve({ stdout, stderr, code: typeof error?.code === 'number' ? error.code : 0 })
    })
    child.stdin?.end(input)
  })
}

/** A real Prometheus that scrapes one target, gone with the test. */
export async function prometheus(target: string, ruleFile: string): Promise<Prometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'evenkeel-prometheus-'))
  const port = await freePort()
  const config = join(folder, 'prometheus.yml')
  writeFileSync(
    config,
    JSON.stringify({
      global: { scrape_interval: EVERY, scrape_timeout: EVERY, evaluation_interval: EVERY },
      rule_files: [ruleFile],
      scrape_configs: [{ job_name: 'evenkeel', static_configs: [{ targets: [target] }] }],
    }),
  )
  const args = [
    `--config.file=${config}`,
    `--storage.tsdb.path=${folder}/data`,
    `--web.listen-address=127.0.0.1:${port}`,
  ]
  const child = spawn('prometheus', [...args, '--log.level=error'], { stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit').catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'ENOENT' ? missing('prometheus') : error
  })
  onTestFinished(async () => {
    child.kill()
    await ended.catch(() => {}) // the test has failed with it
    rmSync(folder, { recursive: true, force: true })
  })
  const ask = async <Data>(path: string): Promise<Data> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`)
    const { data, error } = (await response.json()) as { readonly data?: Data; readonly error?: string }
    if (data === undefined) throw new Error(`${decodeURIComponent(path)}: ${error}`)
    return data
  }
  const query: Prometheus['query'] = async (expr) => {
    const { result } = await ask<{ result: readonly Series[] }>(`/api/v1/query?query=${encodeURIComponent(expr)}`)
    return result
  }
  await Promise.race([ready(port), ended.then(() => Promise.reject(new Error('prometheus ended before it was ready')))])
  return {
    query,
    async values(expr, label = '') {
      const series = await query(expr)
      return Object.fromEntries(series.map(({ metric, value }) => [metric[label] ?? 'none', Number(value[1])]))
    },
    async rules() {
      const { groups } = await ask<{ groups: readonly { readonly rules: readonly Rule[] }[] }>('/api/v1/rules')
      return groups.flatMap(({ rules }) => rules)
    },
  }
}

async function ready(port: number): Promise<void> {
  for (;;) {
    const response = await fetch(`http://127.0.0.1:${port}/-/ready`).catch(() => undefined)
    if (response?.ok) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function missing(program: string): Error {
  return new Error(
    `${program} is not installed: this test starts it with a configuration of its own on a free port. On Debian and Ubuntu: ` +
      'apt-get install -y --no-install-recommends prometheus (promtool comes with it; the service itself is not needed).',
  )
}
