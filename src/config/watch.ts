import { hash } from 'node:crypto'
import { constants, type FSWatcher, watch } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { MAX_DELAY_MS, systemClock } from '../core/clock.ts'
import type { Clock, Source, Stop } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { BalancerOptions } from '../core/options.ts'
import { filePath, MOST_CONFIG_BYTES } from './files.ts'
import { loadConfig } from './load.ts'
import type { Config } from './tables.ts'

/** Options alone, or with the other files that were read for them, such as keys. */
type Loaded = BalancerOptions | Pick<Config, 'options' | 'files'>

export interface WatchOptions {
  /**
   * Makes options of the file; what it rejects with is the reason why the file is not taken. Also the place for what no file can
   * hold: parts, what to do with warnings. With `files` a change of one of them counts as well. Default: `loadConfig`.
   */
  readonly load?: (file: string) => Promise<Loaded>
  /** Other files whose change counts whatever `load` says; default none. */
  readonly also?: readonly string[]
  /** Quiet after a change before it is looked at, ms; default 100: an editor's handful of writes is one change. */
  readonly debounceMs?: number
  /** The files are read this often whatever the system tells, ms; default 5 000; 0 = never. */
  readonly pollMs?: number
  /** Time, for tests. */
  readonly clock?: Clock
}

/** Writes that never pause are looked at after this many quiet times all the same. */
const LONGEST_QUIETS = 10
/** Loads in one look, if the files change while they are read; after that they have to be quiet first. */
const MOST_LOADS = 3

/**
 * A configuration file, loaded now and whenever its content changes: for `balancer.follow`. Directories are watched, not files,
 * since editors and Kubernetes put another file in the place of the old one; and every `pollMs` the content is read as well, for
 * network mounts that tell nothing and for links whose target changes. What cannot be loaded is told once, and tried again at every
 * poll. Nothing of it keeps the process alive.
 *
 * @example
 * balancer.follow(watchConfig('evenkeel.toml'))
 */
export function watchConfig(file: string | URL, options: WatchOptions = {}): Source<BalancerOptions> {
  const path = filePath(file)
  if (path === undefined) throw new BalancerError('CONFIG', 'watchConfig: expected a path or a file: URL')
  for (const key of ['debounceMs', 'pollMs'] as const) {
    const { [key]: ms = 0 } = options
    if (!(ms >= 0 && ms <= MAX_DELAY_MS)) throw new BalancerError('CONFIG', `${key}: expected ms >= 0, got ${ms}`)
  }
  return {
    name: 'file',
    subscribe(next, fail) {
      const watching = new Watching(resolve(path), options, next, fail)
      return () => watching.stop()
    },
  }
}

class Watching {
  readonly #file: string
  readonly #also: readonly string[]
  readonly #load: (file: string) => Promise<Loaded>
  readonly #debounceMs: number
  readonly #pollMs: number
  readonly #clock: Clock
  readonly #next: (options: BalancerOptions) => void
  readonly #fail: (error: unknown) => void
  #files: readonly string[]
  #watchers: readonly FSWatcher[] = []
  #stopTimer: Stop = () => {}
  /** When the changes began that nobody has looked at yet. */
  #sinceMs: number | undefined
  /** What the files held when they were last taken. Whoever has rolled that back since does not want it again. */
  #taken: string | undefined
  /** What is told to be wrong, and with which content. */
  #wrong: string | undefined
  #looking = false
  #stopped = false

  constructor(
    file: string,
    { load = loadConfig, also = [], debounceMs = 100, pollMs = 5_000, clock = systemClock }: WatchOptions,
    next: (options: BalancerOptions) => void,
    fail: (error: unknown) => void,
  ) {
    this.#file = file
    this.#also = also
    this.#files = this.#filesWith([])
    this.#load = load
    this.#debounceMs = debounceMs
    this.#pollMs = pollMs
    this.#clock = clock
    this.#next = next
    this.#fail = fail
    void this.#look()
  }

  stop(): void {
    this.#stopped = true
    this.#stopTimer()
    for (const watcher of this.#watchers) watcher.close()
    this.#watchers = []
  }

  /** Something happened in a directory: looked at when it is quiet. */
  #changed(): void {
    const nowMs = this.#clock.now()
    this.#sinceMs ??= nowMs
    if (this.#looking) return // it looks again
    const longestMs = this.#sinceMs + LONGEST_QUIETS * this.#debounceMs - nowMs
    this.#lookIn(Math.min(this.#debounceMs, longestMs))
  }

  #lookIn(ms: number): void {
    this.#stopTimer()
    this.#stopTimer = this.#clock.after(ms, () => void this.#look())
  }

