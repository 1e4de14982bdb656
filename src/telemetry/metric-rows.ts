import type { DurationStats } from '../core/durations.ts'
import { CLASSES } from '../core/outcome.ts'
import type { BackendStats, PoolStats } from '../core/stats.ts'
import type { ConfigStats } from './samples.ts'

/** One metric: its name behind the prefix, its help, and where its value stands in our own numbers. */
export type MetricRow<From> = {
  readonly name: string
  readonly help: string
  /** How the values of several processes become one (prom-client's AggregatorRegistry); default 'sum'. */
  readonly aggregator?: 'max' | 'min' | 'average'
} & (
  | { readonly type: 'histogram'; readonly read: (from: From) => DurationStats }
  | {
      readonly type: 'counter' | 'gauge'
      readonly label: string
      /** By the label's value; nothing is told of what is undefined. */
      readonly read: (from: From) => Readonly<Record<string, number | undefined>>
    }
  | { readonly type: 'counter' | 'gauge'; readonly label?: never; readonly read: (from: From) => number | undefined }
)

/** From the start, so that the first of them is an increase and not a beginning. */
const NO_CLASSES: Readonly<Record<string, number>> = zeros(Object.keys(CLASSES))
const NO_BLOCKS: Readonly<Record<string, number>> = zeros([
  ...['outlier', 'probe', 'breaker', 'rate-limit', 'credential', 'operator', 'drain'],
])
const PHASES = ['closed', 'open', 'half-open', 'isolated'] as const
const STATES = ['up', 'blocked', 'drained'] as const

export const BALANCER_ROWS: readonly MetricRow<ConfigStats>[] = [
  {
    name: 'config_revision',
    type: 'gauge',
    help: 'Number of the configuration in force; 1 is the first.',
    aggregator: 'max',
    read: ({ revision }) => revision,
  },
  {
    name: 'config_reload_failures_total',
    type: 'counter',
    help: 'Updates that were refused and changed nothing.',
    read: ({ refused }) => refused,
  },
]

export const POOL_ROWS: readonly MetricRow<PoolStats>[] = [
  {
    name: 'calls_total',
    type: 'counter',
    label: 'result',
    help: 'Calls that have their answer, have failed without one, or were given up by their caller.',
    read: ({ answered, failed, aborted }) => ({ answered, failed, aborted }),
  },
  {
    name: 'call_duration_seconds',
    type: 'histogram',
    help: 'Whole calls, with all waiting, pauses and repeats, to their last byte.',
    read: ({ callDurations }) => callDurations,
  },
  {
    name: 'selections_total',
    type: 'counter',
    help: 'Backends picked: requests begun, repeats and leases included.',
    read: ({ attempts }) => attempts,
  },
  {
    name: 'requests_total',
    type: 'counter',
    label: 'class',
    help: 'Requests to backends that have ended, by how. Repeats count; backends that have left stay in it.',
    read: ({ classes }) => ({ ...NO_CLASSES, ...classes }),
  },
  {
    name: 'request_duration_seconds',
    type: 'histogram',
    help: 'Requests to backends, from the pick to the last byte, however they ended.',
    read: ({ durations }) => durations,
  },
  {
    name: 'request_first_byte_seconds',
    type: 'histogram',
    help: 'From the pick to the first byte of the body, or to the head of an answer without one.',
    read: ({ firstBytes }) => firstBytes,
  },
  {
    name: 'requests_in_flight',
    type: 'gauge',
    help: 'Requests to backends under way, those to backends that have left included.',
    read: ({ inflight }) => inflight,
  },
  {
    name: 'retries_total',
    type: 'counter',
    label: 'class',
    help: 'Calls sent again, by the class of the request that went wrong.',
    read: ({ retriesAfter }) => ({ ...NO_CLASSES, ...retriesAfter }),
  },
  {
    name: 'retries_exhausted_total',
    type: 'counter',
    help: 'Calls not sent again although they might have been: attempts, budget or time ran out.',
    read: ({ exhausted }) => exhausted,
  },
  {
    name: 'retry_budget_left',
    type: 'gauge',
    help: 'Repeats that retries and hedges could still take now.',
    read: ({ budgetLeft }) => budgetLeft,
  },
  {
    name: 'hedges_total',
    type: 'counter',
    help: 'Second requests sent because the first was slow.',
    read: ({ hedges }) => hedges,
  },
  {
    name: 'hedges_won_total',
    type: 'counter',
    help: 'Second requests that answered first.',
    read: ({ hedgesWon }) => hedgesWon,
  },
  {
    name: 'queue_length',
    type: 'gauge',
    help: 'Calls that wait for their turn.',
    read: ({ waiting }) => waiting,
  },
  {
    name: 'calls_queued_total',
    type: 'counter',
    help: 'Calls that had to wait for their turn.',
    read: ({ queued }) => queued,
  },
  {
    name: 'calls_shed_total',
    type: 'counter',
    help: 'Calls refused because everybody was busy: no room to wait, or not served in time.',
    read: ({ shed }) => shed,
  },
  {
    name: 'blocks_total',
    type: 'counter',
    label: 'reason',
    help: 'How often a backend was taken out: ejections (outlier), checks (probe), cool-downs (rate-limit, credential), ...',
    read: ({ blocks }) => ({ ...NO_BLOCKS, ...blocks }),
  },
  {
    name: 'backends',
    type: 'gauge',
    label: 'state',
    help: 'Backends of the pool by state; drained: of weight 0.',
    read: ({ backends }) => {
      const count = (state: string): number => backends.filter((backend) => backend.state === state).length
      return Object.fromEntries(STATES.map((state) => [state, count(state)]))
    },
  },
  {
    name: 'panic',
    type: 'gauge',
    help: '1 while too few backends are healthy, and those blocked for soft reasons get requests as well.',
    aggregator: 'max',
    read: ({ panic }) => Number(panic),
  },
]

