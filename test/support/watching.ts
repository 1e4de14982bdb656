import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BalancerOptions, Stop } from 'evenkeel'
import { onTestFinished } from 'vitest'
import { type WatchOptions, watchConfig } from '../../src/config/watch.ts'
import { until } from './upstreams.ts'

/** A folder of this test's own, gone with it. */
export async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'evenkeel-watch-'))
  onTestFinished(() => rm(path, { recursive: true, force: true }))
  return path
}

/** As editors that care write a file: another one in its place, in one step. */
export async function replace(file: string, text: string): Promise<void> {
  await writeFile(`${file}.new`, text)
  await rename(`${file}.new`, file)
}

/** A configuration whose name tells it apart. */
export function named(name: string): string {
  return JSON.stringify({ name, backends: ['http://a.test'] })
}

export interface Watched {
  /** Names of the configurations that came, in order, and 'failed: …' for what could not be loaded. */
  readonly told: readonly string[]
  readonly loads: () => number
  readonly stop: Stop
  /** Resolves when this is what was told. */
  tells(...told: readonly string[]): Promise<void>
}

/** Follows a file of JSON. */
export function watched(file: string, options: Partial<WatchOptions> = {}): Watched {
  const told: string[] = []
  let loads = 0
  const load = async (path: string): Promise<BalancerOptions> => {
    loads++
    return JSON.parse(await readFile(path, 'utf8'))
  }
  const stop = watchConfig(file, { load, debounceMs: 20, pollMs: 0, ...options }).subscribe(
    ({ name }) => void told.push(String(name)),
    (error) => void told.push(`failed: ${(error as NodeJS.ErrnoException).code ?? (error as Error).name}`),
  )
  onTestFinished(stop)
  const tells = async (...expected: readonly string[]): Promise<void> => {
    const same = (): boolean => told.join() === expected.join()
    await until(same, 'it was not told').catch(() => assert.deepEqual(told, expected))
  }
  return { told, loads: () => loads, stop, tells }
}

/** Directories this process watches; undefined where the system does not tell. */
export function watches(): number | undefined {
  try {
    const texts = readdirSync('/proc/self/fdinfo').map((name) => {
      try {
        return readFileSync(`/proc/self/fdinfo/${name}`, 'utf8')
      } catch {
        return '' // the descriptor of the listing itself
      }
    })
    return texts.join('').match(/^inotify wd:/gm)?.length ?? 0
  } catch {
    return undefined
  }
}
