import type { Backend, Chooser, Core, Members, Picker, Strategy } from '../core/contracts.ts'
import { healthOf, isAble, loadsOf, priorityOf, weightOf } from '../core/tiers.ts'
import { expected, expectedOptions, expectedWithin } from './expected.ts'
import { OVERPROVISIONING } from './failover.ts'
import { Groups, pickerOver } from './groups.ts'
import { keyWithin } from './key.ts'

export interface LocalityOptions {
  /** The caller's own zone, as in the backends' `zone`. */
  readonly zone: string
  /**
   * How many callers there are in each zone, in any unit. With them the zones are filled evenly whatever zone the callers are in
   * (Envoy's zone aware routing); without, every caller prefers its own zone.
   */
  readonly callers?: Readonly<Record<string, number>>
  /** The own zone carries everything while its usable share times this is at least 1; default 1.4 (Envoy). Not used with `callers`. */
  readonly overprovisioning?: number
}

/** Below this many usable backends Envoy does not look at zones: shares of so few would be too coarse. */
const FEWEST = 6
/** Shares of zones are whole numbers out of this. */
const SCALE = 1 << 20

/**
 * The caller's own zone first, the others together for what it cannot carry; `inner` chooses within. With `callers` a zone keeps
 * its callers only as far as its share of the backends goes, and the rest goes where backends are left over, if there
 * are six usable backends in two zones. Inside `failover`, not around it.
 */
export function locality(inner: Strategy, options: LocalityOptions): Strategy {
  expectedOptions('locality', options)
  const { zone, callers, overprovisioning = OVERPROVISIONING } = options
  expected(typeof zone === 'string', 'locality: zone', "the caller's own zone, a string", zone)
  expected(overprovisioning >= 1, 'locality: overprovisioning', 'a number >= 1', overprovisioning)
  const counts = amountsOf(callers ?? {}, 'locality: callers')
  const own = counts.get(zone) ?? 0
  expected(callers === undefined || own > 0, `locality: callers.${zone}`, 'a number above 0, for the own zone', own)
  return zoned(inner, 'locality', (members, groups, { random }) => {
    const { eligible } = members
    if (callers !== undefined) {
      const zones = [...new Set([zone, ...eligible.map(zoneOf)])]
      const shares = evenly(zones, counts, eligible)
      return shares === undefined
        ? pickerOver(
            groups.build(members, ['everyone'], () => 'everyone'),
            [1],
            random,
          )
        : pickerOver(groups.build(members, zones, zoneOf), shares, random)
    }
    const isNear = (backend: Backend): boolean => zoneOf(backend) === zone
    const peers = peersOf(members)
    const loads = loadsOf([
      healthOf(eligible.filter(isNear), peers.filter(isNear), overprovisioning),
      healthOf(
        eligible.filter((it) => !isNear(it)),
        peers.filter((it) => !isNear(it)),
        overprovisioning,
      ),
    ])
    return pickerOver(groups.build(members, [true, false], isNear), loads, random)
  })
}

export interface ZoneWeightsOptions {
  /** Share of the traffic of each zone relative to the others, >= 0; default 1; 0 = only when nobody else can be had. */
  readonly weights: Readonly<Record<string, number>>
  /** A zone has its whole weight while its usable share times this is at least 1; default 1.4 (Envoy). */
  readonly overprovisioning?: number
}

/** Zones in proportion to their weights, each less by what it has lost (Envoy's locality weights); `inner` chooses within. */
export function zoneWeights(inner: Strategy, options: ZoneWeightsOptions): Strategy {
  expectedOptions('zone-weights', options)
  const { weights, overprovisioning = OVERPROVISIONING } = options
  expected(overprovisioning >= 1, 'zone-weights: overprovisioning', 'a number >= 1', overprovisioning)
  const amounts = amountsOf(weights, 'zone-weights: weights')
  return zoned(inner, 'zone-weights', (members, groups, { random }) => {
    const peers = peersOf(members)
    const zones = [...new Set(members.eligible.map(zoneOf))]
    const effective = zones.map((zone) => {
      const usable = weightOf(members.eligible.filter((backend) => zoneOf(backend) === zone))
      const whole = weightOf(peers.filter((backend) => zoneOf(backend) === zone))
      return (amounts.get(zone) ?? 1) * Math.min(1, (overprovisioning * usable) / whole)
    })
    return pickerOver(groups.build(members, zones, zoneOf), scaled(effective), random)
  })
}

function zoned(
  inner: Strategy,
  name: string,
  build: (members: Members, groups: Groups, core: Core) => Picker,
): Strategy {
  expectedWithin(name, inner)
  return {
    name: `${name}(${inner.name})`,
    ...keyWithin(inner),
    start(core): Chooser {
      const groups = new Groups(inner, core)
      const { head, settle, score } = groups
      return { head, settle, score, build: (members) => build(members, groups, core) }
    },
  }
}

/**
 * Envoy's zone aware split: shares of the zones, the own one first; undefined if it does not apply. Own callers stay as far as
 * the own zone's share of the backends goes; the rest goes to zones whose share is above that of their callers.
 */
function evenly(
  zones: readonly string[],
  callers: ReadonlyMap<string, number>,
  eligible: readonly Backend[],
): number[] | undefined {
  const total = weightOf(eligible)
  const upstream = zones.map((zone) => weightOf(eligible.filter((it) => zoneOf(it) === zone)) / total)
  const everyone = [...callers.values()].reduce((sum, count) => sum + count, 0)
  const local = zones.map((zone) => (callers.get(zone) ?? 0) / everyone)
  const applies = eligible.length >= FEWEST && zones.length > 1 && upstream[0]! > 0 && local[0]! < 1
  if (!applies) return undefined
  const stay = Math.min(1, upstream[0]! / local[0]!)
  const spare = upstream.map((share, i) => (i === 0 ? 0 : Math.max(0, share - local[i]!)))
  const room = spare.reduce((sum, share) => sum + share, 0)
  return scaled(spare.map((share, i) => (i === 0 ? stay : room > 0 ? ((1 - stay) * share) / room : 0)))
}

/** Numbers by zone; a map, for a zone may be any word. */
function amountsOf(amounts: Readonly<Record<string, number>>, option: string): ReadonlyMap<string, number> {
  expected(typeof amounts === 'object' && amounts !== null, option, 'an object of numbers by zone', amounts)
  const entries = Object.entries(amounts)
  for (const [zone, amount] of entries) {
    expected(amount >= 0 && amount < Infinity, `${option}.${zone}`, 'a number >= 0', amount)
  }
  return new Map(entries)
}

/** In whole numbers that sum up to about SCALE. */
function scaled(shares: readonly number[]): number[] {
  const total = shares.reduce((sum, share) => sum + share, 0)
  return shares.map((share) => (total === 0 ? 0 : Math.round((share / total) * SCALE)))
}

/** Everybody able in the priorities in use: what the usable are a part of. */
function peersOf({ all, eligible }: Members): readonly Backend[] {
  const used = new Set(eligible.map(priorityOf))
  return all.filter((backend) => isAble(backend) && used.has(priorityOf(backend)))
}

function zoneOf({ endpoint }: Backend): string {
  return endpoint.zone ?? ''
}
