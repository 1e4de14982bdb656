import { defineConfig, type ViteUserConfig } from 'vitest/config'
import base from './vitest.config.ts'

/** This project's adapters, in whose columns nobody waits, and the others, who are waited for in parts. */
const OURS = ['node', 'express', 'express4', 'fastify', 'web']
const PEERS = [
  ...['http-proxy', 'http-proxy-3', 'httpxy', 'http-proxy-middleware'],
  ...['@fastify/reply-from', '@fastify/http-proxy', 'fast-proxy'],
]
const PARTS = 2

/** `npm run conformance`: a process for each subject, so that nobody's errors are held against somebody else. */
const config: ViteUserConfig = defineConfig({
  ...base,
  test: {
    ...base.test,
    include: ['test/conformance/asked.ts'],
    // They wait for what does not come; two processors are enough for all of them.
    maxWorkers: OURS.length + PARTS * PEERS.length,
    projects: [...OURS.map((name) => project(name, 0, 1, 1)), ...PEERS.flatMap((name) => parts(name))],
    // A proxy that throws where nobody catches it has failed its row, not the run.
    dangerouslyIgnoreUnhandledErrors: true,
    onUnhandledError: () => false,
    reporters: ['dot'],
  },
})

function parts(name: string): ReturnType<typeof project>[] {
  return Array.from({ length: PARTS }, (_, part) => project(name, part, PARTS, 0))
}

/** `groupOrder`: those of 0 run before those of 1. */
function project(name: string, part: number, of: number, groupOrder: number) {
  const env = { SUBJECT: name, PART: String(part), PARTS: String(of) }
  return {
    extends: true as const,
    test: { name: `${name} ${part}`, env, hookTimeout: 3_000, silent: true, sequence: { groupOrder } },
  }
}

export default config
