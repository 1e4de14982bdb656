// npm run bench -- [--only picks|client|proxy|metrics|memory|import|tail] [--seconds 1] [--rounds 9] [--profile FOLDER]
// Prints; never fails because something is slow. With --profile, client and proxy also print where the CPU time went.
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { benchClient, benchProxy, type HttpOptions } from './http.ts'
import { benchImport } from './import.ts'
import { benchMemory } from './memory.ts'
import { benchMetrics } from './metrics.ts'
import { benchPicks } from './picks.ts'
import { benchTail } from './tail.ts'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    seconds: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '9' },
    profile: { type: 'string' },
  },
})

const PARTS: Readonly<Record<string, (options: HttpOptions) => Promise<void>>> = {
  picks: () => benchPicks(),
  client: benchClient,
  proxy: benchProxy,
  metrics: benchMetrics,
  memory: () => benchMemory(),
  import: () => benchImport(),
  tail: benchTail,
}

const { only } = values
if (only !== undefined && !(only in PARTS)) {
  console.error(`--only: expected ${Object.keys(PARTS).join(', ')}, got '${only}'`)
  process.exit(2)
}
const options: HttpOptions = { seconds: Number(values.seconds), rounds: Number(values.rounds), profile: values.profile }
if (!(options.seconds > 0) || !(options.rounds >= 1)) {
  console.error(`--seconds and --rounds: expected numbers above 0, got '${values.seconds}' and '${values.rounds}'`)
  process.exit(2)
}

const undici = createRequire(import.meta.url)('undici/package.json') as { version: string }
const thinnest = createHash('sha256')
  .update(await readFile(new URL('thinnest.ts', import.meta.url)))
  .digest('hex')
console.log(
  `node ${process.version} (its own undici ${process.versions.undici}), undici ${undici.version}, ${availableParallelism()} cores`,
)
console.log(`thinnest.ts sha256 ${thinnest}`)
console.log(`load average before: ${loadavg()[0]!.toFixed(2)} (well above 0: something else is running too)`)
if (availableParallelism() < 4)
  console.log('upstreams, load and the measured process share these cores: read the ratios, not the rates')

for (const [name, run] of Object.entries(PARTS)) if (only === undefined || only === name) await run(options)
