import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import { type Balancer, BalancerError, type BalancerOptions, type ConfigIssue, createBalancer } from 'evenkeel'
import { type ConfigFormat, configOf, parseConfig, type SubstitutionOptions } from 'evenkeel/config'
import { leftovers, manualClock } from 'evenkeel/testing'
import fc from 'fast-check'
import { parse } from 'smol-toml'
import { positionsOf } from '../../src/config/positions.ts'
import {
  type Change,
  changed,
  changes,
  copied,
  edited,
  editedInside,
  templateEdits,
  textEdits,
} from './config-edits.ts'
import { CANARY, FILES, liveOptions, nowhere, Planted, substitutions, TEMPLATES, TEXTS } from './config-seeds.ts'
import { upstream } from './upstreams.ts'

/** Longest case, ms: thousands of times what one takes, on a machine that is busy. */
const MOST_MS = 20_000
/** Longest words of one issue, and longest message of a hundred, characters. */
const MOST_WORDS = 2_000
const MOST_MESSAGE = 400_000

/** Cases of a thousand. */
const SHARES = { toml: 480, files: 10, json: 100, templates: 120, tables: 160, options: 110, fresh: 20 } as const
type Kind = keyof typeof SHARES

interface Figures {
  taken: number
  /** For what they say. */
  refused: number
  /** No TOML or JSON at all. */
  unreadable: number
  /** A part of the user's own threw, and the update with it. */
  planted: number
}

/** What came of it. */
export interface FuzzStory {
  readonly kinds: Readonly<Record<Kind, Readonly<Figures>>>
  /** Configurations that were in force. */
  readonly revisions: number
  readonly slowestMs: number
}

/** A configuration that was spoilt: a text, or data made anew on every call. */
type Spoilt = { readonly text: string; readonly format: ConfigFormat } | { readonly made: () => unknown }

/** So many spoilt configurations, one after the other, for one balancer that lives through all of them. */
export async function configFuzz(cases: number, seed: number): Promise<FuzzStory> {
  const server = await upstream((_, response) => response.end('ok'))
  const baseline = leftovers()
  const { sources, remove } = substitutions()
  const fuzz = new Fuzz(sources)
  const kinds = await kindsOfCases()
  try {
    for (const [kind, share] of Object.entries(SHARES) as [Kind, number][]) {
      const property = fc.asyncProperty(kinds[kind], (spoilt) => fuzz.run(kind, spoilt))
      // Its report has the seed, the path to the case that failed, and the smallest one that does.
      const numRuns = (cases * share) / 1_000
      await fc.assert(property, { numRuns, seed, timeout: MOST_MS, includeErrorInReport: true })
    }
  } finally {
    remove()
  }
  const revisions = await fuzz.end(server.url)
  await baseline.restored()
  return { kinds: fuzz.figures, revisions, slowestMs: Math.round(fuzz.slowestMs) }
}

async function kindsOfCases(): Promise<Readonly<Record<Kind, fc.Arbitrary<Spoilt>>>> {
  const trees = TEXTS.map((text) => parse(text))
  const options = await Promise.all(TEXTS.map(async (text) => (await parseConfig(text)).options))
  const texts = (format: ConfigFormat, seeds: readonly string[], spoil = edited, edits = textEdits) => {
    const all = fc.record({ seed: fc.constantFrom(...seeds), edits })
    return all.map((it): Spoilt => ({ text: spoil(it.seed, it.edits), format }))
  }
  const data = (seeds: readonly object[]): fc.Arbitrary<Spoilt> => {
    const all = fc.record({ seed: fc.nat(seeds.length - 1), changes })
    return all.map((it) => ({ ...it, made: () => spoiltTree(seeds[it.seed]!, it.changes) }))
  }
  const ownOptions = [...options, ...liveOptions()]
  return {
    toml: texts('toml', TEXTS),
    files: texts('toml', FILES),
    json: texts(
      'json',
      trees.map((tree) => JSON.stringify(tree, null, 1)),
    ),
    templates: texts('toml', TEMPLATES, editedInside, templateEdits),
    tables: data(trees),
    options: data(ownOptions),
    fresh: data(ownOptions),
  }
}

