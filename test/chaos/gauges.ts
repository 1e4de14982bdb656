import process from 'node:process'
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** In use after everything that can be collected is, bytes. */
export async function heapBytes(): Promise<number> {
  await collected()
  return process.memoryUsage().heapUsed
}

/**
 * What leaks ends up here, bytes: without code, which is compiled for minutes, and without the young ones, which are calls under way.
 */
export async function keptBytes(): Promise<number> {
  await collected()
  const kept = getHeapSpaceStatistics().filter(({ space_name: name }) => /^(old|large_object)_space$/.test(name))
  return kept.reduce((sum, { space_used_size: bytes }) => sum + bytes, 0)
}

async function collected(): Promise<void> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise(setImmediate) // finalizers run
  }
}

/** What holds up this process, and who listens to it. */
export function standing(): { sockets: number; timers: number; listeners: number } {
  const resources = process.getActiveResourcesInfo()
  const count = (kind: RegExp): number => resources.filter((name) => kind.test(name)).length
  const listeners = process.eventNames().reduce((sum, event) => sum + process.listenerCount(event), 0)
  return { sockets: count(/TCP|TLS/), timers: count(/Timeout/), listeners }
}

/** Median slope over all pairs of points (Theil-Sen): a few wild samples do not move it. */
export function slopeOf(points: readonly (readonly [x: number, y: number])[]): number {
  const slopes: number[] = []
  for (const [i, [x, y]] of points.entries()) {
    for (const [x2, y2] of points.slice(i + 1)) if (x2 !== x) slopes.push((y2 - y) / (x2 - x))
  }
  slopes.sort((a, b) => a - b)
  const middle = slopes.length / 2
  return slopes.length === 0 ? 0 : (slopes[Math.floor(middle)]! + slopes[Math.ceil(middle) - 1]!) / 2
}
