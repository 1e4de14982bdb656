import type {
  Attempt,
  Backend,
  BalancerResponse,
  Call,
  Chooser,
  Core,
  Members,
  Picker,
  RawHeaders,
} from '../core/contracts.ts'
import { Deadline } from '../core/deadlines.ts'
import { BalancerError } from '../core/errors.ts'
import { loadIn, type ReportedLoad, RIF_HEADER } from '../core/load.ts'
import { drawByWeight } from './alias.ts'
import { least } from './least.ts'
import { p2c } from './p2c.ts'
import { byInflight, byPeakEwma } from './prefer.ts'
import type { PrequalSettings } from './prequal.ts'
import { Probes } from './prequal-probes.ts'
import { Reports, reuseOf } from './prequal-reports.ts'
import { Standing, type Word } from './prequal-standing.ts'

/** Fewer backends are looked at one by one. */
const FEWEST = 4
/** With fewer reports there is nothing to compare. */
const COMPARABLE = 2
/** What comes in per request is a mean over about so many of them, what is unknown one over so many draws. */
const REQUESTS = 32
const DRAWN = 96
/** Draws beyond those wanted, for others than were drawn already. */
const REDRAWS = 5
/** Without traffic one probe goes out this often, and for so long, ms. */
const IDLE_PROBE_MS = 1_000
const IDLE_MS = 10_000
/** Resolution of a lot. */
const STEPS = 1 << 30

/** Who is eligible, by whether they report. */
interface Group {
  readonly list: readonly Backend[]
  /** Whose reports count; nobody if they are too few. */
  readonly speaking: ReadonlySet<Backend>
  readonly draw: () => Backend
  readonly heaviest: number
  /** Most reports kept. */
  readonly most: number
  /** Without reports: among those who would give them, and among the silent. */
  readonly blind: Picker
  readonly silent: Picker
  /** What the silent ones have of the weight. */
  readonly silentShare: number
}

/** Prequal at work in one pool. What it does in idle times ends by itself, soon after the last pick. */
export class PrequalChooser implements Chooser {
  readonly #core: Core
  readonly #settings: PrequalSettings
  readonly #probes: Probes
  readonly #reports: Reports
  readonly #standings = new WeakMap<Backend, Standing>()
  readonly #idle: Deadline
  #group: Group
  /** The last choice, and what it was made for. */
  #last: Backend | undefined
  #lastCall: Call | undefined
  #pickedMs = -Infinity
  /** Of the pool, at the last pick. */
  #members: Members | undefined
  /** Reports since the last request, and per request. */
  #taken = 0
  #perRequest: number
  /** Share of the draws that met somebody of whom nothing is known, when no probe was allowed. */
  #unknown = 0
  #looks = 0
  #isWorstNext = false
  readonly #warned = new Set<string>()

  constructor(core: Core, settings: PrequalSettings) {
    this.#core = core
    this.#settings = settings
    this.#probes = new Probes(core, settings, (backend, answer, isBad) => this.#answered(backend, answer, isBad))
    this.#reports = new Reports(core.random)
    this.#idle = new Deadline(core.deadlines, () => this.#rest())
    this.#perRequest = settings.probesPerRequest
    this.#group = this.#groupOf([])
  }