function spoiltTree(seed: object, all: readonly Change[]): unknown {
  return changed(copied(seed) as object, all)
}

/** The balancer, and what is in force in it. */
class Fuzz {
  readonly figures: Record<Kind, Figures>
  slowestMs = 0
  readonly #sources: SubstitutionOptions
  readonly #clock = manualClock()
  readonly #balancer: Balancer
  readonly #prototypes = prototypesNow()
  #inForce: BalancerOptions

  constructor(sources: SubstitutionOptions) {
    this.#sources = sources
    this.#inForce = { backends: ['http://127.0.0.1:1'], transport: nowhere, clock: this.#clock }
    this.#balancer = createBalancer(this.#inForce)
    const kinds = Object.keys(SHARES) as Kind[]
    this.figures = Object.fromEntries(
      kinds.map((kind) => [kind, { taken: 0, refused: 0, unreadable: 0, planted: 0 }]),
    ) as Record<Kind, Figures>
  }

  async run(kind: Kind, spoilt: Spoilt): Promise<void> {
    const startMs = performance.now()
    try {
      await this.#try(kind, spoilt)
      const took = performance.now() - startMs
      this.slowestMs = Math.max(this.slowestMs, took)
      assert.ok(took < MOST_MS, `it took ${Math.round(took)} ms`)
      assert.equal(({} as { readonly polluted?: unknown }).polluted, undefined)
      assert.ok(isSame(prototypesNow(), this.#prototypes), 'a prototype has changed')
    } catch (error) {
      const what = 'text' in spoilt ? spoilt.text : kind
      throw new Error(`${error instanceof Error ? error.stack : String(error)}\n\n${what}`, { cause: error })
    }
  }

  /** A real request after all of it. Gives the number of configurations that were in force. */
  async end(url: string): Promise<number> {
    await this.#balancer.update({ backends: [url], clock: this.#clock })
    assert.equal(await (await this.#balancer.fetch('/')).text(), 'ok')
    const { number } = this.#balancer.revisions().at(-1)!
    await this.#balancer.close()
    assert.equal(this.#clock.pending, 0)
    return number
  }

  async #try(kind: Kind, spoilt: Spoilt): Promise<void> {
    const figures = this.figures[kind]
    if ('text' in spoilt) return this.#load(figures, parseConfig(spoilt.text, { ...this.#sources, ...spoilt }), spoilt)
    const made = spoilt.made()
    if (kind === 'tables') return this.#load(figures, configOf(made as never, this.#sources), spoilt)
    if (kind === 'options') return this.#apply(figures, made as BalancerOptions, spoilt)
    let balancer: Balancer | undefined
    try {
      balancer = createBalancer(made as BalancerOptions)
    } catch (error) {
      return this.#refused(figures, error, spoilt)
    }
    figures.taken++
    await balancer.close()
  }

  async #load(figures: Figures, loading: ReturnType<typeof parseConfig>, spoilt: Spoilt): Promise<void> {
    const loaded = await loading.catch((error: unknown) => this.#refused(figures, error, spoilt, true))
    if (loaded === undefined) return
    for (const warning of loaded.warnings) checkIssue(warning, spoilt, true)
    await this.#apply(figures, { ...loaded.options, transport: nowhere }, spoilt)
  }

  /** All of it, or nothing. */
  async #apply(figures: Figures, options: BalancerOptions, spoilt: Spoilt): Promise<void> {
    const balancer = this.#balancer
    const before = seenOf(balancer)
    const updating = balancer.update(options)
    // At once: checks and whatever else is under way goes on meanwhile.
    const after = seenOf(balancer)
    try {
      await updating
    } catch (error) {
      this.#refused(figures, error, spoilt)
      assert.deepEqual(after, before, 'a refused update has changed something')
      if (figures.refused % 25 === 0) {
        const { number, hash } = await balancer.update(this.#inForce)
        assert.deepEqual({ number, hash }, before.revision, 'settings have changed')
      }
      return
    }
    figures.taken++
    this.#inForce = options
    borrow(balancer)
    const expected = Object.entries(options.pools ?? { default: options }).map(([name, pool]) => {
      return [
        name,
        Array.from(pool.backends!, (backend: string | { readonly url: string }) =>
          typeof backend === 'string' ? backend : backend.url,
        ),
      ]
    })
    const found = Object.entries(balancer.stats().pools).map(([name, pool]) => [
      name,
      pool.backends.map(({ url }) => url),
    ])
    assert.deepEqual(found, expected)
  }

  #refused(figures: Figures, error: unknown, spoilt: Spoilt, isFile = false): undefined {
    if (isPlanted(error) && !isFile) figures.planted++
    else if (checkRefusal(error, spoilt, isFile)) figures.unreadable++
    else figures.refused++
  }
}

interface Seen {
  readonly stats: unknown
  readonly name: string
  readonly applied: number
  readonly revision: { readonly number: number; readonly hash: string }
}

function seenOf(balancer: Balancer): Seen {
  const { number, hash } = balancer.revisions().at(-1)!
  const { applied } = balancer.updates
  return { stats: balancer.stats(), name: balancer.name, applied, revision: { number, hash } }
}

/** A strategy with odd settings has to choose, or to say that it cannot. */
function borrow(balancer: Balancer): void {
  for (const pool of Object.keys(balancer.stats().pools)) {
    try {
      balancer.acquire({ pool, key: 'k' }).succeed()
    } catch (error) {
      if (!isPlanted(error)) assert.ok(error instanceof BalancerError, inspect(error))
    }
  }
}

/** Thrown by what an edit has put there. */
function isPlanted(error: unknown): boolean {
  return error instanceof Planted || (error instanceof Error && error.cause instanceof Planted)
}

/** It is the one error, and says what is wrong and nothing else. Gives whether the text was no TOML or JSON at all. */
function checkRefusal(error: unknown, spoilt: Spoilt, isFile: boolean): boolean {
  if (!(error instanceof BalancerError)) throw error
  assert.equal(error.code, 'CONFIG')
  const { issues = [], warnings = [], message } = error
  // What a function of the user's own gives is met in no field.
  assert.ok(issues.length > 0 || !isFile, 'no issues')
  assert.ok(message.length < MOST_MESSAGE, `a message of ${message.length} characters`)
  for (const issue of [...issues, ...warnings]) checkIssue(issue, spoilt, isFile)
  const isUnreadable = issues.some(({ expected }) => /^valid (TOML|JSON)$/.test(expected))
  if (isUnreadable) assert.ok(!message.includes(CANARY) && issues.length === 1, message)
  if (isUnreadable && 'text' in spoilt && spoilt.format === 'toml') assert.ok(issues[0]!.line !== undefined, message)
  return isUnreadable
}

function checkIssue({ path, expected, found, line, column }: ConfigIssue, spoilt: Spoilt, isFile: boolean): void {
  const told = JSON.stringify({ path, expected, found, line, column })
  assert.ok(path !== '' && expected !== '' && found !== '', told)
  assert.ok(path.length < 70 * 80 && expected.length < MOST_WORDS && found.length < MOST_WORDS, told)
  // Keys have to be told; a secret that an edit has made one of is none any more.
  if (isFile && !path.includes(CANARY)) assert.ok(!`${expected}${found}`.includes(CANARY), told)
  if (!('text' in spoilt)) return
  if (line === undefined) {
    // What is missing from the whole file stands nowhere in it; and the parser of places is the stricter one: no 30th of February.
    const isNowhere = spoilt.format === 'json' || path === 'the file' || positionsOf(spoilt.text).size === 0
    return assert.ok(isNowhere, told)
  }
  const lines = spoilt.text.split('\n')
  assert.ok(line >= 1 && line <= lines.length, told)
  assert.ok(column! >= 1 && column! <= lines[line - 1]!.length + 1, told)
}

/** What the prototypes of everything hold: keys, and what they mean. */
function prototypesNow(): readonly unknown[] {
  return [Object.prototype, Array.prototype, Function.prototype].flatMap((prototype) => {
    return Reflect.ownKeys(prototype).flatMap((key) => [key, Object.getOwnPropertyDescriptor(prototype, key)!.value])
  })
}

function isSame(now: readonly unknown[], before: readonly unknown[]): boolean {
  return now.length === before.length && now.every((it, place) => Object.is(it, before[place]))
}
