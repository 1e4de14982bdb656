/** Many calls at once, for as long as it takes. */
export interface Crowd {
  readonly calls: () => number
  /** Calls that failed, in words. */
  readonly failed: readonly string[]
  /** No new calls; resolves when those under way are over. */
  stop(): Promise<void>
}

/** Keeps so many calls in flight: each place sends its next one as soon as its last one is over. */
export function crowd(inflight: number, send: (place: number, round: number) => Promise<unknown>): Crowd {
  const failed: string[] = []
  let running = true
  let calls = 0
  const places = Array.from({ length: inflight }, async (_, place) => {
    for (let round = 0; running; round++) {
      calls++
      try {
        await send(place, round)
      } catch (error) {
        failed.push(String(error))
        await new Promise(setImmediate) // one that fails at once must not keep everybody else from running
      }
    }
  })
  return {
    calls: () => calls,
    failed,
    async stop() {
      running = false
      await Promise.all(places)
    },
  }
}
