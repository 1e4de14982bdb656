import type { Source, Stop } from './contracts.ts'
import { BalancerError } from './errors.ts'

/** Who follows sources: the balancer. */
export interface SourceHost<Options> {
  /** Puts into force what `read` returns. It throws what `read` throws, and what is wrong with the options. */
  install(read: () => Options, source: string): void
  tell(event: 'reloadFailed' | 'warning', error: BalancerError): void
}

/** The sources that are followed, until each is stopped, or all are. */
export class Sources<Options> {
  readonly #host: SourceHost<Options>
  readonly #stops = new Set<Stop>()

  constructor(host: SourceHost<Options>) {
    this.#host = host
  }

  follow(source: Source<Options>): Stop {
    const { name } = source
    let isOver = false
    const install = (read: () => Options): void => {
      if (isOver) return // not every source heeds its stop
      try {
        this.#host.install(read, name)
      } catch (error) {
        this.#host.tell('reloadFailed', reloadError(name, error))
      }
    }
    let unsubscribe: Stop
    try {
      unsubscribe = source.subscribe(
        (options) => install(() => options),
        (error) =>
          install(() => {
            throw error
          }),
      )
    } catch (cause) {
      isOver = true
      throw new BalancerError('CONFIG', `subscribe of the source ${name} threw`, { cause })
    }
    const stop = (): void => {
      if (isOver) return
      isOver = true
      this.#stops.delete(stop)
      try {
        unsubscribe()
      } catch (cause) {
        this.#host.tell('warning', new BalancerError('CONFIG', `stop of the source ${name} threw`, { cause }))
      }
    }
    this.#stops.add(stop)
    return stop
  }

  stop(): void {
    for (const stop of this.#stops) stop()
  }
}

/** Why a source brought nothing. Of errors that nobody here knows only the name is told: parsers quote what they cannot read. */
function reloadError(source: string, error: unknown): BalancerError {
  if (error instanceof BalancerError) return error
  const { syscall, message, name } = (error instanceof Error ? error : {}) as Partial<
    Error & { readonly syscall: string }
  >
  const isSystem = syscall !== undefined // Node's own: which file, and why
  const what = isSystem ? message : `it threw ${typeof name === 'string' ? name : 'what is no error'}`
  return new BalancerError('CONFIG', `${source}: ${what}`, isSystem ? { cause: error } : {})
}
