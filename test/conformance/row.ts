import type { Balancer, BalancerOptions } from 'evenkeel'
import type { ProxyOptions } from 'evenkeel/node'
import type { Upstream } from '../support/upstreams.ts'

/** One line of the HTTP conformance list, as something that can be seen from both sides of any proxy. */
export interface Row {
  /** Its number in the list. */
  readonly number: number
  /** What holds, as a sentence: with the number it is the name of a test. */
  readonly says: string
  /**
   * 'ours': about an option, an event or a status that only this project has; peers are not asked. Default: any reverse proxy can be
   * asked.
   */
  readonly about?: 'ours'
  /** Subjects that cannot be asked, and why. */
  readonly not?: Readonly<Record<string, string>>
  run(front: Front): Promise<void>
}

export interface FrontOptions {
  readonly proxy?: ProxyOptions
  readonly balancer?: Omit<BalancerOptions, 'backends'>
}

/** Starts the proxy in question in front of these backends, on a port of its own; gone with the test. */
export type Front = (
  backends: readonly (Upstream | string)[],
  options?: FrontOptions,
) => Promise<Upstream & { readonly balancer?: Balancer }>

/** A proxy that can be asked. */
export interface Subject {
  readonly name: string
  /** False: somebody else's. */
  readonly isOurs: boolean
  readonly front: Front
}
