import type { Strategy } from '../core/contracts.ts'
import { PROBE_PATH } from '../core/load.ts'
import type { PrequalOptions } from '../core/strategy-options.ts'
import { expected, expectedOptions } from './expected.ts'
import { PrequalChooser } from './prequal-chooser.ts'

/** What a request line takes. */
const TARGET = /^[\x21\x22\x24-\x7e]+$/

/** Every setting said. */
export type PrequalSettings = Required<PrequalOptions>

/**
 * Prequal (Wydrowski et al., NSDI '24): the backends report their load, in answers to probes
 * beside the traffic and in every answer, as `loadReport` of `evenkeel/load-report` does. Of the latest reports it takes the backend with
 * the least latency among those that have few requests in flight (hot-cold lexicographic). For many processes in front of the same
 * backends, which see little of their load each. Backends that do not report, and pools of fewer than four, are chosen by what this process
 * sees. Probes go by weight; O(`poolSize`) a pick.
 */
export function prequal(options: PrequalOptions = {}): Strategy {
  expectedOptions('prequal', options)
  const {
    path = PROBE_PATH,
    probesPerRequest = 3, // the paper finds little difference down to about 1
    removalsPerRequest = 1,
    poolSize = 16,
    maxAgeMs = 1_000,
    rifQuantile = 0.84, // 2^-0.25
    timeoutMs = 250,
    maxProbesPerSecond = 200,
  } = options
  const settings: PrequalSettings = {
    path,
    probesPerRequest,
    removalsPerRequest,
    poolSize,
    maxAgeMs,
    rifQuantile,
    timeoutMs,
    maxProbesPerSecond,
  }
  check(settings)
  return { name: 'prequal', start: (core) => new PrequalChooser(core, settings) }
}

function check(settings: PrequalSettings): void {
  const { path, poolSize } = settings
  expected(typeof path === 'string' && path.startsWith('/'), 'prequal: path', "a path that starts with '/'", path)
  expected(TARGET.test(path), 'prequal: path', "ASCII without spaces and '#'", path)
  const isSize = Number.isInteger(poolSize) && poolSize >= 2 && poolSize <= 256
  expected(isSize, 'prequal: poolSize', 'a whole number from 2 to 256', poolSize)
  for (const [name, least, most] of BOUNDS) {
    const value = settings[name]
    const bounds = most === Infinity ? `a number >= ${least}` : `${least} to ${most}`
    expected(value >= least && value <= most && value < Infinity, `prequal: ${name}`, bounds, value)
  }
}

const BOUNDS = [
  ['probesPerRequest', 0.1, 100],
  ['removalsPerRequest', 0, 100],
  ['maxAgeMs', 1, Infinity],
  ['rifQuantile', 0, 1],
  ['timeoutMs', 1, Infinity],
  ['maxProbesPerSecond', 1, Infinity],
] as const
