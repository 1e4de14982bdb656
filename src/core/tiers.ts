import type { Backend, Strategy } from './contracts.ts'

/** A strategy that shares out between priorities itself: the usable of every priority are eligible, not of one alone. */
export interface TieredStrategy extends Strategy {
  /** A tier is well while its healthy share times this is at least 1. */
  readonly overprovisioning?: number
}

/** The backends of one priority. */
export interface Tier {
  readonly priority: number
  /** All but those of weight 0 and those with a hard reason: they are as good as absent. */
  readonly able: readonly Backend[]
  readonly healthy: readonly Backend[]
  /** Of what it is to carry, in whole percent: 100 at most. */
  readonly health: number
}

export function priorityOf({ endpoint }: Backend): number {
  return endpoint.priority ?? 0
}

export function isAble({ weight, reasons }: Backend): boolean {
  return weight > 0 && ![...reasons.values()].some(({ hard }) => hard)
}

/** The tiers that have somebody able, the first priority first. */
export function tiersOf(
  all: readonly Backend[],
  healthy: (backend: Backend) => boolean,
  overprovisioning: number,
): readonly Tier[] {
  const able = all.filter(isAble)
  const priorities = [...new Set(able.map(priorityOf))].sort((a, b) => a - b)
  return priorities.map((priority) => {
    const members = able.filter((backend) => priorityOf(backend) === priority)
    const well = members.filter(healthy)
    return { priority, able: members, healthy: well, health: healthOf(well, members, overprovisioning) }
  })
}

/** What a part of some backends can carry of what all of them are there for, by weight, in whole percent (Envoy). */
export function healthOf(part: readonly Backend[], whole: readonly Backend[], overprovisioning: number): number {
  if (part.length === 0) return 0
  const percent = Math.round(100 * overprovisioning)
  return Math.min(100, Math.floor((percent * weightOf(part)) / weightOf(whole)))
}

export function weightOf(backends: readonly Backend[]): number {
  return backends.reduce((sum, { weight }) => sum + weight, 0)
}

/** Envoy's split, in percent: each takes what its health allows of what is left; the first that has any takes what rounding leaves. */
export function loadsOf(healths: readonly number[]): number[] {
  const sum = Math.min(
    100,
    healths.reduce((total, health) => total + health, 0),
  )
  if (sum === 0) return healths.map(() => 0)
  let left = 100
  const loads = healths.map((health) => {
    const load = Math.min(left, Math.floor((health * 100) / sum))
    left -= load
    return load
  })
  loads[healths.findIndex((health) => health > 0)]! += left
  return loads
}

/**
 * Who may be picked in each tier, by Envoy's rule: panic is only where the tiers together cannot carry everything, and in a tier with
 * a share of the traffic whose healthy are too few; everybody able is used there.
 */
export function inUseByTiers(
  all: readonly Backend[],
  panicBelow: number,
  overprovisioning: number,
): { eligible: readonly Backend[]; panic: boolean } {
  const tiers = tiersOf(all, ({ reasons }) => reasons.size === 0, overprovisioning)
  const healths = tiers.map(({ health }) => health)
  const loads = loadsOf(healths)
  const enough = healths.reduce((sum, health) => sum + health, 0) >= 100
  const few = tiers.map(({ able, healthy }) => !enough && healthy.length / able.length < panicBelow)
  const panics = few.map((it, i) => it && (loads[i]! > 0 || few.every(Boolean)))
  const used = new Set(tiers.flatMap(({ able, healthy }, i) => (panics[i] ? able : healthy)))
  return { eligible: Object.freeze(all.filter((backend) => used.has(backend))), panic: panics.includes(true) }
}
