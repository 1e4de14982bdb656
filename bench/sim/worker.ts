// Simulates the cells it is told, one after the other.
import { parentPort } from 'node:worker_threads'
import { type Job, resultOf } from './cells.ts'

parentPort!.on('message', async (job: Job) => parentPort!.postMessage(await resultOf(job)))
