import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { SendFailure } from '../../src/core/contracts.ts'
import { BalancerError } from '../../src/core/errors.ts'
import {
  CLASSES,
  CODE_CLASSES,
  classOfFailure,
  classOfStatus,
  errorOf,
  type Outcome,
  type OutcomeClass,
  PHASE_CLASSES,
  STATUS_CLASSES,
} from '../../src/core/outcome.ts'

const failure = (given: Partial<SendFailure> = {}): SendFailure => ({
  phase: 'head',
  processed: 'maybe',
  reused: false,
  code: '',
  cause: new Error('broken'),
  ...given,
})
const outcome = (given: Partial<Outcome>): Outcome => ({
  class: 'reset',
  status: 0,
  phase: 'head',
  code: '',
  error: undefined,
  ...given,
})

describe('the table of classes', () => {
  test('says for each class whether it is sent again, whom it is blamed on, and what it is called', () => {
    const rows: Readonly<
      Record<OutcomeClass, readonly [retry: string, health: string, latency: string, cool: string, code?: string]>
    > = {
      ok: ['never', 'success', 'sample', 'none'],
      'client-error': ['status', 'success', 'sample', 'none'],
      forbidden: ['status', 'none', 'none', 'none'],
      auth: ['status', 'none', 'none', 'credential'],
      'rate-limited': ['status', 'none', 'none', 'rate-limit'],
      'server-error': ['status', 'failure', 'slow', 'hint'],
      connect: ['always', 'failure', 'slow', 'none', 'CONNECT'],
      tls: ['always', 'failure', 'slow', 'none', 'TLS'],
      stale: ['fresh', 'none', 'none', 'none', 'RESET'],
      reset: ['safe', 'failure', 'slow', 'none', 'RESET'],
      protocol: ['safe', 'failure', 'slow', 'none', 'PROTOCOL'],
      timeout: ['safe', 'failure', 'slow', 'none', 'TIMEOUT'],
      truncated: ['safe', 'failure', 'slow', 'none', 'TRUNCATED'],
      overloaded: ['always', 'none', 'none', 'none', 'OVERLOADED'],
      local: ['never', 'none', 'none', 'none', 'CONNECT'],
      request: ['never', 'none', 'none', 'none', 'PROTOCOL'],
      cancelled: ['never', 'none', 'none', 'none'],
    }
    expect(Object.keys(CLASSES)).toEqual(Object.keys(rows))
    for (const [kind, [retry, health, latency, cool, code]] of Object.entries(rows)) {
      expect(CLASSES[kind as OutcomeClass], kind).toEqual({ retry, health, latency, cool, code })
    }
  })

  test('lets every failure of health count as slow, and nothing else: failing fast is not being fast', () => {
    for (const rule of Object.values(CLASSES)) expect(rule.latency === 'slow').toBe(rule.health === 'failure')
  })

  test('is met by every class from a status, a code, a phase or a cancel', () => {
    const met = new Set<OutcomeClass>(['stale', 'timeout', 'cancelled'])
    for (const { class: kind } of STATUS_CLASSES) met.add(kind)
    for (const kind of [...Object.values(CODE_CLASSES), ...Object.values(PHASE_CLASSES)]) met.add(kind)
    expect([...met].sort()).toEqual(Object.keys(CLASSES).sort())
  })
})

describe('the class of a status', () => {
  test('is told by its row', () => {
    for (const [status, kind] of [
      [199, 'protocol'],
      [200, 'ok'],
      [204, 'ok'],
      [304, 'ok'],
      [399, 'ok'],
      [400, 'client-error'],
      [401, 'auth'],
      [402, 'auth'],
      [403, 'forbidden'],
      [404, 'client-error'],
      [408, 'client-error'],
      [428, 'client-error'],
      [429, 'rate-limited'],
      [430, 'client-error'],
      [499, 'client-error'],
      [500, 'server-error'],
      [503, 'server-error'],
      [599, 'server-error'],
      [600, 'protocol'],
      [0, 'protocol'],
      [Number.NaN, 'protocol'],
    ] as const) {
      expect(classOfStatus(status), `${status}`).toBe(kind)
    }
  })

  test('is never a failure of health below 500', () => {
    for (let status = 200; status < 500; status++) expect(CLASSES[classOfStatus(status)].health).not.toBe('failure')
    for (let status = 500; status < 600; status++) expect(CLASSES[classOfStatus(status)].health).toBe('failure')
  })
})

