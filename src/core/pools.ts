import type { BackendRecord } from './backend.ts'
import type { Transport } from './contracts.ts'
import { BalancerError } from './errors.ts'
import type { PoolPlan } from './plan.ts'
import { Pool } from './pool.ts'
import type { PoolHost } from './pool-parts.ts'

/** Every pool of a balancer by name: changed together, closed together, and asked for the backends that go by an id. */
export class Pools {
  readonly #host: PoolHost
  #byName: ReadonlyMap<string, Pool> = new Map()

  constructor(host: PoolHost) {
    this.#host = host
  }

  get all(): readonly Pool[] {
    return [...this.#byName.values()]
  }

  /** The pool of a plan that is in force. */
  get(name: string): Pool {
    return this.#byName.get(name)!
  }

  /** Everything of a change that may throw, in every pool. What it returns makes it so, in one step. */
  prepare(plans: readonly PoolPlan[]): () => void {
    const byName = new Map<string, Pool>()
    const prepared: ReturnType<Pool['prepare']>[] = []
    try {
      for (const { name, parts, endpoints } of plans) {
        const pool = this.#byName.get(name) ?? new Pool(name, this.#host)
        byName.set(name, pool)
        prepared.push(pool.prepare(parts, endpoints))
      }
    } catch (error) {
      for (const { abandon } of prepared) abandon()
      throw error
    }
    return () => {
      const gone = this.all.filter((pool) => !byName.has(pool.name))
      this.#byName = byName
      for (const { commit } of prepared) commit()
      for (const pool of gone) {
        pool.apply([])
        pool.close()
      }
    }
  }

  /** An operator's word on a backend, in every pool that has it; returns its records. */
  block(id: string, by: string): readonly BackendRecord[] {
    const found = this.#having(id)
    for (const { pool, record } of found) pool.block(record, { by, hard: true })
    return found.map(({ record }) => record)
  }

  /** Takes such words back. */
  unblock(id: string, words: readonly string[]): void {
    for (const { pool, record } of this.#having(id)) for (const by of words) pool.unblock(record, by)
  }

  /** Resolves when every connection is closed. */
  async close(): Promise<void> {
    const transports = new Set<Transport>()
    for (const pool of this.all) {
      pool.close()
      transports.add(pool.transport)
    }
    await Promise.all([...transports].map(async (transport) => transport.close?.()))
  }

  #having(id: string): readonly { readonly pool: Pool; readonly record: BackendRecord }[] {
    const everybody = this.all.flatMap((pool) => pool.records.map((record) => ({ pool, record })))
    const found = everybody.filter(({ record }) => record.id === id)
    if (found.length > 0) return found
    const known = everybody.map(({ record }) => record.id).join(', ')
    throw new BalancerError('CONFIG', `no backend is named ${JSON.stringify(id)}; there are: ${known}`)
  }
}