  async #look(): Promise<void> {
    this.#looking = true
    this.#sinceMs = undefined
    // Before the files are read: what changes from here on is told.
    if (this.#watchers.length === 0) this.#watch()
    const isQuiet = await this.#takeChange()
    this.#looking = false
    if (this.#stopped) return
    if (!isQuiet) this.#sinceMs ??= this.#clock.now()
    if (this.#sinceMs !== undefined) this.#changed()
    else if (this.#pollMs > 0) this.#lookIn(this.#pollMs)
  }

  /** Takes what the files hold, if it is new; false if they never held still for it. */
  async #takeChange(): Promise<boolean> {
    let before = await stateOf(this.#files)
    for (let loads = 0; loads < MOST_LOADS; loads++) {
      if (this.#stopped) return true
      if (before.content === this.#taken) {
        this.#wrong = undefined
        return true
      }
      this.#watch() // a directory may be another one by now
      const tell = await this.#loaded()
      const after = await stateOf(this.#files)
      if (this.#stopped) return true
      // What was loaded is what was looked at, and not half of it.
      if (before.state === after.state) {
        tell(after.content)
        return true
      }
      before = after
    }
    return false
  }

  /** What is to be told of it. */
  async #loaded(): Promise<(content: string) => void> {
    try {
      const loaded = await this.#load(this.#file)
      const { options, files } = 'options' in loaded ? loaded : { options: loaded, files: [] }
      this.#files = this.#filesWith(files)
      return (content) => this.#take(options, content)
    } catch (error) {
      return (content) => this.#refuse(error, content)
    }
  }

  #take(options: BalancerOptions, content: string): void {
    try {
      this.#next(options)
    } catch (error) {
      return this.#refuse(error, content)
    }
    this.#taken = content
    this.#wrong = undefined
  }

  /** Loaded again at the next poll: what was missing may have come. */
  #refuse(error: unknown, content: string): void {
    const wrong = `${content}: ${error instanceof Error ? error.message : typeof error}`
    if (wrong === this.#wrong) return
    this.#wrong = wrong
    try {
      this.#fail(error)
    } catch {} // nobody is left to be told
  }

  #filesWith(others: readonly string[]): readonly string[] {
    const files = [this.#file, ...this.#also, ...others].map((file) => resolve(file))
    return [...new Set(files)]
  }

  #watch(): void {
    for (const watcher of this.#watchers) watcher.close()
    const directories = new Set(this.#files.map((file) => dirname(file)))
    this.#watchers = [...directories].flatMap((directory) => {
      try {
        const watcher = watch(directory, { persistent: false }, () => this.#changed())
        return [watcher.on('error', () => this.#lost(watcher))]
      } catch {
        return [] // no such directory, or the system watches no more of them: the poll goes on
      }
    })
  }

  #lost(watcher: FSWatcher): void {
    watcher.close()
    this.#watchers = this.#watchers.filter((other) => other !== watcher)
  }
}

interface State {
  /** One text for what all of them hold; a file that cannot be read stands in it by the reason. */
  readonly content: string
  /** Another one after every write, even of the same. */
  readonly state: string
}

async function stateOf(files: readonly string[]): Promise<State> {
  const parts = await Promise.all(files.map((file) => stateOfOne(file).catch(unreadable)))
  const textOf = (key: keyof State): string => parts.map((part) => part[key]).join(' ')
  return { content: textOf('content'), state: `${textOf('content')} ${textOf('state')}` }
}

/** Opening a pipe that nobody writes to must not wait for somebody. */
async function stateOfOne(file: string): Promise<State> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stat = await handle.stat({ bigint: true })
    const { ino, size, mtimeNs, ctimeNs } = stat
    const state = [ino, size, mtimeNs, ctimeNs].join()
    if (!stat.isFile()) return { content: 'no file', state: '' }
    // No configuration is as large; what else it may be is not read, let alone every five seconds.
    if (size > MOST_CONFIG_BYTES) return { content: `${size} bytes since ${mtimeNs}`, state }
    return { content: hash('sha256', await handle.readFile()), state }
  } finally {
    await handle.close()
  }
}

function unreadable({ code }: NodeJS.ErrnoException): State {
  return { content: String(code), state: '' }
}
