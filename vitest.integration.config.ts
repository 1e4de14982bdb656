import { defineConfig, type ViteUserConfig } from 'vitest/config'
import base from './vitest.config.ts'

/** `npm run test:integration`: the tests that need other programs on the machine; each says which, and how to get it. */
const config: ViteUserConfig = defineConfig({
  ...base,
  test: { ...base.test, include: ['test/integration/**/*.integration.ts'], maxWorkers: 1, testTimeout: 120_000 },
})

export default config
