import { byInflight, byPeakEwma, least, p2c, roundRobin, type Strategy, undici } from 'evenkeel'
import { strategyContract, transportContract } from 'evenkeel/testing'
import { describe, test } from 'vitest'
import { edf } from '../src/strategies/edf.ts'
import { failover } from '../src/strategies/failover.ts'
import { jump } from '../src/strategies/jump.ts'
import { locality, zoneWeights } from '../src/strategies/locality.ts'
import { maglev } from '../src/strategies/maglev.ts'
import { orca } from '../src/strategies/orca.ts'
import { byExpectedDelay } from '../src/strategies/prefer.ts'
import { rendezvous } from '../src/strategies/rendezvous.ts'
import { ringHash } from '../src/strategies/ring-hash.ts'
import { smart } from '../src/strategies/smart.ts'
import { subset } from '../src/strategies/subset.ts'
import { thompson } from '../src/strategies/thompson.ts'
import { weightedFailover } from '../src/strategies/weighted-failover.ts'

/** What a user would hand over: the first backend that the call has not tried. */
const firstUntried: Strategy = {
  name: 'first by turns',
  start() {
    let turn = 0
    return {
      build:
        ({ eligible }) =>
        () =>
          eligible.length === 0 ? undefined : eligible[turn++ % eligible.length],
    }
  },
}

describe('strategies keep the contract', () => {
  for (const make of [
    roundRobin,
    () => p2c(byInflight),
    () => p2c(byPeakEwma),
    () => p2c(byInflight, { choices: 3 }),
    () => p2c(byExpectedDelay),
    () => least(byExpectedDelay),
    edf,
    () => edf({ bias: 1 }),
    orca,
    () => orca({ blackoutMs: 0, updateMs: 100 }),
    () => firstUntried,
  ]) {
    for (const { name, run } of strategyContract(make)) test(name, run)
  }
})

describe('strategies that decide by more than load keep the contract', () => {
  for (const make of [
    () => failover(roundRobin()),
    () => failover(locality(subset(p2c(byPeakEwma)), { zone: 'here' })),
    () => weightedFailover(),
    () => locality(p2c(byInflight), { zone: 'here', callers: { here: 1, there: 1 } }),
    () => zoneWeights(p2c(byInflight), { weights: { here: 2 } }),
    () => subset(p2c(byInflight), { by: { index: 1, clients: 3 } }),
    () => smart({ cost: ({ id }) => id.length }),
    () => thompson(),
  ]) {
    for (const { name, run } of strategyContract(make)) test(name, run)
  }
})

describe('strategies by key keep the contract', () => {
  for (const make of [
    () => ringHash({ key: 'call' }),
    () => ringHash({ key: 'call', like: 'envoy' }),
    () => ringHash({ key: 'call', like: 'nginx', bound: 1.25 }),
    () => maglev({ key: 'call' }),
    () => maglev({ key: 'call', bound: 1.25 }),
    () => rendezvous({ key: 'call' }),
    () => rendezvous({ key: 'call', bound: 1.25 }),
    () => jump({ key: 'call' }),
    () => jump({ key: 'call', bound: 1.25 }),
    () => failover(ringHash({ key: 'call', bound: 1.25 })),
  ]) {
    for (const { name, run } of strategyContract(make)) test(name, run)
  }
})

describe('transports keep the contract', () => {
  const cases = transportContract(({ connections }) => undici({ connections }), { upgrade: false })
  for (const { name, run } of cases) test(name, run)
})
