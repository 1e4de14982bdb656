import { readdirSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Outline, outlineOf } from './support/imports.ts'

const SRC = new URL('../src/', import.meta.url)

/** Directories a room may import from, besides itself: the table of docs/architecture.md. A file at the top is its own room. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  core: [],
  faces: ['core'],
  strategies: ['core'],
  policies: ['core'],
  health: ['core'],
  discovery: ['core'],
  transports: ['core'],
  telemetry: ['core', 'events.ts'],
  config: ['core'],
  adapters: ['core', 'faces/read.ts'],
  testing: ['core'],
  'events.ts': ['core'],
  'balancer.ts': ['core', 'events.ts'],
  'create-balancer.ts': [
    ...[
      'core',
      'balancer.ts',
      'events.ts',
      'config/changes.ts',
      'config/schema.ts',
      'config/defaults.ts',
      'config/status.ts',
    ],
    ...['faces', 'strategies', 'policies', 'health', 'telemetry', 'transports'],
  ],
  'index.ts': [
    'core',
    'balancer.ts',
    'events.ts',
    'create-balancer.ts',
    'faces',
    'strategies',
    'policies',
    'health',
    'transports',
  ],
}

/** npm package -> the only files that may import it. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  undici: ['transports/undici-connection.ts', 'faces/dispatcher.ts', 'policies/cache.ts'],
  eventemitter3: ['events.ts'],
  zod: [
    'config/schema.ts',
    'config/shapes.ts',
    'config/strategy-schema.ts',
    'config/berry-schema.ts',
    'config/zod-issues.ts',
  ],
  cockatiel: ['policies/trip-rules.ts'],
  'smol-toml': ['config/toml.ts'],
  'toml-eslint-parser': ['config/positions.ts'],
  'prom-client': ['telemetry/prometheus.ts'],
}

/** Rooms that may use the platform's modules; the others run anywhere. */
const ON_NODE = ['transports', 'discovery', 'telemetry', 'adapters', 'testing']
/** Files of other rooms that may: what reads files, SHA-256, and content codings. */
const FILES_ON_NODE = ['faces/decode.ts', 'config/changes.ts', 'config/files.ts', 'config/watch.ts']

/** What config may take from core at run time: it knows names and limits, never parts. */
const CONFIG_VALUES: Readonly<Record<string, readonly string[]>> = {
  'core/errors.ts': ['BalancerError'],
  'core/backend.ts': ['idOf'],
  'core/body.ts': ['UNREAD_BYTES'],
  'core/clock.ts': ['MAX_DELAY_MS', 'systemClock'],
  'core/equal.ts': ['isDeepEqual', 'isPlain'],
  'core/outcome.ts': ['CLASSES'],
  'core/secret.ts': ['Secret', 'digestOf'],
  'core/spelling.ts': ['isKeySource', 'isPrime', 'nameText', 'seemsSecret'],
  'core/options.ts': ['BREAKER_DEFAULTS', 'BREAKER_FIELDS', 'CONNECTION_DEFAULTS'],
}

/** Rooms where time and chance come from Core; two files of core are where they enter. */
const PURE = ['core', 'faces', 'strategies', 'policies', 'health', 'balancer.ts']
const SOURCES_OF_TIME_AND_CHANCE = ['core/clock.ts', 'core/random.ts']

function roomOf(path: string): string {
  return path.includes('/') ? path.slice(0, path.indexOf('/')) : path
}

