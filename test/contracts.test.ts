import { byInflight, byPeakEwma, p2c, roundRobin, type Strategy, undici } from 'evenkeel'
import { strategyContract, transportContract } from 'evenkeel/testing'
import { describe, test } from 'vitest'

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
  for (const make of [roundRobin, () => p2c(byInflight), () => p2c(byPeakEwma), () => firstUntried]) {
    for (const { name, run } of strategyContract(make)) test(name, run)
  }
})

describe('transports keep the contract', () => {
  const cases = transportContract(({ connections }) => undici({ connections }), { upgrade: false })
  for (const { name, run } of cases) test(name, run)
})
