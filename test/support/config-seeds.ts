// Good configurations for the fuzz of config-fuzz.ts to spoil.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BalancerOptions, Policy, Probe, Sink, Strategy, Transport, Watcher } from 'evenkeel'
import type { SubstitutionOptions } from 'evenkeel/config'

/** What every secret of the seeds starts with. Longer than what an edit would leave of it by accident. */
export const CANARY = 'canary-7f3a9c'

const SECRET = `${CANARY}-0123456789`
const BACKENDS = `
[[backends]]
url = "http://127.0.0.1:1"

[[backends]]
url = "http://127.0.0.1:2/base"
id = "b"
weight = 2.5
priority = 1
zone = "z"
tags = ["eu", "fast"]
max_inflight = 50
timeouts = { connect = "1s", headers_ms = 2000, idle_seconds = 5 }
headers = { authorization = "Bearer ${SECRET}", x-plain = "${SECRET}" }
meta = { since = 2024-02-28T00:00:00Z, deep = [[1], { a = "b" }] }
`
const TWO = 'backends = ["http://127.0.0.1:1", "http://127.0.0.1:2"]\n'

/** One section each, and together all of them. */
const SECTIONS: readonly string[] = [
  '[settings]\nname = "shop"\nstrategy = "peak-ewma"\norigins = ["https://api.example.com"]\nrevisions = 5\n',
  '[settings.timeouts]\nconnect = "250ms"\nheaders = "10s"\nfirst_byte_ms = 500\nidle = "1m"\nattempt_seconds = 20\ntotal = "30s"\nlease = 0\n',
  '[settings.retry]\nattempts = 4\nstatus = [429, 503]\nbase = "10ms"\nsame_base = "20ms"\nmax = "1s"\njitter = "equal"\nwait = "2s"\nbuffer_bytes = 1024\nhold_bytes = 512\nbudget = { share = 0.1, per_second = 5, window = "5s" }\n',
  `[settings.health.active]\npath = "/healthz"\nmethod = "HEAD"\nheaders.x-token = "${SECRET}"\nstatus = "200,204,300-399"\ninterval = "5s"\nfast_interval = "1s"\nidle_interval = "20s"\ntimeout = "1s"\ninitial = "up"\njitter = 0.2\nrise = 1\nfall = 2\n`,
  '[settings.health.passive]\nconsecutive = 3\nconsecutive_gateway = 2\nconsecutive_local = 1\nsuccess_rate = { deviations = 2.0, min_requests = 10 }\nfailure_share = false\ninterval = "2s"\nbase = "1s"\nmax = "9s"\nmax_share = 0.3\njitter = 0.0\ndry_run = true\n',
  '[settings.health]\npanic_below = 0.3\nslow_start = { window = "3s", aggression = 1.5, min_share = 0.2 }\ncooldown = { rate_limit = "2s", credential = "1m", max = "30s" }\n',
  '[settings.hedge]\npercentile = 0.9\nmin_delay = "5ms"\nwarm_up = 10\nmax_share = 0.1\n',
  '[settings.breaker]\ntrip = "window"\nthreshold = 0.4\nwindow = "10s"\nmin_requests = 5\nopen = "2s"\nmax_open = "20s"\njitter = 0.1\ntrials = 2\n',
  '[settings.limits]\nmax_inflight = 100\nqueue = { size = 10, timeout = "500ms", order = "lifo", overload = "50ms" }\nadaptive = { algorithm = "vegas", initial = 5, min = 2, max = 50 }\n',
  '[settings.undici]\nconnections = 8\npipelining = 1\nkeep_alive = "3s"\nallow_h2 = false\ntls = { servername = "a.test", ciphers = "HIGH" }\n',
  '[settings.classes]\nserver-error = { retry = "never", health = "none" }\ntimeout = { retry = "always", latency = "slow" }\n',
]

const STRATEGIES: readonly string[] = [
  '{ name = "ring-hash", key = "header:x-user", like = "envoy", min_size = 64, max_size = 256, when_out = "fail" }',
  '{ name = "maglev", key = "cookie:session", size = 251, bound = 1.25 }',
  '{ name = "failover", overprovisioning = 1.4, strategy = { name = "p2c", choices = 3 } }',
  '{ name = "orca", blackout = "1s", expire = "1m", update = "1s", error_penalty = 1 }',
  '{ name = "prequal", path = "/load", probes_per_request = 2, pool_size = 8, rif_quantile = 0.8, timeout = "100ms" }',
  '{ name = "thompson", value = 2, latency_cost = 0.5, discount = 0.9, prior = "trusted" }',
  '{ name = "edf", bias = 1 }',
  '"weighted-random"',
]

const POOLS = `[pools.orders]
backends = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
strategy = { name = "rendezvous", key = "path" }
retry.attempts = 2

[pools."my.api"]
timeouts = { total = "5s" }
[[pools."my.api".backends]]
url = "http://127.0.0.1:3"
`

