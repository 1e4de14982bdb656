import { defineConfig } from 'tsup'
import { entries } from './scripts/entries.ts'

const config: ReturnType<typeof defineConfig> = defineConfig({
  entry: entries,
  format: 'esm',
  target: 'node22',
  splitting: true,
  dts: true,
  sourcemap: true,
  clean: true,
})

export default config
