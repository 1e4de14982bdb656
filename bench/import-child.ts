/** bench/import-child.ts <URL>: prints what importing it takes, in ms and CPU ms; started by bench/import.ts. */
import { cpuUs } from './children.ts'

const startMs = performance.now()
const startUs = cpuUs()
await import(process.argv[2]!)
console.log(JSON.stringify({ ms: performance.now() - startMs, cpuMs: (cpuUs() - startUs) / 1000 }))
