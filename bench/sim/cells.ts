import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { rowOf } from './scenarios.ts'
import { type Result, simulate } from './simulation.ts'
import { strategyOf } from './strategies.ts'

/** A strategy in a row of the table, by name: workers are told it. */
export interface Cell {
  readonly strategy: string
  readonly row: string
  readonly clients: number
}

/** One run of it. */
export interface Job extends Cell {
  readonly requests: number
  readonly seed: number
}

export function resultOf({ strategy, row, clients, requests, seed }: Job): Promise<Result> {
  return simulate({ ...rowOf(row, clients), requests }, strategyOf(strategy), seed)
}

/** In the order of the jobs. Each is a run of its own: it does not matter which worker does it, or when. */
export async function resultsOf(jobs: readonly Job[]): Promise<readonly Result[]> {
  const results: Result[] = []
  let next = 0
  await Promise.all(
    Array.from({ length: Math.min(availableParallelism(), jobs.length) }, async () => {
      const worker = new Worker(new URL('worker.ts', import.meta.url))
      while (next < jobs.length) {
        const at = next++
        results[at] = await ask(worker, jobs[at]!)
      }
      await worker.terminate()
    }),
  )
  return results
}

function ask(worker: Worker, job: Job): Promise<Result> {
  return new Promise((resolve, reject) => {
    worker.removeAllListeners()
    worker.once('message', resolve)
    worker.once('error', reject)
    worker.postMessage(job)
  })
}
