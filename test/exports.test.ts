import * as main from 'evenkeel'
import * as config from 'evenkeel/config'
import * as express from 'evenkeel/express'
import * as fastify from 'evenkeel/fastify'
import * as loadReport from 'evenkeel/load-report'
import * as node from 'evenkeel/node'
import * as prometheus from 'evenkeel/prometheus'
import * as testing from 'evenkeel/testing'
import * as web from 'evenkeel/web'
import { describe, expect, test } from 'vitest'

/** What is public stays: adding a name here is a decision, taking one away breaks users. */
describe('the public names at run time', () => {
  test('of evenkeel', () => {
    expect(Object.keys(main).sort()).toEqual([
      'BalancerError',
      'CLASSES',
      'Secret',
      'auto',
      'byExpectedDelay',
      'byInflight',
      'byPeakEwma',
      'circuitBreaker',
      'createBalancer',
      'edf',
      'failover',
      'fetchTransport',
      'grpcProbe',
      'httpProbe',
      'httpTransport',
      'jump',
      'least',
      'locality',
      'maglev',
      'memory',
      'orca',
      'p2c',
      'prequal',
      'random',
      'rendezvous',
      'ringHash',
      'roundRobin',
      'smart',
      'subset',
      'tcpProbe',
      'thompson',
      'undici',
      'weightedFailover',
      'weightedRandom',
      'weightedRoundRobin',
      'wireHeaders',
      'zoneWeights',
    ])
  })

  test('of evenkeel/express', () => {
    expect(Object.keys(express)).toEqual(['expressProxy'])
  })

  test('of evenkeel/fastify', () => {
    expect(Object.keys(fastify).sort()).toEqual(['fastifyProxy', 'forward'])
  })

  test('of evenkeel/load-report', () => {
    expect(Object.keys(loadReport)).toEqual(['loadReport'])
  })

  test('of evenkeel/config', () => {
    expect(Object.keys(config).sort()).toEqual([
      'configOf',
      'configSchema',
      'issueText',
      'loadConfig',
      'parseConfig',
      'watchConfig',
    ])
  })

  test('of evenkeel/node', () => {
    expect(Object.keys(node).sort()).toEqual(['createProxy'])
  })

  test('of evenkeel/prometheus', () => {
    expect(Object.keys(prometheus).sort()).toEqual(['collect', 'metricsHandler'])
  })

  test('of evenkeel/testing', () => {
    expect(Object.keys(testing).sort()).toEqual([
      'GARBAGE',
      'faultServer',
      'leftovers',
      'manualClock',
      'seededRandom',
      'strategyContract',
      'transportContract',
    ])
  })

  test('of evenkeel/web', () => {
    expect(Object.keys(web)).toEqual(['createHandler'])
  })
})
