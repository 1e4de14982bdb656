import { execFile } from 'node:child_process'
import { renameSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { mkdir, readFile, rename, rm, symlink, unlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type BalancerOptions, type Clock, createBalancer, type Endpoint, wireHeaders } from 'evenkeel'
import { leftovers, manualClock } from 'evenkeel/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { watchConfig } from '../src/config/watch.ts'
import { systemClock } from '../src/core/clock.ts'
import { pause, until } from './support/upstreams.ts'
import { folder, named, replace, watched, watches } from './support/watching.ts'

/** Far more than a look takes: what has not been told by then is not told. */
const QUIET_MS = 250

describe('a watched file', () => {
  test('is loaded at once, and again whenever another one takes its place', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const { tells } = watched(file)
    await tells('one')
    await replace(file, named('two'))
    await tells('one', 'two')
    await replace(file, named('three'))
    await tells('one', 'two', 'three')
  })

  test('may be written as vim writes it: the old one renamed, a new one written, the old one deleted', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const { tells } = watched(file)
    await tells('one')
    renameSync(file, `${file}~`)
    writeFileSync(file, named('two'))
    unlinkSync(`${file}~`)
    await tells('one', 'two')
  })

  test('may be written in place: emptied, then filled', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const { tells } = watched(file)
    await tells('one')
    truncateSync(file)
    writeFileSync(file, named('two'))
    await tells('one', 'two')
  })

  test('that stays half written is told as wrong, and as right when the rest is there', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const { tells } = watched(file)
    await tells('one')
    writeFileSync(file, named('two').slice(0, 20))
    await tells('one', 'failed: SyntaxError')
    writeFileSync(file, named('two'))
    await tells('one', 'failed: SyntaxError', 'two')
  })

  test('may be a link into a folder that is swapped, as Kubernetes mounts a ConfigMap', async () => {
    const mount = await folder()
    const file = join(mount, 'evenkeel.json')
    const publish = async (version: string): Promise<void> => {
      await mkdir(join(mount, `..${version}`))
      await writeFile(join(mount, `..${version}`, 'evenkeel.json'), named(version))
      await symlink(`..${version}`, join(mount, '..data_tmp'))
      await rename(join(mount, '..data_tmp'), join(mount, '..data'))
    }
    await publish('one')
    await symlink('..data/evenkeel.json', file)
    const { tells } = watched(file)
    await tells('one')
    await publish('two')
    await rm(join(mount, '..one'), { recursive: true })
    await tells('one', 'two')
    await publish('three')
    await tells('one', 'two', 'three')
  })

  test('that is deleted is wrong, once; when it comes back unchanged there is nothing to take', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const { tells, told } = watched(file, { pollMs: 10 })
    await tells('one')
    await unlink(file)
    await tells('one', 'failed: ENOENT')
    await pause(QUIET_MS) // 25 polls
    expect(told).toEqual(['one', 'failed: ENOENT'])
    await replace(file, named('one'))
    await pause(QUIET_MS)
    await unlink(file)
    await tells('one', 'failed: ENOENT', 'failed: ENOENT')
    await replace(file, named('two'))
    await tells('one', 'failed: ENOENT', 'failed: ENOENT', 'two')
  })

  test('that cannot be read for a moment does not undo a rollback', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('from the file'))
    const balancer = createBalancer({ name: 'at first', backends: ['http://a.test'] })
    onTestFinished(() => balancer.close())
    const load = async (path: string): Promise<BalancerOptions> => JSON.parse(await readFile(path, 'utf8'))
    let failed = 0
    balancer.on('reloadFailed', () => failed++)
    balancer.follow(watchConfig(file, { load, debounceMs: 5, pollMs: 10 }))
    await until(() => balancer.name === 'from the file', 'it was not loaded')
    await balancer.rollback(1)
    await rename(file, `${file}.away`)
    await until(() => failed === 1, 'nobody missed it')
    await rename(`${file}.away`, file)
    await pause(QUIET_MS)
    expect(balancer.name).toBe('at first')
    await replace(file, named('changed'))
    await until(() => balancer.name === 'changed', 'the change was not taken')
  })

  test('that changes while it is read is read again: nothing is taken that it does not hold', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('right'))
    let loads = 0
    const load = async (path: string): Promise<BalancerOptions> => {
      if (++loads > 1) return JSON.parse(await readFile(path, 'utf8'))
      await replace(path, named('passing'))
      const options = JSON.parse(await readFile(path, 'utf8'))
      await replace(path, named('right'))
      return options
    }
    const { tells, told } = watched(file, { load, pollMs: 10 })
    await tells('right')
    await pause(QUIET_MS)
    expect(told).toEqual(['right'])
  })

  test('may name other files: whichever it names now are watched, as loadConfig tells', async () => {
    const directory = await folder()
    const file = join(directory, 'evenkeel.json')
    const textOf = (key: string): string =>
      JSON.stringify({ backends: [{ url: 'http://a.test', headers: { 'x-key': `\${file:${key}}` } }] })
    for (const name of ['one', 'two']) await writeFile(join(directory, name), `key ${name}`, { mode: 0o600 })
    await writeFile(file, textOf('one'), { mode: 0o600 })
    const keys: string[] = []
    const stop = watchConfig(file, { debounceMs: 10, pollMs: 20 }).subscribe(
      ({ backends: [backend] = [] }) => {
        const { headers = {} } = backend as Endpoint
        keys.push(wireHeaders(['x-key', headers['x-key']!])[1]!)
      },
      (error) => void keys.push(String(error)),
    )
    onTestFinished(stop)
    await until(() => keys.join() === 'key one', 'it was not loaded')
    await replace(join(directory, 'one'), 'another key')
    await until(() => keys.length === 2, 'the key was not watched')
    await replace(file, textOf('two'))
    await until(() => keys.length === 3, 'the other key was not loaded')
    await replace(join(directory, 'one'), 'nobody asks for it')
    await replace(join(directory, 'two'), 'last key')
    await until(() => keys.length === 4, 'the other key was not watched')
    await replace(join(directory, 'one'), 'nobody asks for it at all')
    await pause(QUIET_MS)
    expect(keys).toEqual(['key one', 'another key', 'key two', 'last key'])
  })

  test('that is far too large is not read at every poll', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, '')
    truncateSync(file, 400e6)
    const before = process.memoryUsage().arrayBuffers
    const told: unknown[] = []
    let most = 0
    const clock: Clock = {
      ...systemClock,
      after(ms, run, hold) {
        most = Math.max(most, process.memoryUsage().arrayBuffers - before)
        return systemClock.after(ms, run, hold)
      },
    }
    const source = watchConfig(file, { debounceMs: 5, pollMs: 10, clock })
    onTestFinished(
      source.subscribe(
        () => {},
        (error) => void told.push(String(error)),
      ),
    )
    await until(() => told.length > 0, 'it was not refused')
    await pause(QUIET_MS)
    expect(told).toEqual([expect.stringContaining('at most 1 MiB')])
    expect(most).toBeLessThan(50e6)
  })

  test('need not be there at first, nor its folder', async () => {
    const directory = join(await folder(), 'later')
    const file = join(directory, 'evenkeel.json')
    const { tells } = watched(file, { pollMs: 10 })
    await tells('failed: ENOENT')
    await mkdir(directory)
    await replace(file, named('one'))
    await tells('failed: ENOENT', 'one')
    await rm(directory, { recursive: true })
    await tells('failed: ENOENT', 'one', 'failed: ENOENT')
    await mkdir(directory)
    await replace(file, named('two'))
    await tells('failed: ENOENT', 'one', 'failed: ENOENT', 'two')
  })

  test('that is touched, or written with the same content, is not even loaded', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const { tells, told, loads } = watched(file, { pollMs: 10 })
    await tells('one')
    await utimes(file, new Date(), new Date())
    await replace(file, named('one'))
    await writeFile(join(file, '..', 'another.json'), 'not ours')
    await pause(QUIET_MS)
    expect(told).toEqual(['one'])
    expect(loads()).toBe(1)
  })

  test('that is written a hundred times at once is loaded once or twice, and the last content wins', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('0'))
    const { tells, told, loads } = watched(file)
    await tells('0')
    for (let i = 1; i <= 100; i++) writeFileSync(file, named(String(i)))
    await until(() => told.at(-1) === '100', 'the last one was not told')
    await pause(QUIET_MS)
    expect(told.at(-1)).toBe('100')
    expect(loads()).toBeLessThanOrEqual(3)
  })

  test('that never stops changing is loaded all the same', async () => {
    const clock = manualClock()
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('0'))
    const { tells, told } = watched(file, { debounceMs: 100, clock })
    await tells('0')
    for (let i = 1; told.length < 2; i++) {
      await replace(file, named(String(i)))
      // Each change comes before it was quiet for long enough.
      await until(() => clock.pending === 1, 'the change was not seen')
      await clock.advance(90)
      await pause(1)
      expect(i).toBeLessThan(40)
    }
  })

  test('is polled where nothing tells of a change: behind a link, or on a network mount', async () => {
    const [here, there] = [await folder(), await folder()]
    const file = join(here, 'evenkeel.json')
    await writeFile(join(there, 'target.json'), named('one'))
    await symlink(join(there, 'target.json'), file)
    const clock = manualClock()
    const { tells } = watched(file, { pollMs: 5_000, clock })
    await tells('one')
    await until(() => clock.pending === 1, 'no poll was planned')
    await writeFile(join(there, 'target.json'), named('two'))
    await clock.advance(5_000)
    await tells('one', 'two')
  })

  test('is not watched at times that are none', () => {
    expect(() => watchConfig('x.toml', { pollMs: -1 })).toThrow('pollMs: expected ms >= 0, got -1')
    expect(() => watchConfig('x.toml', { debounceMs: Number.NaN })).toThrow('debounceMs: expected ms >= 0, got NaN')
  })

  test('counts the keys that it names as its own', async () => {
    const directory = await folder()
    const [file, key] = [join(directory, 'evenkeel.json'), join(directory, 'key')]
    await writeFile(file, named('one'))
    await writeFile(key, 'old')
    const { tells, loads } = watched(file, { also: [key] })
    await tells('one')
    await replace(key, 'new')
    await tells('one', 'one')
    expect(loads()).toBe(2)
  })

  test('that is a folder or a pipe is wrong, and holds nothing up', async () => {
    const directory = await folder()
    const [file, pipe] = [join(directory, 'folder'), join(directory, 'pipe')]
    await mkdir(file)
    const load = (): Promise<never> => Promise.reject(new Error('that is no file'))
    await watched(file, { load }).tells('failed: Error')
    if (process.platform === 'win32') return
    await promisify(execFile)('mkfifo', [pipe])
    const { tells } = watched(pipe, { load })
    await tells('failed: Error')
  })

  test('that could not be loaded for another reason is tried again at every poll', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    let loads = 0
    const load = async (): Promise<never> => {
      throw new Error(++loads < 3 ? 'the vault is sealed' : 'the vault is gone')
    }
    const { tells, told } = watched(file, { load, pollMs: 5 })
    await tells('failed: Error', 'failed: Error')
    await pause(50)
    expect(told).toHaveLength(2) // told once for each reason
    expect(loads).toBeGreaterThan(3)
  })
})

