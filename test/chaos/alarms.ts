/** What must never be heard of while faults are played: 'unhandledRejection', 'uncaughtException', 'warning'. */
export interface Alarms {
  readonly all: readonly string[]
  stop(): void
}

/** Listens until it is stopped. */
export function alarms(): Alarms {
  const all: string[] = []
  const hearers = (['unhandledRejection', 'uncaughtExceptionMonitor', 'warning'] as const).map((event) => {
    const hear = (what: unknown): void => {
      all.push(`${event}: ${what instanceof Error ? what.stack : what}`)
    }
    process.on(event, hear)
    return () => process.off(event, hear)
  })
  return {
    all,
    stop() {
      for (const stop of hearers) stop()
    },
  }
}
