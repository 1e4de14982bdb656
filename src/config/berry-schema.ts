/** What the tables of a Berry API file may hold. Their rules are those of its documentation, for settings too. */
import { z } from 'zod'
import { urlComplaint } from './fields.ts'
import type { Finding } from './issues.ts'
import type { JsonSchema } from './json-schema.ts'
import { flag, number, oneOf, share } from './shapes.ts'
import type { BerryTables } from './tables.ts'
import { findingsOf } from './zod-issues.ts'

type Known = Readonly<Record<string, z.ZodType>>
type Optional<Fields> = {
  [Key in keyof Fields]: z.ZodExactOptional<Fields[Key] extends z.ZodType ? Fields[Key] : never>
}

/** A table with these keys and no others. */
function table<Required extends Known, Fields extends Known>(required: Required, fields: Fields) {
  const optional = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, z.exactOptional(field)]))
  const known = { ...required, ...(optional as Optional<Fields>) }
  return z.strictObject(known, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? Object.keys(known).join(' ') : 'a table'),
  })
}

function text(expected: string, pattern: RegExp) {
  return z.string(expected).regex(pattern, expected).describe(expected)
}

function whole(least: number, most: number) {
  const expected = `a whole number from ${least} to ${most}`
  return number(expected, (value) => Number.isInteger(value) && value >= least && value <= most)
}

function list<Element extends z.ZodType>(element: Element, expected: string) {
  return z.array(element, expected).readonly()
}

const DAY_SECONDS = 86_400
const word = text('a string that is not empty', /./s)
const tags = list(text('a tag without spaces', /^[^ ]+$/), 'an array of tags')
const seconds = number('seconds > 0, at most a day', (value) => value > 0 && value <= DAY_SECONDS)
const timeout = number('seconds from 1 to 300', (value) => value >= 1 && value <= 300)
const retries = whole(0, 10)
const some = whole(1, 1_000_000_000)

const baseUrl = z.string('a URL').check(({ value, issues }) => {
  const complaint = urlComplaint(value)
  if (complaint === undefined) return
  issues.push({ code: 'custom', input: value, message: complaint.expected, params: { found: complaint.found } })
})

const smartAi = table(
  {},
  {
    initial_confidence: share,
    min_confidence: share,
    enable_time_decay: flag,
    lightweight_check_interval_seconds: seconds,
    exploration_ratio: share,
    non_premium_stability_bonus: number('a number > 0', (value) => value > 0),
    confidence_adjustments: table(
      {},
      {
        success_boost: share,
        network_error_penalty: share,
        auth_error_penalty: share,
        rate_limit_penalty: share,
        server_error_penalty: share,
        model_error_penalty: share,
        timeout_penalty: share,
      },
    ),
  },
)

const settings = table(
  {},
  {
    health_check_interval_seconds: seconds,
    health_check_timeout_seconds: seconds,
    request_timeout_seconds: timeout,
    max_retries: retries,
    max_internal_retries: whole(0, 10),
    circuit_breaker_failure_threshold: whole(1, 1_000_000),
    circuit_breaker_timeout_seconds: seconds,
    recovery_check_interval_seconds: seconds,
    smart_ai: smartAi,
    batch_metrics: table(
      {},
      { batch_size: some, flush_interval_seconds: seconds, buffer_size: some, enable_compression: flag },
    ),
    database: table({}, { url: word, max_connections: some, timeout_seconds: seconds }),
  },
)

const provider = table(
  {
    name: word,
    base_url: baseUrl,
    api_key: z.string('a key of at least 10 characters'),
    models: list(word, 'an array of names').refine((value) => value.length > 0, 'at least one model'),
  },
  {
    headers: z.record(z.string(), word, 'a table of header names and values'),
    enabled: flag,
    timeout_seconds: timeout,
    max_retries: retries,
    backend_type: oneOf(['openai', 'claude', 'gemini']),
  },
)

const modelBackend = table(
  { provider: word, model: word },
  {
    weight: number('a number > 0 and <= 100', (value) => value > 0 && value <= 100),
    priority: whole(0, 10),
    enabled: flag,
    tags,
    billing_mode: oneOf(['per_token', 'per_request']),
  },
)

const model = table(
  {
    name: text('a name without white space', /^\S+$/),
    backends: list(modelBackend, 'an array of backends').refine((value) => value.length > 0, 'at least one backend'),
  },
  { strategy: z.unknown(), enabled: flag },
)

const user = table(
  { name: word, token: text('a token of at least 16 characters without white space', /^\S{16,}$/) },
  {
    allowed_models: list(word, 'an array of models'),
    enabled: flag,
    tags,
    rate_limit: table(
      {},
      {
        requests_per_minute: whole(1, 1_000),
        requests_per_hour: whole(1, 60_000),
        requests_per_day: whole(1, 1_440_000),
      },
    ),
  },
)

const berry = table(
  {},
  {
    settings,
    providers: z.record(z.string(), provider, 'a table of providers by name'),
    models: z.record(z.string(), model, 'a table of models by name'),
    users: z.record(z.string(), user, 'a table of users by name'),
  },
)

/** The keys of settings and of a model that are Berry's own. A model's strategy is a setting of its pool as well. */
export const BERRY_KEYS: { readonly settings: readonly string[]; readonly model: readonly string[] } = {
  settings: Object.keys(settings.shape),
  model: Object.keys(model.shape).filter((key) => key !== 'strategy'),
}

type Plain<T> = T extends object ? { -readonly [Key in keyof T]: Plain<T[Key]> } : T
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? A : never

/** What is wrong with the tables, each by itself. They hold nothing but the keys that are known here. */
export function berryFindings(tables: unknown): readonly Finding[] {
  // Compiles only while the hand-written types and the schema say the same.
  const given: Same<Plain<BerryTables>, Plain<z.input<typeof berry>>> = tables as Plain<BerryTables>
  const result = berry.safeParse(given, { jitless: true })
  return result.success ? [] : result.error.issues.flatMap((issue) => findingsOf(issue, []))
}

export function berryJsonSchema(): JsonSchema {
  return z.toJSONSchema(berry, { io: 'input' }) as JsonSchema
}