describe('the class of a failed send', () => {
  test('is told by its code first, then by its phase', () => {
    for (const [given, kind] of [
      [{ phase: 'wait' }, 'overloaded'],
      [{ phase: 'connect', code: 'ECONNREFUSED' }, 'connect'],
      [{ phase: 'connect', code: 'UND_ERR_CONNECT_TIMEOUT' }, 'connect'],
      [{ phase: 'connect', code: 'EMFILE' }, 'local'],
      [{ phase: 'connect', code: 'ENFILE' }, 'local'],
      [{ phase: 'connect', code: 'EADDRNOTAVAIL' }, 'local'],
      [{ phase: 'tls', code: 'CERT_HAS_EXPIRED' }, 'tls'],
      [{ phase: 'head', code: 'ECONNRESET' }, 'reset'],
      [{ phase: 'head', code: 'ECONNRESET', reused: true }, 'stale'],
      [{ phase: 'head', reused: true, code: 'UND_ERR_SOCKET' }, 'stale'],
      [{ phase: 'head', code: 'HPE_INVALID_CONSTANT' }, 'protocol'],
      [{ phase: 'head', code: 'HPE_INVALID_CONSTANT', reused: true }, 'protocol'],
      [{ phase: 'head', code: 'BAD_STATUS' }, 'protocol'],
      [{ phase: 'head', code: 'UND_ERR_HEADERS_OVERFLOW' }, 'protocol'],
      [{ phase: 'head', code: 'REQUEST_BODY' }, 'request'],
      [{ phase: 'head', code: 'REQUEST_BODY', reused: true }, 'request'],
      [{ phase: 'connect', code: 'UND_ERR_INVALID_ARG' }, 'request'],
      [{ phase: 'connect', code: 'UND_ERR_NOT_SUPPORTED' }, 'request'],
      [{ phase: 'head', code: 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH' }, 'request'],
      [{ phase: 'body', code: 'ECONNRESET' }, 'truncated'],
      [{ phase: 'body', code: 'ECONNRESET', reused: true }, 'truncated'],
      [{ phase: 'body', code: 'HPE_INVALID_CHUNK_SIZE' }, 'truncated'],
    ] as const) {
      expect(classOfFailure(failure(given), false), JSON.stringify(given)).toBe(kind)
    }
  })

  test('is always a class of the table, whatever the transport says', () => {
    const codes = fc.oneof(
      fc.constantFrom(...Object.keys(CODE_CLASSES), ''),
      fc.string().map((text) => text.toUpperCase()),
    )
    const phases = fc.constantFrom(
      'wait' as const,
      'connect' as const,
      'tls' as const,
      'head' as const,
      'body' as const,
    )
    fc.assert(
      fc.property(codes, phases, fc.boolean(), fc.boolean(), (code, phase, reused, canceled) => {
        expect(Object.keys(CLASSES)).toContain(classOfFailure(failure({ code, phase, reused }), canceled))
      }),
      { numRuns: 2_000, seed: 1 },
    )
  })
})

describe('the class of a cancelled send', () => {
  test('is the caller’s, in every phase and whatever the code, and blamed on nobody', () => {
    for (const phase of ['wait', 'connect', 'tls', 'head', 'body'] as const) {
      for (const cause of [new Error('abort'), undefined, 'text', new BalancerError('CLOSED', 'closed')]) {
        const kind = classOfFailure(failure({ phase, cause, code: 'ECONNRESET', reused: true }), true)
        expect(kind).toBe('cancelled')
      }
    }
    expect(CLASSES.cancelled.health).toBe('none')
  })

  test('is our own timeout’s by the phase it was in', () => {
    const cause = new BalancerError('TIMEOUT', 'too slow')
    for (const [phase, kind] of [
      ['wait', 'overloaded'],
      ['connect', 'connect'],
      ['tls', 'tls'],
      ['head', 'timeout'],
      ['body', 'timeout'],
    ] as const) {
      expect(classOfFailure(failure({ phase, cause, reused: true }), true)).toBe(kind)
    }
  })
})

describe('the error that ends a call', () => {
  test('is made from the class, and names the backend, the phase and what happened', () => {
    const cause = new Error('read ECONNRESET')
    const error = errorOf(
      outcome({ class: 'reset', phase: 'head', code: 'ECONNRESET', error: cause }),
      CLASSES.reset,
      'b:80',
    )
    expect(error).toBeInstanceOf(BalancerError)
    expect(error).toMatchObject({
      code: 'RESET',
      message: 'backend b:80: reset (head): read ECONNRESET',
      backend: 'b:80',
      cause,
    })
  })

  test('has the code of its class', () => {
    for (const [kind, rule] of Object.entries(CLASSES)) {
      const { code } = rule
      if (code === undefined) continue
      const ended = outcome({ class: kind as OutcomeClass, error: new Error('x') })
      expect(errorOf(ended, rule, 'b')).toMatchObject({ code })
    }
  })

  test('has a cause that says nothing of what the backend was sent, wherever that stands in it', () => {
    const redacted = (text: string): string => text.replaceAll('key-0123456789', '[redacted]')
    const inner = new Error('key-0123456789 as well')
    const failed = Object.assign(new TypeError('no such key: key-0123456789', { cause: inner }), {
      code: 'EKEY',
      sent: 'key-0123456789',
    })
    const error = errorOf(outcome({ error: failed }), CLASSES.reset, 'b', redacted) as Error
    expect(error.message).toBe('backend b: reset (head): no such key: [redacted]')
    expect(error.cause).toMatchObject({ name: 'TypeError', message: 'no such key: [redacted]', code: 'EKEY' })
    const shown = inspect(error, { depth: 20, showHidden: true })
    expect(shown).toContain('outcome.test.ts')
    expect(shown).not.toContain('key-0123456789')
    const text = errorOf(outcome({ error: 'key-0123456789!' }), CLASSES.reset, 'b', redacted) as Error
    expect(text.cause).toBe('[redacted]!')
    const clean = new Error('clean', { cause: inner })
    expect(errorOf(outcome({ error: clean }), CLASSES.reset, 'b', redacted)).toMatchObject({ cause: clean })
  })

  test('falls back to the code where the cause says nothing', () => {
    const told = (given: Partial<Outcome>): string => (errorOf(outcome(given), CLASSES.reset, 'b') as Error).message
    expect(told({ error: new Error(''), code: 'ECONNRESET' })).toBe('backend b: reset (head): ECONNRESET')
    expect(told({ error: 'text' })).toBe('backend b: reset (head): text')
    expect(told({ error: new Error('x'), phase: 'done' })).toBe('backend b: reset: x')
  })

  test('is the caller’s own reason, itself', () => {
    for (const reason of [new DOMException('gone', 'AbortError'), 'text', undefined]) {
      expect(errorOf(outcome({ class: 'cancelled', error: reason }), CLASSES.cancelled, 'b')).toBe(reason)
    }
  })

  test('is our own error, itself, if it is one: a timeout while connecting stays a TIMEOUT', () => {
    const timeout = new BalancerError('TIMEOUT', 'waited')
    expect(errorOf(outcome({ class: 'connect', phase: 'connect', error: timeout }), CLASSES.connect, 'b')).toBe(timeout)
  })
})
