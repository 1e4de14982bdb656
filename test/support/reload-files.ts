import type { Random } from 'evenkeel'

/** A backend, as a file has it. */
export interface Member {
  readonly id: string
  readonly url: string
  readonly weight: number
}

/** A configuration file, and what it says by pool. */
export interface Version {
  readonly number: number
  readonly name: string
  readonly text: string
  readonly pools: Readonly<Record<string, readonly Member[]>>
}

/** Where backends are, by pool. The first two of each are in every file. */
export type Places = Readonly<Record<'main' | 'side' | 'extra', readonly string[]>>

const SIDE_STRATEGIES = ['auto', 'round-robin', 'random', 'p2c', 'least']

/** Another file: backends and one pool come and go, weights, limits, strategies and policies change by chance. */
export function version(number: number, places: Places, random: Random): Version {
  const name = `version ${number}`
  const some = (pool: keyof Places): readonly Member[] =>
    places[pool].flatMap((url, n) =>
      n >= 2 && random(2) === 0 ? [] : [{ id: `${pool}-${n}`, url, weight: 1 + random(4) }],
    )
  const pools = { main: some('main'), side: some('side'), ...(random(2) === 0 && { extra: some('extra') }) }
  const settings = `[settings]
name = "${name}"
retry.attempts = ${2 + random(3)}
timeouts.total = "${30 + random(30)}s"
health.passive.consecutive = ${5 + random(5)}
health.slow_start = false
health.cooldown = ${random(2) === 0 ? '{}' : 'false'}
${random(2) === 0 ? '[settings.breaker]' : ''}
[pools.main]
strategy = "weighted-round-robin"
limits.max_inflight = ${1_000 + random(1_000)}
${random(2) === 0 ? 'hedge.delay = "20s"' : ''}
[pools.side]
strategy = "${SIDE_STRATEGIES[random(SIDE_STRATEGIES.length)]}"
limits.adaptive = ${random(2) === 0 ? 'false' : '{ initial = 100, min = 100 }'}
undici.connections = ${64 + random(2)} # another transport
`
  return { number, name, text: settings + Object.entries(pools).flatMap(tablesOf).join('\n'), pools }
}

/** A file that is wrong, and what is said of it. */
export interface Fault {
  readonly spoil: (text: string) => string
  readonly complaint: RegExp
}

/** Of files that would otherwise be new. */
export const FAULTS: readonly Fault[] = [
  { spoil: (text) => text.replace('[pools.side]', '[pools.side'), complaint: /valid TOML/ },
  { spoil: (text) => `${text}\n[pools.main.retri]\nattempts = 1\n`, complaint: /pools\.main\.retri: .* unknown key/ },
  { spoil: (text) => text.slice(0, text.indexOf('//') + 2), complaint: /valid TOML, found unfinished string/ },
  { spoil: () => '', complaint: /expected backends, pools or models, found none/ },
]

function tablesOf([pool, members]: readonly [string, readonly Member[]]): readonly string[] {
  return members.map(
    ({ id, url, weight }) => `[[pools.${pool}.backends]]\nid = "${id}"\nurl = "${url}"\nweight = ${weight}`,
  )
}
