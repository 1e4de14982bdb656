export type { AcquireOptions, CloseOptions } from './balancer.ts'
export type { BackendTotals } from './core/backend.ts'
export type { Budget, BudgetOptions } from './core/budget.ts'
export type { CallOptions, FaceHost, Route, Sending } from './core/call.ts'
export type {
  Attempt,
  AttemptHandler,
  AttemptTimes,
  Backend,
  BalancerRequest,
  BalancerResponse,
  BodyControl,
  BodySink,
  BreakerPhase,
  Call,
  CallHandler,
  CheckStats,
  Chooser,
  Classify,
  Clock,
  ConnectionStats,
  Core,
  Criticality,
  Endpoint,
  Gate,
  KeySource,
  Lease,
  Members,
  OpenBody,
  Picker,
  Policy,
  PoolControl,
  Prefer,
  Probe,
  Random,
  RawHeaders,
  Reason,
  RequestBody,
  RequestHeaders,
  ResponseBody,
  Seen,
  SendFailure,
  Sink,
  Source,
  Stages,
  Stop,
  Strategy,
  Transport,
  Wanted,
  Watcher,
  WatcherStats,
} from './core/contracts.ts'
export type { Deadline, Deadlines } from './core/deadlines.ts'
export type { DurationStats } from './core/durations.ts'
export { BalancerError, type BalancerErrorCode, type BalancerErrorDetails, type ConfigIssue } from './core/errors.ts'
export type { ExplainedAttempt, Explanation } from './core/explain.ts'
export { wireHeaders } from './core/headers.ts'
export type { PeakEwma } from './core/latency.ts'
export type {
  ActiveHealthOptions,
  AdaptiveLimitOptions,
  BalancerOptions,
  BreakerOptions,
  CooldownOptions,
  EndpointOptions,
  FailureShareOptions,
  HealthOptions,
  HedgeOptions,
  LimitOptions,
  Logger,
  LogOptions,
  PassiveHealthOptions,
  PoolOptions,
  PoolSettings,
  QueueOptions,
  RetryOptions,
  SlowStartOptions,
  SuccessRateOptions,
  TimeoutOptions,
  UndiciOptions,
} from './core/options.ts'
export {
  CLASSES,
  type ClassChanges,
  type Classes,
  type ClassRule,
  type Outcome,
  type OutcomeClass,
} from './core/outcome.ts'
export type { ConfigChange, Revision } from './core/revisions.ts'
export { Secret } from './core/secret.ts'
export type { BackendStats, BalancerStats, BlockStats, PoolStats, UpdateStats } from './core/stats.ts'
export type {
  Cost,
  EdfOptions,
  FailoverOptions,
  HashOptions,
  MaglevOptions,
  OrcaOptions,
  P2cOptions,
  PlainStrategySettings,
  PrequalOptions,
  Prior,
  RingHashOptions,
  SmartOptions,
  StrategyName,
  StrategySettings,
  StrategyWord,
  ThompsonOptions,
} from './core/strategy-options.ts'
export type { TieredStrategy } from './core/tiers.ts'
export { createBalancer, type EvenkeelBalancer as Balancer } from './create-balancer.ts'
export type { BalancerEvents } from './events.ts'
export type { BalancerDispatcher, BalancerDispatchOptions } from './faces/dispatcher.ts'
export type { BalancerFetch, BalancerFetchInit } from './faces/fetch.ts'
export type { HeaderRecord } from './faces/record.ts'
export type { Answer, AnswerBody, RequestFace, RequestOptions } from './faces/request.ts'
export type { StatusRange } from './health/ask.ts'
export { type GrpcProbeOptions, grpcProbe } from './health/grpc.ts'
export { type HttpProbeOptions, httpProbe, tcpProbe } from './health/probes.ts'
export { type CircuitBreaker, circuitBreaker } from './policies/breaker.ts'
export type { BackendBreakerState, BreakerState } from './policies/breaker-input.ts'
export type { TripBucket, TripState } from './policies/trip-rules.ts'
export { auto } from './strategies/auto.ts'
export { edf } from './strategies/edf.ts'
export { failover } from './strategies/failover.ts'
export { jump } from './strategies/jump.ts'
export { least } from './strategies/least.ts'
export { type LocalityOptions, locality, type ZoneWeightsOptions, zoneWeights } from './strategies/locality.ts'
export { maglev } from './strategies/maglev.ts'
export { orca } from './strategies/orca.ts'
export { p2c } from './strategies/p2c.ts'
export { byExpectedDelay, byInflight, byPeakEwma } from './strategies/prefer.ts'
export { prequal } from './strategies/prequal.ts'
export { random, weightedRandom } from './strategies/random.ts'
export { rendezvous } from './strategies/rendezvous.ts'
export { ringHash } from './strategies/ring-hash.ts'
export { roundRobin } from './strategies/round-robin.ts'
export { smart } from './strategies/smart.ts'
export { type SubsetOptions, subset } from './strategies/subset.ts'
export { thompson } from './strategies/thompson.ts'
export { weightedFailover } from './strategies/weighted-failover.ts'
export { weightedRoundRobin } from './strategies/weighted-round-robin.ts'
export { type FetchLike, type FetchTransportOptions, fetchTransport } from './transports/fetch.ts'
export {
  type MemoryAnswer,
  type MemoryBackend,
  type MemoryRequest,
  type MemoryTransport,
  memory,
} from './transports/memory.ts'
export { type HttpTransportOptions, httpTransport } from './transports/node.ts'
export { type UndiciTransportOptions, undici } from './transports/undici.ts'
