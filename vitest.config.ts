import { fileURLToPath } from 'node:url'
import { defineConfig, type ViteUserConfig } from 'vitest/config'
import { sources } from './scripts/entries.ts'

const config: ViteUserConfig = defineConfig({
  resolve: {
    alias: [...sources].map(([name, url]) => ({ find: new RegExp(`^${name}$`), replacement: fileURLToPath(url) })),
  },
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['text-summary', 'json-summary', 'html'],
      thresholds: { lines: 95 },
    },
  },
})

export default config
