import { defineConfig, type ViteUserConfig } from 'vitest/config'
import base from './vitest.config.ts'

/** `npm run test:long`: the tests that take minutes, one file at a time so that they do not disturb each other. */
const config: ViteUserConfig = defineConfig({
  ...base,
  test: { ...base.test, include: ['test/**/*.long.ts'], maxWorkers: 1, testTimeout: 600_000, hookTimeout: 60_000 },
})

export default config
