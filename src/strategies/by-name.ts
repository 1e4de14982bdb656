import type { Strategy } from '../core/contracts.ts'
import type { ResolvedStrategySettings as Settings } from '../core/resolved.ts'
import type { StrategyName } from '../core/strategy-options.ts'
import { auto } from './auto.ts'
import { edf } from './edf.ts'
import { failover } from './failover.ts'
import { jump } from './jump.ts'
import { least } from './least.ts'
import { maglev } from './maglev.ts'
import { orca } from './orca.ts'
import { p2c } from './p2c.ts'
import { byInflight, byPeakEwma } from './prefer.ts'
import { prequal } from './prequal.ts'
import { random, weightedRandom } from './random.ts'
import { rendezvous } from './rendezvous.ts'
import { ringHash } from './ring-hash.ts'
import { roundRobin } from './round-robin.ts'
import { smart } from './smart.ts'
import { thompson } from './thompson.ts'
import { weightedFailover } from './weighted-failover.ts'
import { weightedRoundRobin } from './weighted-round-robin.ts'

/** The member of a union of settings that is for this name, maybe among others. */
type For<Name, Of> = Of extends { readonly name: infer Names } ? (Name extends Names ? Of : never) : never

const FACTORIES: { readonly [Name in StrategyName]: (settings: For<Name, Settings>) => Strategy } = {
  auto,
  'round-robin': roundRobin,
  'weighted-round-robin': weightedRoundRobin,
  random,
  'weighted-random': weightedRandom,
  least: () => least(byInflight),
  p2c: (settings) => p2c(byInflight, settings),
  'peak-ewma': (settings) => p2c(byPeakEwma, settings),
  edf,
  orca,
  prequal,
  'ring-hash': ringHash,
  maglev,
  rendezvous,
  jump,
  failover: ({ strategy = { name: 'auto' }, ...settings }) => failover(byName(strategy), settings),
  'weighted-failover': weightedFailover,
  smart,
  thompson,
}

/** The strategy that settings mean; one that is a strategy already stays the object it is. */
export function byName(settings: Settings | Strategy): Strategy {
  if ('start' in settings) return settings
  return (FACTORIES[settings.name] as (settings: Settings) => Strategy)(settings)
}
