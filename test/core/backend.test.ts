import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { BackendRecord, idOf } from '../../src/core/backend.ts'
import { wireHeaders } from '../../src/core/headers.ts'
import { backendsOf } from '../../src/testing/kit.ts'

describe('a backend', () => {
  test('is its origin, and its base path without a slash at the end', () => {
    for (const [url, origin, basePath, id] of [
      ['http://127.0.0.1:3001', 'http://127.0.0.1:3001', '', '127.0.0.1:3001'],
      ['http://127.0.0.1:3001/', 'http://127.0.0.1:3001', '', '127.0.0.1:3001'],
      ['https://a.test/v1/', 'https://a.test', '/v1', 'a.test/v1'],
      ['https://a.test:443/v1//', 'https://a.test', '/v1/', 'a.test/v1/'],
      ['HTTP://A.test:80/X', 'http://a.test', '/X', 'a.test/X'],
      ['http://[::1]:8080', 'http://[::1]:8080', '', '[::1]:8080'],
    ] as const) {
      const backend = new BackendRecord({ url })
      expect(backend).toMatchObject({ origin, basePath, id })
      expect(idOf({ url })).toBe(id)
    }
  })

  test('is called what its endpoint says', () => {
    expect(new BackendRecord({ url: 'http://a.test', id: 'first' }).id).toBe('first')
  })

  test('weighs its own weight, 1 by default, times every factor', () => {
    const backend = new BackendRecord({ url: 'http://a.test', weight: 4 })
    expect(backend).toMatchObject({ weight: 4, logWeight: 2 })
    backend.factors.set('slow start', 0.5)
    backend.factors.set('headroom', 0.25)
    backend.reweigh()
    expect(backend).toMatchObject({ weight: 0.5, logWeight: -1 })
    backend.factors.delete('headroom')
    backend.endpoint = { url: 'http://a.test' }
    backend.reweigh()
    expect(backend.weight).toBe(0.5)
    backend.factors.clear()
    backend.reweigh()
    expect(backend).toMatchObject({ weight: 1, logWeight: 0 })
  })

  test('of weight 0 has a finite logarithm, so that no picker meets a NaN', () => {
    expect(new BackendRecord({ url: 'http://a.test', weight: 0 })).toMatchObject({ weight: 0, logWeight: 0 })
  })

  test('says in words why nobody may pick it, and nothing when somebody may', () => {
    const backend = new BackendRecord({ url: 'http://a.test' })
    expect(backend.describe(1_000)).toEqual([])
    backend.reasons.set('outlier', { by: 'outlier', hard: false, untilMs: 6_000.4, detail: '5 failures in a row' })
    backend.reasons.set('probe', { by: 'probe', hard: false })
    backend.reasons.set('operator', { by: 'operator', hard: true, detail: 'maintenance' })
    backend.endpoint = { url: 'http://a.test', weight: 0 }
    backend.reweigh()
    expect(backend.describe(1_000)).toEqual([
      'outlier for 5001 ms more: 5 failures in a row',
      'probe',
      'operator: maintenance',
      'weight 0',
    ])
    expect(backend.describe(99_000)[0]).toBe('outlier for 0 ms more: 5 failures in a row')
  })
})

test('never shows the values of its headers, and sends them all the same', () => {
  const [record] = backendsOf([{ url: 'http://a.test', headers: { 'x-api-key': 'canary-123', accept: 'canary-456' } }])
  const shown = [
    inspect(record, { depth: 9, showHidden: true }),
    JSON.stringify(record),
    JSON.stringify(record!.endpoint),
  ]
  for (const text of shown) expect(text).not.toMatch(/canary/)
  const request = { method: 'GET', path: '/', headers: ['Accept', 'x'], body: null }
  expect(wireHeaders(record!.requestFor(request).headers)).toEqual(['x-api-key', 'canary-123', 'accept', 'canary-456'])
})
