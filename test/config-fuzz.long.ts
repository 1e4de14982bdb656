import { expect, test } from 'vitest'
import { configFuzz } from './support/config-fuzz.ts'

/** Another one each day; a failure prints it. */
const SEED = Math.floor(Date.now() / 86_400_000)

test('100 000 spoilt configurations: each is taken whole or refused in words, and nobody is the worse for it', async () => {
  const { kinds, revisions, slowestMs } = await configFuzz(100_000, SEED)
  console.log(`spoilt configurations, seed ${SEED}: ${JSON.stringify({ kinds, revisions, slowestMs })}`)
  for (const [kind, { taken, refused }] of Object.entries(kinds)) {
    expect(taken, kind).toBeGreaterThan(50)
    expect(refused, kind).toBeGreaterThan(50)
  }
}, 1_800_000)