export const BACKEND_ROWS: readonly MetricRow<BackendStats>[] = [
  {
    name: 'backend_up',
    type: 'gauge',
    help: '1 if nothing keeps requests from it.',
    aggregator: 'min',
    read: ({ state }) => Number(state === 'up'),
  },
  {
    name: 'backend_weight',
    type: 'gauge',
    help: 'Its share relative to the others, slow start included.',
    aggregator: 'average',
    read: ({ weight }) => weight,
  },
  {
    name: 'backend_selections_total',
    type: 'counter',
    help: 'How often it was picked.',
    read: ({ requests }) => requests,
  },
  {
    name: 'backend_requests_total',
    type: 'counter',
    label: 'class',
    help: 'Its requests that have ended, by how.',
    read: ({ classes }) => classes,
  },
  {
    name: 'backend_request_duration_seconds',
    type: 'histogram',
    help: 'Its requests, from the pick to the last byte, however they ended.',
    read: ({ durations }) => durations,
  },
  {
    name: 'backend_request_first_byte_seconds',
    type: 'histogram',
    help: 'From the pick to the first byte of its body, or to the head of an answer without one.',
    read: ({ firstBytes }) => firstBytes,
  },
  {
    name: 'backend_requests_in_flight',
    type: 'gauge',
    help: 'Its requests under way.',
    read: ({ inflight }) => inflight,
  },
  {
    name: 'backend_requests_limit',
    type: 'gauge',
    help: 'Most of them at once as it stands; absent without a limit.',
    read: ({ limit }) => limit,
  },
  {
    name: 'backend_blocked',
    type: 'gauge',
    label: 'reason',
    help: '1 while this reason keeps requests from it; absent before its first time.',
    aggregator: 'max',
    read: ({ blocks, blockedBy }) => {
      return Object.fromEntries(Object.keys(blocks).map((by) => [by, Number(blockedBy.some((it) => it.by === by))]))
    },
  },
  {
    name: 'backend_block_remaining_seconds',
    type: 'gauge',
    label: 'reason',
    help: 'Until this reason ends by itself: cool-downs, ejections, an open breaker.',
    aggregator: 'max',
    read: ({ blockedBy }) => {
      return Object.fromEntries(
        blockedBy.map(({ by, leftMs }) => [by, leftMs === undefined ? undefined : leftMs / 1_000]),
      )
    },
  },
  {
    name: 'backend_blocks_total',
    type: 'counter',
    label: 'reason',
    help: 'How often it was taken out.',
    read: ({ blocks }) => blocks,
  },
  {
    name: 'backend_breaker_state',
    type: 'gauge',
    label: 'state',
    help: '1 for the state its breaker is in, 0 for the others; absent without a breaker.',
    aggregator: 'max',
    read: ({ breaker }) => {
      return breaker === undefined ? {} : Object.fromEntries(PHASES.map((phase) => [phase, Number(phase === breaker)]))
    },
  },
  {
    name: 'backend_checks_total',
    type: 'counter',
    help: 'Active checks that came to an end; absent without checks.',
    read: ({ checks }) => checks?.checks,
  },
  {
    name: 'backend_check_failures_total',
    type: 'counter',
    help: 'Those of them that found it unwell.',
    read: ({ checks }) => checks?.failures,
  },
  {
    name: 'backend_check_duration_seconds',
    type: 'gauge',
    help: 'The last active check.',
    aggregator: 'max',
    read: ({ checks }) => (checks !== undefined && checks.checks > 0 ? checks.lastMs / 1_000 : undefined),
  },
  {
    name: 'backend_connections',
    type: 'gauge',
    label: 'state',
    help: 'Open connections to it; absent where the transport does not know.',
    read: ({ connections }) => {
      return connections === undefined ? {} : { busy: connections.open - connections.idle, idle: connections.idle }
    },
  },
]

function zeros(names: readonly string[]): Readonly<Record<string, number>> {
  return Object.freeze(Object.fromEntries(names.map((name) => [name, 0])))
}
