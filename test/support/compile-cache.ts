import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'

/**
 * The environment for processes that run our sources: without a compile cache most of the time of a short one goes into stripping
 * their types. Each file of tests has a cache of its own, gone when its tests are over.
 */
export function cachedEnv(): NodeJS.ProcessEnv {
  const folder = mkdtempSync(join(tmpdir(), 'evenkeel-cache-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return { ...process.env, NODE_COMPILE_CACHE: folder }
}