const MODELS = `[settings]
max_retries = 2
request_timeout_seconds = 30
circuit_breaker_failure_threshold = 5

[providers.one]
name = "One"
base_url = "http://127.0.0.1:1/v1"
api_key = "${SECRET}"
models = ["m", "n"]
headers = { x-more = "${SECRET}" }
timeout_seconds = 20

[providers.two]
name = "Two"
base_url = "http://127.0.0.1:2"
api_key = "${SECRET}"
models = ["m"]
backend_type = "claude"
max_retries = 1

[models.chat]
name = "chat-1"
strategy = "smart_ai"
backends = [{ provider = "one", model = "m", weight = 0.5, tags = ["a"] }, { provider = "two", model = "m", priority = 1 }]

[users.ann]
name = "Ann"
token = "${SECRET}"
allowed_models = ["chat"]
tags = ["staff"]
rate_limit = { requests_per_minute = 60, requests_per_hour = 1000 }
`

/** Texts of TOML, small ones mostly: a whole file takes as long as ten of them. */
export const TEXTS: readonly string[] = [
  BACKENDS,
  POOLS,
  MODELS,
  ...SECTIONS.map((section) => TWO + section),
  ...STRATEGIES.map((strategy) => `${TWO}[settings]\nstrategy = ${strategy}\n`),
]

/** Whole files: the example, Berry's, and one with every section. */
export const FILES: readonly string[] = [
  read('../../examples/evenkeel.toml'),
  read('../fixtures/berry.toml'),
  [...SECTIONS, BACKENDS].join('\n'),
]

/** With placeholders for secrets, texts and numbers of a text. */
export const TEMPLATES: readonly string[] = [
  `settings.name = "\${env:NAME}"\nbackends = ["http://127.0.0.1:1", { url = "http://\${env:HOST}:1", headers.authorization = "Bearer \${file:key}" }]\n`,
  `backends = ["http://\${env:HOST}:1", "http://\${env:HOST}:2"]\n[settings.timeouts]\ntotal = "\${env:TIME}"\n`,
  MODELS.replaceAll(SECRET, `\${env:KEY}`),
  `settings.name = "$\${env:NAME} and \${env:NESTED}"\nbackends = ["http://a.test", "http://b.test"]\n`,
]

/** What the placeholders mean, until `remove` is called. */
export function substitutions(): { readonly sources: SubstitutionOptions; readonly remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'evenkeel-fuzz-'))
  writeFileSync(join(folder, 'key'), `${SECRET}\n`, { mode: 0o600 })
  const env = {
    NAME: 'shop',
    HOST: '127.0.0.1',
    TIME: '5s',
    KEY: SECRET,
    EMPTY: '',
    NESTED: `\${env:KEY}`,
    LONG: 'x'.repeat(50_000),
  }
  return { sources: { folder, env }, remove: () => rmSync(folder, { recursive: true }) }
}

/** What a part of the user's own throws. It crosses the balancer as it is, and is nobody's fault here. */
export class Planted extends Error {}

const broken = (): never => {
  throw new Planted(CANARY)
}

/** Nothing leaves the process. */
export const nowhere: Transport = {
  name: 'nowhere',
  send: () =>
    Promise.reject({ phase: 'connect', processed: 'no', reused: false, code: 'ECONNREFUSED', cause: new Error('no') }),
}
const policy: Policy = { name: 'mine', scope: 'pool', wrap: (next) => next }
const watcher: Watcher = { name: 'mine', start: () => ({ stop() {} }) }
const sink: Sink = { name: 'mine', attempt() {} }
const probe: Probe = { name: 'mine', check: () => Promise.resolve() }
const strategy: Strategy = { name: 'mine', start: () => ({ build: () => () => undefined }) }

/** Options with parts in them, some of which break where an update must not be half done. */
export function liveOptions(): readonly BalancerOptions[] {
  const backends = ['http://127.0.0.1:1', { url: 'http://127.0.0.1:2', headers: { 'x-key': SECRET } }]
  const other = { backends: ['http://127.0.0.1:3'] }
  return [
    { backends, policies: [policy], watchers: [watcher], sinks: [sink], transport: nowhere },
    { backends, strategies: [strategy], strategy: 'mine', route: () => 'default', log: { requests: true } },
    { backends, strategy: { name: 'smart', cost: () => 1 }, health: { active: { probe } }, classify: () => undefined },
    { backends, undici: { tls: { ca: new Uint8Array(8), rejectUnauthorized: false } }, revisions: 3 },
    ...[
      { strategy: { name: 'breaks', start: broken } },
      { strategy: { name: 'breaks', start: () => ({ build: broken }) } },
      { policies: [{ name: 'breaks', scope: 'pool' as const, wrap: broken }] },
      { watchers: [{ name: 'breaks', start: broken }] },
    ].map((wrong) => ({ pools: { default: { backends, watchers: [watcher] }, other: { ...other, ...wrong } } })),
  ]
}

function read(path: string): string {
  const text = readFileSync(new URL(path, import.meta.url), 'utf8')
  // The last word of every secret is one that is looked for.
  return text.replace(/((?:api_key|token|x-internal-token) = ")[^"]+/g, `$1${SECRET}`)
}