describe('whoever is told', () => {
  test('may get reasons that are no errors', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const reasons = [Symbol('x'), Object.create(null), undefined, 'text']
    for (const reason of reasons) {
      const told: unknown[] = []
      const load = (): Promise<never> => Promise.reject(reason)
      onTestFinished(
        watchConfig(file, { load, pollMs: 5 }).subscribe(
          () => {},
          (error) => void told.push(error),
        ),
      )
      await until(() => told.length > 0, 'it was not told')
      expect(told).toEqual([reason])
    }
  })

  test('may throw: the file is watched on', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, 'no JSON')
    const told: string[] = []
    const load = async (path: string): Promise<BalancerOptions> => JSON.parse(await readFile(path, 'utf8'))
    const stop = watchConfig(file, { load, debounceMs: 5, pollMs: 10 }).subscribe(
      ({ name }) => {
        told.push(String(name))
        if (name === 'one') throw new Error('not this one')
      },
      (error) => {
        told.push((error as Error).name)
        throw new Error('nobody cares')
      },
    )
    onTestFinished(stop)
    await until(() => told.length === 1, 'it was not told')
    await replace(file, named('one'))
    await until(() => told.length >= 3, 'it was not told that it could not be used')
    await replace(file, named('two'))
    await until(() => told.at(-1) === 'two', 'it is not watched any more')
    expect(told.slice(0, 3)).toEqual(['SyntaxError', 'one', 'Error'])
  })
})