  build({ eligible }: Members): Picker {
    const list = [...eligible] // reading a frozen array is slower
    return (call) => {
      // Only now: a change that is tried but not made must not count, and who reports may change until then.
      if (this.#group.list !== list) this.#enter(this.#groupOf(list))
      return this.#pick(call)
    }
  }

  head({ backend, headers, headMs, rule }: Attempt): void {
    const word = this.#heard(backend, headers, rule?.health === 'failure', headMs, backend.inflight - 1)
    // It comes unasked: who answers more often must not be met more often than by its weight.
    if (word !== undefined && this.#chance(this.#group.heaviest) < backend.weight) this.#take(backend, word, headMs)
  }

  settle({ backend, call, rule, endMs }: Attempt): void {
    if (call === this.#lastCall) this.#lastCall = undefined // it was not refused, and its body need not be kept
    const standing = this.#standingOf(backend)
    if (rule?.health === 'success') standing.succeed(endMs)
    if (rule?.health === 'failure' && standing.fail(this.#medianOfFailures(), endMs)) this.#reports.drop(backend)
  }

  // --- picks

  #pick(call: Call): Backend | undefined {
    const { speaking, silent, silentShare, blind } = this.#group
    if (speaking.size === 0) return blind(call)
    // Asked again for the same call, which was not sent there: it was refused.
    if (call === this.#lastCall && !call.tried(this.#last!)) this.#reports.drop(this.#last)
    this.#lastCall = call
    this.#last = this.#chance(1) < silentShare ? silent(call) : (this.#coldest(call) ?? blind(call))
    if (call.picks === 0) this.#turnOver(call.nowMs)
    return this.#last
  }

  /** Undefined where the reports are too few, or the backends of whom there are none too many. */
  #coldest(call: Call): Backend | undefined {
    this.#reports.expire(call.nowMs - this.#settings.maxAgeMs)
    if (this.#reports.all.length < COMPARABLE || this.#chance(1) < this.#unknown) return undefined
    const report = this.#reports.choose(this.#settings.rifQuantile, call)
    if (report !== undefined) this.#reports.use(report)
    return report?.backend
  }

  /** Once per request: some reports go, others are looked for. */
  #turnOver(nowMs: number): void {
    this.#perRequest += (this.#taken - this.#perRequest) / REQUESTS
    this.#taken = 0
    for (let left = this.#rounded(this.#removals); left > 0 && this.#reports.all.length > COMPARABLE; left--) {
      if (this.#isWorstNext) this.#reports.dropWorst(this.#settings.rifQuantile)
      else this.#reports.dropOldest()
      this.#isWorstNext = !this.#isWorstNext
    }
    this.#lookAround(this.#rounded(this.#settings.probesPerRequest), nowMs)
    this.#pickedMs = nowMs
    this.#members = this.#core.members()
    this.#idle.set(IDLE_PROBE_MS, nowMs)
  }

  /** Per request; in proportion to what comes in, or few reports would be thrown away before they are used. */
  get #removals(): number {
    const { probesPerRequest, removalsPerRequest } = this.#settings
    return removalsPerRequest * Math.min(1, this.#perRequest / probesPerRequest)
  }

  /** Asks so many distinct backends, drawn by weight, how they are. Who has said so lately is not asked: his word is taken. */
  #lookAround(wanted: number, nowMs: number): void {
    const look = ++this.#looks
    for (let left = wanted, draws = wanted + REDRAWS; left > 0 && draws > 0; draws--) {
      const backend = this.#group.draw()
      const standing = this.#standingOf(backend)
      if (standing.drawn === look) continue
      standing.drawn = look
      left--
      if (standing.isSuspect(nowMs) || this.#probes.isOut(backend)) continue
      const word = standing.said
      const isKnown = word !== undefined && nowMs - word.atMs <= this.#settings.maxAgeMs
      const isAsked = !isKnown && this.#probes.isAllowed(nowMs)
      if (isKnown) this.#take(backend, movedOn(word, backend.inflight), nowMs)
      if (isAsked) this.#probes.send(backend, nowMs)
      this.#unknown += ((isKnown || isAsked ? 0 : 1) - this.#unknown) / DRAWN
    }
  }

  /** Nobody has picked for a while. */
  #rest(): void {
    const nowMs = this.#core.clock.now()
    const { speaking, draw } = this.#group
    if (nowMs - this.#pickedMs > IDLE_MS || speaking.size === 0) return
    if (this.#core.members() !== this.#members) return // they have changed since, or another strategy has its place
    const backend = draw()
    if (!this.#probes.isOut(backend) && this.#probes.isAllowed(nowMs)) this.#probes.send(backend, nowMs)
    this.#idle.set(IDLE_PROBE_MS, nowMs)
  }

  // --- reports

  #answered(backend: Backend, answer: BalancerResponse | undefined, isBad: boolean): void {
    const nowMs = this.#core.clock.now()
    if (answer !== undefined && (answer.status < 200 || answer.status > 299)) {
      const asked = `GET ${backend.basePath}${this.#settings.path}`
      this.#warn('probe', backend, `answers a probe, ${asked}, with ${answer.status}: nobody there reports its load`)
    }
    const word = this.#heard(backend, answer?.headers, isBad, nowMs, backend.inflight)
    if (word !== undefined) this.#take(backend, word, nowMs)
    else if (isBad && this.#standingOf(backend).suspect(nowMs)) this.#reports.drop(backend)
  }

  /** What an answer says of its server, if it does. */
  #heard(
    backend: Backend,
    headers: RawHeaders | undefined,
    isBad: boolean,
    atMs: number,
    own: number,
  ): Word | undefined {
    if (headers === undefined) return undefined
    const load = loadIn(headers)
    const standing = this.#standingOf(backend)
    // An error may come from something in between.
    if ((load !== undefined || !isBad) && standing.answered(load !== undefined)) this.#regroup(backend)
    if (load === undefined) return undefined
    standing.said = { ...load, atMs, own }
    return standing.said
  }

  #take(backend: Backend, { rif, latencyMs = this.#meanLatency() }: ReportedLoad, nowMs: number): void {
    const { speaking, most } = this.#group
    if (!speaking.has(backend) || this.#standingOf(backend).isSuspect(nowMs)) return
    this.#taken++
    const uses = this.#rounded(reuseOf(most, speaking.size, this.#perRequest, this.#removals))
    this.#reports.take({ backend, rif, latencyMs, takenMs: nowMs, uses }, most)
  }

  /** Of one that does not know its own yet. */
  #meanLatency(): number {
    const { all } = this.#reports
    return all.length === 0 ? 0 : all.reduce((sum, { latencyMs }) => sum + latencyMs, 0) / all.length
  }

  #medianOfFailures(): number {
    const shares = this.#reports.all.map(({ backend }) => this.#standingOf(backend).failures).sort((a, b) => a - b)
    return shares[shares.length >> 1] ?? 0
  }

  #standingOf(backend: Backend): Standing {
    const known = this.#standings.get(backend)
    if (known !== undefined) return known
    const standing = new Standing()
    this.#standings.set(backend, standing)
    return standing
  }

  // --- who there is

  #groupOf(list: readonly Backend[]): Group {
    const isSilent = (backend: Backend): boolean => this.#standingOf(backend).isSilent
    const some = list.filter((backend) => !isSilent(backend))
    const speaking = some.length < FEWEST ? [] : some
    const silent = speaking.length === 0 ? [] : list.filter(isSilent)
    const index = speaking.length === 0 ? () => 0 : drawByWeight(speaking, this.#core.random)
    return {
      list,
      speaking: new Set(speaking),
      draw: () => speaking[index()]!,
      heaviest: speaking.reduce((most, { weight }) => Math.max(most, weight), 0),
      most: Math.min(this.#settings.poolSize, speaking.length >> 1),
      blind: this.#blindAmong(speaking.length === 0 ? list : speaking),
      silent: this.#blindAmong(silent),
      silentShare: weightOf(silent) / weightOf(list) || 0,
    }
  }

  /** By what this process sees. */
  #blindAmong(list: readonly Backend[]): Picker {
    const strategy = list.length < FEWEST ? least(byInflight) : p2c(byPeakEwma)
    return strategy.start(this.#core).build({ all: list, eligible: list })
  }

  #enter(group: Group): void {
    this.#group = group
    this.#reports.keep(group.speaking)
  }

  /** This one has fallen silent, or begins to report; the first time it can only be silence. */
  #regroup(backend: Backend): void {
    this.#enter(this.#groupOf(this.#group.list))
    this.#warn('silence', backend, `answers without ${RIF_HEADER}: it is chosen by what this process sees of it`)
  }

  /** Once of each. */
  #warn(of: 'probe' | 'silence', { id }: Backend, what: string): void {
    if (this.#warned.has(of)) return
    this.#warned.add(of)
    const message = `prequal: backend ${id} of pool ${this.#core.pool} ${what}`
    this.#core.emit('warning', new BalancerError('CONFIG', message, { backend: id }))
  }

  // --- chance

  #chance(upTo: number): number {
    return (upTo * this.#core.random(STEPS)) / STEPS
  }

  /** A fraction is rounded by lot. */
  #rounded(value: number): number {
    const whole = Math.floor(value)
    return this.#chance(1) < value - whole ? whole + 1 : whole
  }
}

/** What a word is worth after what this process has sent there since, and what has ended. */
function movedOn({ rif, latencyMs, own }: Word, inflight: number): ReportedLoad {
  const now = Math.max(0, rif + inflight - own)
  return { rif: now, latencyMs: latencyMs === undefined ? undefined : (latencyMs * (now + 1)) / (rif + 1) }
}

function weightOf(backends: readonly Backend[]): number {
  return backends.reduce((sum, { weight }) => sum + weight, 0)
}