/** Everything that is wrong with one source file, in words. `path` is relative to src. */
function faultsOf(path: string, { taken, globals, constructs }: Outline): string[] {
  const room = roomOf(path)
  const allowed = ROOMS[room]
  if (allowed === undefined) return [`${path} is in no known room`]
  const faults = constructs.map((construct) => `${path} has ${construct}`)
  if (PURE.includes(room) && !SOURCES_OF_TIME_AND_CHANCE.includes(path)) {
    faults.push(...globals.map((name) => `${path} uses ${name}`))
  }
  for (const { from, values } of taken) {
    const fault = `${path} imports ${from}`
    if (from.startsWith('node:')) {
      if (!ON_NODE.includes(room) && !FILES_ON_NODE.includes(path)) faults.push(fault)
    } else if (!from.startsWith('.')) {
      const name = from.split('/', from.startsWith('@') ? 2 : 1).join('/')
      if (PACKAGES[name]?.includes(path) !== true) faults.push(fault)
    } else {
      const target = posix.join(posix.dirname(path), from)
      const known =
        room === roomOf(target) ? room.length > 0 : allowed.some((it) => it === target || it === roomOf(target))
      if (!known || target.startsWith('..') || !target.endsWith('.ts')) faults.push(fault)
      if (room === 'config' && roomOf(target) === 'core') {
        const extra = values.filter((name) => CONFIG_VALUES[target]?.includes(name) !== true)
        if (extra.length > 0) faults.push(`${path} takes ${extra.join(', ')} from ${target}`)
      }
    }
  }
  return faults
}

const outlines: ReadonlyMap<string, Outline> = new Map(
  readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .map((path) => path.replaceAll('\\', '/'))
    .filter((path) => path.endsWith('.ts'))
    .map((path) => [path, outlineOf(readFileSync(new URL(path, SRC), 'utf8'))]),
)

describe('the sources', () => {
  test('keep to the table of rooms, packages, globals and constructs', () => {
    expect(outlines.size).toBeGreaterThan(35)
    expect([...outlines].flatMap(([path, outline]) => faultsOf(path, outline))).toEqual([])
  })

  test('take each package in one file of a room at most, but for zod: its schemas, what they are built of and its issues', () => {
    for (const name of Object.keys(PACKAGES).filter((it) => it !== 'zod')) {
      const using = [...outlines].filter(([, { taken }]) => taken.some(({ from }) => from.split('/')[0] === name))
      expect(new Set(using.map(([path]) => roomOf(path))).size, name).toBe(using.length)
    }
  })
})

