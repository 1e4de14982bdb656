/** What is measured, each in a process of its own, and the upstreams behind it. */
import { type Child, Children } from './children.ts'
import type { ClientKind, ClientQuestion } from './client-child.ts'
import { Load } from './load.ts'
import type { Allocated, Used } from './meter.ts'
import { type Profiled, profiling } from './profile.ts'
import type { ProxyKind, ProxyQuestion } from './proxy-child.ts'

export const UPSTREAMS = 4
export const IN_FLIGHT = 64

/** What one subject did in one round. */
export interface Round {
  readonly answered: number
  readonly perSecond: number
  readonly cpuUsPerRequest: number
  readonly failed: number
}

export interface Subject {
  readonly name: string
  /** Busy for so long. */
  round(seconds: number): Promise<Round>
  /** So many requests; what its process allocated for them. */
  allocate(requests: number): Promise<Allocated>
  /** Ends its process; what its profile needs to be read, if it was profiled. */
  stop(requests: number): Promise<Profiled | undefined>
}

/** Starts subjects in front of the same upstreams. */
export class Bench {
  readonly #children: Children
  readonly #origins: readonly string[]
  /** Folder for CPU profiles; undefined = none. */
  readonly #profile: string | undefined

  constructor(children: Children, origins: readonly string[], profile: string | undefined) {
    this.#children = children
    this.#origins = origins
    this.#profile = profile
  }

  async client(name: ClientKind): Promise<Subject> {
    const { child, stop } = await this.start<string>('client-child.ts', name)
    return {
      name,
      round: (seconds) => child.ask({ seconds } satisfies ClientQuestion),
      allocate: (requests) => child.ask({ requests } satisfies ClientQuestion),
      stop,
    }
  }

  async proxy(kind: ProxyKind): Promise<Subject> {
    const { child, stop } = await this.start<number>('proxy-child.ts', kind)
    const load = new Load(child.ready, IN_FLIGHT)
    const ask = <Answer>(question: ProxyQuestion): Promise<Answer> => child.ask(question)
    return {
      name: kind,
      async round(seconds) {
        const beforeUs = await ask<number>('cpu')
        const { answered, perSecond, failed } = await load.run(seconds)
        const usedUs = (await ask<number>('cpu')) - beforeUs
        return { answered, perSecond, cpuUsPerRequest: usedUs / answered, failed }
      },
      async allocate(requests) {
        await ask('meter')
        const { failed } = await load.send(requests)
        return { ...(await ask<Used>('used')), failed }
      },
      stop(requests) {
        load.close()
        return stop(requests)
      },
    }
  }

  /** Starts a script with its name and the origins of the upstreams. */
  async start<Ready>(
    script: string,
    name: string,
  ): Promise<{ readonly child: Child<Ready>; readonly stop: Subject['stop'] }> {
    const profile = this.#profile === undefined ? undefined : profiling(this.#profile, name)
    const child = await this.#children.start<Ready>(script, [name, ...this.#origins], profile?.flags)
    return {
      child,
      async stop(requests) {
        await child.stop()
        return profile && { name, file: profile.file, requests }
      },
    }
  }
}

export async function withUpstreams(profile: string | undefined, run: (bench: Bench) => Promise<void>): Promise<void> {
  const children = new Children()
  try {
    const upstreams = await Promise.all(Array.from({ length: UPSTREAMS }, () => children.start<string>('upstream.ts')))
    const origins = upstreams.map((upstream) => upstream.ready)
    await run(new Bench(children, origins, profile))
  } finally {
    await children.stop()
  }
}