describe('when it is stopped', () => {
  test('nothing is told any more, not even what is being loaded', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const told: unknown[] = []
    let finish: (options: { backends: string[] }) => void = () => {}
    let loading = 0
    const load = (): Promise<{ backends: string[] }> => {
      loading++
      return new Promise((resolve) => (finish = resolve))
    }
    const source = watchConfig(file, { load, debounceMs: 5, pollMs: 5 })
    const stop = source.subscribe(
      (options) => void told.push(options),
      (error) => void told.push(error),
    )
    await until(() => loading === 1, 'it was not loaded')
    stop()
    stop()
    finish({ backends: ['http://a.test'] })
    await replace(file, named('two'))
    await pause(50)
    expect(told).toEqual([])
    expect(loading).toBe(1)
    expect(source.name).toBe('file')
  })

  test('every watcher and timer is released, also of those that were stopped right away', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const baseline = leftovers()
    const before = watches()
    const all = Array.from({ length: 20 }, () => watched(file, { pollMs: 60_000 }))
    all[0]!.stop()
    await Promise.all(all.slice(1).map(({ tells }) => tells('one')))
    await replace(file, named('two'))
    await Promise.all(all.slice(1).map(({ tells }) => tells('one', 'two')))
    if (before !== undefined) expect(watches()).toBe(before + 1) // one folder, whoever watches it
    for (const { stop } of all) stop()
    await baseline.restored()
    await until(() => watches() === before, 'a watcher was left')
  })

  test('or not: it keeps no process alive', async () => {
    const file = join(await folder(), 'evenkeel.json')
    await writeFile(file, named('one'))
    const root = new URL('../', import.meta.url)
    const script = `
      import { createBalancer } from 'evenkeel'
      import { readFile } from 'node:fs/promises'
      import { watchConfig } from ${JSON.stringify(new URL('src/config/watch.ts', root).href)}
      const load = async (file) => JSON.parse(await readFile(file, 'utf8'))
      const balancer = createBalancer(await load(${JSON.stringify(file)}))
      balancer.follow(watchConfig(${JSON.stringify(file)}, { load }))
      console.log('followed')`
    const from = new URL('scripts/from-source.mjs', root).href
    const args = ['--disable-warning=ExperimentalWarning', '--import', from, '--input-type=module', '-e', script]
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 20_000 })
    expect(stdout).toBe('followed\n')
  })
})
