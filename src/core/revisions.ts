import { BalancerError } from './errors.ts'
import type { Secret } from './secret.ts'

/** A setting that differs from the revision before, by its path in the whole configuration, defaults included. */
export interface ConfigChange {
  /** As in `pools.default.backends.a.weight`. Of a name that is most likely a key only its start and length are shown. */
  readonly path: string
  /**
   * What it was, as text; undefined if it was not there. `[redacted]`: headers, TLS, `meta`, what is called like a secret, URLs with
   * credentials or a query, and texts that are most likely keys.
   */
  readonly from: string | undefined
  /** What it is now; undefined if it is gone. */
  readonly to: string | undefined
}

/** A configuration that was put into force. */
export interface Revision {
  /** 1 is what the balancer was made with. */
  readonly number: number
  /** SHA-256 of the whole configuration, in hex: the same in every process that has the same. Functions and parts count by name. */
  readonly hash: string
  /** Ms since 1970; undefined if the clock given tells no such time. */
  readonly timeMs: number | undefined
  /** 'start', 'update', 'rollback', or the name of the source that was followed: 'file'. */
  readonly origin: string
  /** The revision that a rollback brought back; undefined otherwise. */
  readonly restores: number | undefined
  readonly changes: readonly ConfigChange[]
}

/** What a rollback needs of a plan, and what lines of the log are cleared of. */
interface Restorable<Plan> {
  /** A new plan of the same configuration. */
  readonly again: () => Plan
  readonly secrets: readonly Secret[]
}

/** The last revisions, oldest first. Of their plans only what brings them back: the parts of old ones are nobody's any more. */
export class Revisions<Plan extends Restorable<Plan>> {
  readonly #most: number
  #kept: readonly { readonly revision: Revision; readonly plan: Restorable<Plan> }[] = []
  #count = 0

  constructor(most: number) {
    this.#most = most
  }

  get all(): readonly Revision[] {
    return this.#kept.map(({ revision }) => revision)
  }

  get plans(): readonly Restorable<Plan>[] {
    return this.#kept.map(({ plan }) => plan)
  }

  /** The one in force. There is one from the start on. */
  get current(): Revision {
    return this.#kept.at(-1)!.revision
  }

  add(said: Omit<Revision, 'number'>, { again, secrets }: Plan): Revision {
    const revision = Object.freeze({ number: ++this.#count, ...said })
    this.#kept = [...this.#kept, { revision, plan: { again, secrets } }].slice(-this.#most)
    return revision
  }

  plan(number: number): Restorable<Plan> {
    const found = this.#kept.find(({ revision }) => revision.number === number)
    if (found !== undefined) return found.plan
    const known = this.all.map((revision) => revision.number).join(', ')
    throw new BalancerError('CONFIG', `no revision ${number} is kept; there are: ${known}`)
  }
}