describe('the check', () => {
  const rows: readonly (readonly [path: string, source: string, fault: string | undefined])[] = [
    ['core/x.ts', `import { a } from './pool.ts'`, undefined],
    ['core/x.ts', `import type { a } from '../config/schema.ts'`, 'core/x.ts imports ../config/schema.ts'],
    ['core/x.ts', `import { readFile } from 'node:fs'`, 'core/x.ts imports node:fs'],
    ['core/x.ts', `import { Client } from 'undici'`, 'core/x.ts imports undici'],
    ['core/x.ts', `export { a } from '../faces/fetch.ts'`, 'core/x.ts imports ../faces/fetch.ts'],
    ['core/x.ts', `const a = await import('../faces/fetch.ts')`, 'core/x.ts imports ../faces/fetch.ts'],
    ['core/x.ts', `let a: import('../faces/fetch.ts').A`, 'core/x.ts imports ../faces/fetch.ts'],
    ['core/x.ts', `import '../events.ts'`, 'core/x.ts imports ../events.ts'],
    ['core/x.ts', `import { a } from '../core/pool.ts'`, undefined],
    ['core/x.ts', `import { a } from '../../test/a.ts'`, 'core/x.ts imports ../../test/a.ts'],
    ['core/x.ts', `import { a } from './pool'`, 'core/x.ts imports ./pool'],
    ['core/x.ts', `import ip = require('ip')`, 'core/x.ts imports ip'],
    ['faces/x.ts', `import { a } from '../core/pool.ts'; import { b } from './response.ts'`, undefined],
    ['faces/x.ts', `import { retry } from '../policies/retry.ts'`, 'faces/x.ts imports ../policies/retry.ts'],
    ['faces/dispatcher.ts', `import { Dispatcher } from 'undici'`, undefined],
    [
      'strategies/x.ts',
      `import { outlier } from '../health/outlier.ts'`,
      'strategies/x.ts imports ../health/outlier.ts',
    ],
    [
      'policies/x.ts',
      `import { DEFAULTS } from '../config/defaults.ts'`,
      'policies/x.ts imports ../config/defaults.ts',
    ],
    ['health/x.ts', `import { Balancer } from '../balancer.ts'`, 'health/x.ts imports ../balancer.ts'],
    ['transports/x.ts', `import net from 'node:net'`, undefined],
    ['transports/x.ts', `import { Client } from 'undici'`, 'transports/x.ts imports undici'],
    ['transports/undici-connection.ts', `import { Client } from 'undici/lib/client.js'`, undefined],
    ['config/x.ts', `import { z } from 'zod'`, 'config/x.ts imports zod'],
    ['config/x.ts', `import { type Pool, idOf } from '../core/backend.ts'`, undefined],
    ['config/x.ts', `import type { Pool } from '../core/pool.ts'`, undefined],
    ['config/x.ts', `import { Pool } from '../core/pool.ts'`, 'config/x.ts takes Pool from core/pool.ts'],
    ['config/x.ts', `import { p2c } from '../strategies/p2c.ts'`, 'config/x.ts imports ../strategies/p2c.ts'],
    ['balancer.ts', `import { Events } from './events.ts'`, undefined],
    ['balancer.ts', `import { retry } from './policies/retry.ts'`, 'balancer.ts imports ./policies/retry.ts'],
    ['create-balancer.ts', `import { a } from './config/fields.ts'`, 'create-balancer.ts imports ./config/fields.ts'],
    ['create-balancer.ts', `import { a } from './adapters/node.ts'`, 'create-balancer.ts imports ./adapters/node.ts'],
    ['create-balancer.ts', `import { a } from './testing/kit.ts'`, 'create-balancer.ts imports ./testing/kit.ts'],
    ['index.ts', `export * from './core/errors.ts'`, 'index.ts has export *'],
    ['index.ts', `export * as errors from './core/errors.ts'`, 'index.ts has export *'],
    ['adapters/x.ts', `import express from 'express'`, 'adapters/x.ts imports express'],
    ['adapters/x.ts', `import { a } from '@scope/name/sub'`, 'adapters/x.ts imports @scope/name/sub'],
    ['testing/x.ts', `import { a } from '../policies/retry.ts'`, 'testing/x.ts imports ../policies/retry.ts'],
    ['elsewhere/x.ts', '', 'elsewhere/x.ts is in no known room'],
    ['core/x.ts', 'export default function a() {}', 'core/x.ts has export default'],
    ['core/x.ts', 'enum A { B }', 'core/x.ts has enum'],
    ['core/x.ts', 'namespace A { let b }', 'core/x.ts has namespace'],
    ['core/x.ts', 'const a = Math.random()', 'core/x.ts uses Math.random'],
    ['core/x.ts', `const a = Math['random']()`, 'core/x.ts uses Math[…]'],
    ['core/x.ts', 'const a = Math.max(1, 2)', undefined],
    ['core/x.ts', 'const a = new Date()', 'core/x.ts uses Date'],
    ['core/x.ts', `const a = \`\${Date.now()}\``, 'core/x.ts uses Date'],
    ['faces/x.ts', 'setTimeout(() => {}, 1)', 'faces/x.ts uses setTimeout'],
    ['faces/x.ts', 'globalThis.setTimeout(() => {}, 1)', 'faces/x.ts uses globalThis.setTimeout'],
    ['faces/x.ts', `globalThis['setTimeout'](() => {}, 1)`, 'faces/x.ts uses globalThis[…]'],
    ['policies/x.ts', 'const { now } = performance', 'policies/x.ts uses performance'],
    ['health/x.ts', 'process.hrtime()', 'health/x.ts uses process'],
    ['core/clock.ts', 'const a = performance.now()', undefined],
    ['core/random.ts', 'const a = Math.random()', undefined],
    ['testing/x.ts', 'setTimeout(() => {}, 1)', undefined],
    ['core/x.ts', `const a = 'setTimeout' /* performance */ // new Date()`, undefined],
    ['core/x.ts', 'const a = { process: 1 }; a.process; class B { performance = 1 }', undefined],
  ]

  test.each(rows)('of %s with `%s` finds: %s', (path, source, fault) => {
    expect(faultsOf(path, outlineOf(source))).toEqual(fault === undefined ? [] : [fault])
  })
})
