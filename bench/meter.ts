import { GCProfiler, getHeapStatistics } from 'node:v8'

/** What a process allocated and collected meanwhile. */
export interface Used {
  /** On the JavaScript heap; the backing stores of buffers are not on it. */
  readonly bytes: number
  /** Main thread's time in collections. */
  readonly gcUs: number
  readonly gcs: number
}

export interface Allocated extends Used {
  readonly failed: number
}

/** Node 24 has no counter of allocated bytes: it is the growth of the heap, plus what each collection took off it. */
export class Meter {
  readonly #profiler = new GCProfiler()
  readonly #startBytes: number

  constructor() {
    this.#profiler.start()
    this.#startBytes = getHeapStatistics().used_heap_size
  }

  stop(): Used {
    let bytes = getHeapStatistics().used_heap_size - this.#startBytes
    let gcUs = 0
    const { statistics } = this.#profiler.stop()
    for (const { beforeGC, afterGC, cost } of statistics) {
      bytes += beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize
      gcUs += cost // without the time the profiler itself takes, which a PerformanceObserver's entries would include
    }
    return { bytes, gcUs, gcs: statistics.length }
  }
}
