import { defineConfig, type ViteUserConfig } from 'vitest/config'
import base from './vitest.config.ts'

/**
 * The tests of `npm run mutation`: those that take milliseconds, because every mutant runs all of them that reach it.
 * Files share one worker (`isolate: false`): loading the modules anew for each file took longer than the tests.
 */
const config: ViteUserConfig = defineConfig({
  ...base,
  test: {
    ...base.test,
    include: [
      'test/{core,policies,health}/**/*.test.ts',
      'test/{explain,memory,misbehaving-parts,pools,strategies-failover}.test.ts',
    ],
    exclude: [
      'test/core/body-interleavings.test.ts',
      // Measures milliseconds, which instrumented code cannot keep: stryker.config.json leaves target.ts out as well.
      'test/core/target.test.ts',
      // Simulations and properties of seconds, which pass through all of core: every surviving mutant would run them.
      'test/policies/{breaker-trials,hedge-laws,limit-storm,retry-limits}.test.ts',
      'test/health/{grpc-probe,http-probe}.test.ts',
      'test/health/monitor.test.ts',
    ],
    isolate: false,
    testTimeout: 60_000,
  },
})

export default config
