export {
  type BackendStats,
  Balancer,
  type BalancerStats,
  type CloseOptions,
  type PoolStats,
} from './balancer.ts'
export type { CallOptions, FaceHost, Sending } from './core/call.ts'
export type {
  Attempt,
  AttemptHandler,
  Backend,
  BalancerRequest,
  BalancerResponse,
  BodyControl,
  BodySink,
  Call,
  CallHandler,
  Chooser,
  Clock,
  Core,
  Endpoint,
  Gate,
  Members,
  OpenBody,
  Picker,
  Policy,
  PoolControl,
  Prefer,
  Random,
  RawHeaders,
  Reason,
  RequestBody,
  ResponseBody,
  SendFailure,
  Sink,
  Source,
  Stages,
  Stop,
  Strategy,
  Transport,
  Watcher,
} from './core/contracts.ts'
export { BalancerError, type BalancerErrorCode, type BalancerErrorDetails, type ConfigIssue } from './core/errors.ts'
export type {
  BalancerOptions,
  EndpointOptions,
  HealthOptions,
  PassiveHealthOptions,
  PoolOptions,
  PoolSettings,
  RetryOptions,
  StrategyName,
  TimeoutOptions,
  UndiciOptions,
} from './core/options.ts'
export type { Outcome, OutcomeClass } from './core/outcome.ts'
export { createBalancer } from './create-balancer.ts'
export type { BalancerEvents } from './events.ts'
export type { BalancerFetch, BalancerFetchInit } from './faces/fetch.ts'
export { p2c } from './strategies/p2c.ts'
export { byInflight, byPeakEwma } from './strategies/prefer.ts'
export { roundRobin } from './strategies/round-robin.ts'
export { type UndiciTransportOptions, undici } from './transports/undici.ts'
