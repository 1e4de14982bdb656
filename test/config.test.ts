import { describe, expect, test } from 'vitest'
import { A, endpoint, expectRows, one, type Row, refused, resolve, setting, verb } from './config-rows.ts'

describe('which backends', () => {
  test('there are backends or pools, never both or neither, and at least one of them', () => {
    expectRows([
      [{}, 'backends', 'either backends or pools', 'neither'],
      [{ backends: [A], pools: { a: { backends: [A] } } }, 'pools', 'either backends or pools', 'both'],
      [{ backends: [] }, 'backends', 'at least 1', 'an array of 0'],
      [{ pools: {} }, 'pools', 'at least one pool', 'none'],
      [{ pools: { a: {} } }, 'pools.a.backends', 'an array', 'undefined'],
      [{ pools: { a: { backends: [] } } }, 'pools.a.backends', 'at least 1', 'an array of 0'],
      [{ backends: A }, 'backends', 'an array of backends', `"${A}"`],
      [{ backends: null }, 'backends', 'an array of backends', 'null'],
      [{ pools: [] }, 'pools', 'an object of pools', 'an array of 0'],
      [{ pools: new Map([['a', { backends: [A] }]]) }, 'pools', 'an object of pools', 'a Map'],
    ])
  })

  test('the options are an object', () => {
    for (const [input, found] of [
      [undefined, 'undefined'],
      [null, 'null'],
      [[A], 'an array of 1'],
      [A, `"${A}"`],
      [1n, 'a bigint'],
      [Symbol('x'), 'a symbol'],
      [Promise.resolve({ backends: [A] }), 'a Promise'],
    ] as const) {
      expectRows([[input, 'options', 'an object', found]])
    }
  })

  test('pool names are short and plain', () => {
    const pools = (name: string): unknown => ({ pools: JSON.parse(`{${JSON.stringify(name)}:{"backends":["${A}"]}}`) })
    expectRows([
      [pools(''), 'pools[""]', 'a pool name', 'another name'],
      [pools('a b'), 'pools["a b"]', 'letters, digits', 'another name'],
      [pools('x'.repeat(65)), `pools["${'x'.repeat(60)}…"]`, 'a pool name', 'another name'],
      [pools('__proto__'), 'pools.__proto__', 'another name', 'reserved'],
      [pools('constructor'), 'pools.constructor', 'another name', 'reserved'],
      [pools('prototype'), 'pools.prototype', 'another name', 'reserved'],
    ])
    const symbol = { pools: { p: { backends: [A] }, [Symbol('s')]: { backends: [A] } } }
    expectRows([[symbol, 'pools["Symbol(s)"]', 'a string as the key', 'another key']])
    expect(resolve(pools('A-z_0.9')).pools[0]?.name).toBe('A-z_0.9')
    expect(refused({ pools: { 'my.api': { backends: [A], retry: 1 } } }).issues?.[0]?.path).toBe(
      'pools["my.api"].retry',
    )
  })

  test('ids are unique within a pool, but not across pools', () => {
    const expected = 'an id of its own'
    expectRows([
      [{ backends: [A, A] }, 'backends[1].id', expected, 'duplicate id "127.0.0.1:3001" (also backends[0])'],
      [{ backends: [A, { url: `${A}/` }] }, 'backends[1].id', expected, '(also backends[0])'],
      [
        { backends: [{ url: A, id: 'x' }, 'http://b', { url: 'http://c', id: 'x' }] },
        'backends[2].id',
        expected,
        'duplicate id "x" (also backends[0])',
      ],
      [{ pools: { p: { backends: [A, A] } } }, 'pools.p.backends[1].id', expected, '(also pools.p.backends[0])'],
      [one(`http://a/${'x'.repeat(255)}`), 'backends[0].id', 'over 256', 'none'],
    ])
    expect(resolve({ pools: { p: { backends: [A] }, q: { backends: [A] } } }).pools).toHaveLength(2)
    expect(resolve({ backends: [A, { url: A, id: 'second' }] }).pools[0]?.endpoints).toHaveLength(2)
  })
})

describe('a backend', () => {
  const urls: readonly Row[] = [
    ['', '', 'http: or https: URL', '""'],
    ['127.0.0.1:3001', '', 'http: or https: URL', '"127.0.0.1:3001"'],
    ['ftp://a/', '', 'http: or https: URL', '"ftp://a/"'],
    ['http://', '', 'http: or https: URL', '"http://"'],
    ['http://ann:pass@a/', '', 'without credentials', 'a string of 18 characters'],
    ['http://ann@a/', '', 'without credentials', 'a string of 13 characters'],
    ['http:\\\\ann:pass@a', '', 'without credentials', 'a string of 17 characters'],
    ['ann:pass@a', '', 'http: or https: URL', 'a string of 10 characters'],
    ['http://ann:pass@a b/', '', 'http: or https: URL', 'a string of 20 characters'],
    ['http://a/?key=1', '', 'without a query', 'a query of 5 characters'],
    ['http://a/?', '', 'without a query', 'a query of 0 characters'],
    ['http://a/#x', '', 'without a fragment', 'a fragment of 1 character'],
    ['http://a/#', '', 'without a fragment', 'a fragment of 0 characters'],
    ['http://a b/?x', '', 'http: or https: URL', 'a string of 13 characters'],
  ]

  test('is a URL, bare or in an object', () => {
    expectRows(urls.map(([url, , ...rest]) => [one(url), 'backends[0]', ...rest] as const))
    expectRows(urls.map(([url, , ...rest]) => [one({ url }), 'backends[0].url', ...rest] as const))
    expectRows([
      [one(5), 'backends[0]', 'a URL as a string, or an object', '5'],
      [one(null), 'backends[0]', 'a URL as a string, or an object', 'null'],
      [one(new URL(A)), 'backends[0]', 'a URL as a string, or an object', 'a URL'],
      [one([A]), 'backends[0]', 'a URL as a string, or an object', 'an array of 1'],
      [one({}), 'backends[0].url', 'a URL', 'undefined'],
      [one({ url: new URL(A) }), 'backends[0].url', 'a URL', 'a URL'],
    ])
  })

  test('has fields within their bounds', () => {
    const least = 'a number >= 0'
    expectRows(
      [
        [{ weight: -1 }, 'weight', least, '-1'],
        [{ weight: Number.NaN }, 'weight', least, 'NaN'],
        [{ weight: Infinity }, 'weight', least, 'Infinity'],
        [{ weight: 1e308 }, 'weight', 'a number >= 0 and <= 1000000000', '1e+308'],
        [{ weight: '1' }, 'weight', least, '"1"'],
        [{ weight: null }, 'weight', least, 'null'],
        [{ weight: verb }, 'weight', least, 'a function'],
        [{ priority: -1 }, 'priority', 'a whole number >= 0', '-1'],
        [{ priority: 0.5 }, 'priority', 'a whole number >= 0', '0.5'],
        [{ maxInflight: 0 }, 'maxInflight', 'a whole number >= 1', '0'],
        [{ maxInflight: 1.5 }, 'maxInflight', 'a whole number >= 1', '1.5'],
        [{ maxInflight: Infinity }, 'maxInflight', 'a whole number >= 1', 'Infinity'],
        [{ maxInflight: 2 ** 31 - 1 }, 'maxInflight', 'a whole number >= 1 and <= 2147483646', '2147483647'],
        [{ id: '' }, 'id', '1 to 256 visible ASCII', '""'],
        [{ id: 'a b' }, 'id', '1 to 256 visible ASCII', '"a b"'],
        [{ id: 'é' }, 'id', '1 to 256 visible ASCII', '"é"'],
        [{ id: 'x'.repeat(257) }, 'id', '1 to 256 visible ASCII', `"${'x'.repeat(60)}…"`],
        [{ id: 7 }, 'id', '1 to 256 visible ASCII', '7'],
        [{ zone: 1 }, 'zone', 'a string', '1'],
        [{ tags: 'a' }, 'tags', 'an array of strings', '"a"'],
        [{ tags: ['a', ''] }, 'tags[1]', 'not empty', '""'],
        [{ tags: [1] }, 'tags[0]', 'a string', '1'],
        [{ meta: [] }, 'meta', 'an object', 'an array of 0'],
        [{ meta: new Map() }, 'meta', 'an object', 'a Map'],
        [{ headers: [] }, 'headers', 'header names and values', 'an array of 0'],
        [{ headers: 'x: y' }, 'headers', 'header names and values', 'a string of 4 characters'],
        [{ headers: { 'x y': '1' } }, 'headers["x y"]', 'a valid header name', 'another name'],
        [{ headers: { '': '1' } }, 'headers[""]', 'a valid header name', 'another name'],
        [{ headers: { a: 1 } }, 'headers.a', 'a string', 'a number'],
        [{ headers: { a: ['1'] } }, 'headers.a', 'a string', 'an array of 1'],
        [{ headers: { a: '1\r\nb: 2' } }, 'headers.a', 'without line breaks', 'a string of 7 characters'],
        [{ headers: { a: '1\0' } }, 'headers.a', 'without line breaks', 'a string of 2 characters'],
        [{ headers: { a: 'ｘ' } }, 'headers.a', 'latin1', 'a string of 1 character'],
      ].map(([rest, path, ...texts]) => [endpoint(rest), `backends[0].${path}`, ...texts] as unknown as Row),
    )
    resolve(endpoint({ weight: 1e9 }))
    resolve(endpoint({ weight: 0, priority: 0, maxInflight: 1, zone: '', tags: [], headers: { 'x-a': '' }, meta: {} }))
  })

  test('sets no header that frames the message or belongs to the connection', () => {
    const names = 'connection transfer-encoding content-length keep-alive upgrade expect te trailer proxy-connection'
    for (const name of names.split(' ').flatMap((lower) => [lower, lower.toUpperCase()])) {
      const path = `backends[0].headers.${name}`
      expectRows([[endpoint({ headers: { [name]: 'x' } }), path, 'the transport sets it', 'a string of 1 character']])
    }
  })
})

describe('settings', () => {
  const MOST = 2 ** 31 - 1
  const part = { name: 'x', start: verb, send: verb, wrap: verb, scope: 'pool' }
  const rows: readonly Row[] = [
    [{ strategy: 'p3c' }, 'strategy', '"p2c", "auto", "peak-ewma", "least", "round-robin"', '"p3c"'],
    [{ strategy: 'round_robin' }, 'strategy', '"round-robin", "auto"', '"round_robin"'],
    [{ strategy: 'sticky' }, 'strategy', '"auto", "p2c", "peak-ewma", "least"', '"sticky"'],
    [{ strategy: verb }, 'strategy', 'an object with name and start', 'a function'],
    [{ strategy: { name: 'x' } }, 'strategy.name', '"auto", "p2c"', '"x"'],
    [{ strategy: { name: 'x', start: 1 } }, 'strategy.start', 'a function', '1'],
    [{ strategy: { name: 'x', start: verb, keyOf: 'ip' } }, 'strategy.keyOf', 'a function', '"ip"'],
    [{ strategy: { name: '', start: verb } }, 'strategy.name', 'not empty', '""'],
    [{ health: false }, 'health', 'an object', 'false'],
    [{ health: { passive: true } }, 'health.passive', 'an object ({} = the defaults), or false', 'true'],
    [{ health: { passive: new Map() } }, 'health.passive', 'an object ({} = the defaults), or false', 'a Map'],
    [{ health: { passive: { consecutive: -1 } } }, 'health.passive.consecutive', 'a whole number >= 0', '-1'],
    [{ health: { passive: { consecutive: 1.5 } } }, 'health.passive.consecutive', 'a whole number >= 0', '1.5'],
    [{ health: { passive: { baseMs: 0 } } }, 'health.passive.baseMs', 'a number > 0', '0'],
    [{ health: { passive: { maxMs: -1 } } }, 'health.passive.maxMs', 'a number > 0', '-1'],
    [
      { health: { passive: { baseMs: 9, maxMs: 8 } } },
      'health.passive.maxMs',
      '9, which is health.passive.baseMs',
      '8',
    ],
    [{ health: { passive: { maxMs: 8 } } }, 'health.passive.maxMs', '5000, which is the default of baseMs', '8'],
    [{ health: { passive: { baseMs: 3e5 + 1 } } }, 'health.passive.baseMs', '300000, which is the default', '300001'],
    [{ health: { passive: { maxShare: 0 } } }, 'health.passive.maxShare', 'a number > 0 and <= 1', '0'],
    [{ health: { passive: { maxShare: 1.1 } } }, 'health.passive.maxShare', 'a number > 0 and <= 1', '1.1'],
    [{ health: { panicBelow: -0.1 } }, 'health.panicBelow', 'a number from 0 to 1', '-0.1'],
    [{ health: { panicBelow: 2 } }, 'health.panicBelow', 'a number from 0 to 1', '2'],
    [{ retry: { attempts: 0 } }, 'retry.attempts', 'a whole number >= 1 and <= 100', '0'],
    [{ retry: { attempts: 101 } }, 'retry.attempts', 'a whole number >= 1 and <= 100', '101'],
    [{ retry: { attempts: 1.5 } }, 'retry.attempts', 'a whole number >= 1 and <= 100', '1.5'],
    [{ retry: { status: 503 } }, 'retry.status', 'an array of statuses', '503'],
    [{ retry: { status: [503, 399] } }, 'retry.status[1]', 'a whole number >= 400 and <= 599', '399'],
    [{ retry: { status: [600] } }, 'retry.status[0]', 'a whole number >= 400 and <= 599', '600'],
    [{ retry: { baseMs: -1 } }, 'retry.baseMs', 'a number >= 0', '-1'],
    [{ retry: { maxMs: -1 } }, 'retry.maxMs', 'a number >= 0', '-1'],
    [{ retry: { baseMs: 9, maxMs: 8 } }, 'retry.maxMs', 'at least 9, which is retry.baseMs', '8'],
    [{ retry: { maxMs: 8 } }, 'retry.maxMs', 'at least 25, which is the default of baseMs', '8'],
    [{ retry: { baseMs: 5001 } }, 'retry.baseMs', 'at most 5000, which is the default of maxMs', '5001'],
    [{ retry: { bufferBytes: 0.5 } }, 'retry.bufferBytes', 'a whole number >= 0', '0.5'],
    [{ retry: { holdBytes: -1 } }, 'retry.holdBytes', 'a whole number >= 0', '-1'],
    [{ retry: { holdBytes: 65_537 } }, 'retry.holdBytes', '<= 65536 (no more is read ahead', '65537'],
    [{ retry: { budget: 1 } }, 'retry.budget', 'an object', '1'],
    [{ retry: { budget: { share: 1.5 } } }, 'retry.budget.share', 'a number from 0 to 1', '1.5'],
    [{ retry: { budget: { perSecond: -1 } } }, 'retry.budget.perSecond', 'a number >= 0', '-1'],
    [{ retry: { budget: { windowMs: 99 } } }, 'retry.budget.windowMs', 'a number >= 100', '99'],
    ...['connectMs', 'headersMs', 'idleMs', 'attemptMs', 'totalMs'].flatMap((key): Row[] =>
      [-1, 2 ** 31, Infinity, Number.NaN].map((ms) => {
        return [{ timeouts: { [key]: ms } }, `timeouts.${key}`, `ms >= 0 and <= ${MOST}`, String(ms)]
      }),
    ),
    [
      { timeouts: { attemptMs: 2, totalMs: 1 } },
      'timeouts.attemptMs',
      'timeouts.totalMs: no attempt outlasts its call',
      '2',
    ],
    [{ undici: { connections: 0 } }, 'undici.connections', 'a whole number >= 1', '0'],
    [{ undici: { pipelining: 0 } }, 'undici.pipelining', 'a whole number >= 1', '0'],
    [{ undici: { keepAliveMs: 0 } }, 'undici.keepAliveMs', 'a number > 0', '0'],
    [{ undici: { keepAliveMs: 2 ** 31 } }, 'undici.keepAliveMs', `<= ${MOST}`, '2147483648'],
    [{ undici: { allowH2: 'yes' } }, 'undici.allowH2', 'true or false', '"yes"'],
    [{ undici: { maxHeaderBytes: 0.5 } }, 'undici.maxHeaderBytes', 'a whole number >= 1', '0.5'],
    [{ undici: { tls: 'pem' } }, 'undici.tls', 'tls.connect', 'a string of 3 characters'],
    [{ transport: 'undici' }, 'transport', 'an object with name, send', '"undici"'],
    [{ transport: { name: 'x' } }, 'transport.send', 'a function', 'undefined'],
    [{ transport: { ...part, close: true } }, 'transport.close', 'a function', 'true'],
    [{ policies: part }, 'policies', 'an array of policies', 'an object'],
    [{ policies: [verb] }, 'policies[0]', 'an object with name, scope, wrap', 'a function'],
    [{ policies: [{ ...part, scope: 'call' }] }, 'policies[0].scope', '"balancer", "pool" or "attempt"', '"call"'],
    [{ policies: [part, { ...part, wrap: 1 }] }, 'policies[1].wrap', 'a function', '1'],
    [{ watchers: [{ name: 'x' }] }, 'watchers[0].start', 'a function', 'undefined'],
    [{ sinks: [{}] }, 'sinks[0].name', 'not empty', 'undefined'],
    [{ sinks: [{ name: 'x', call: 1 }] }, 'sinks[0].call', 'a function', '1'],
  ]

  test('stay within their bounds, for the balancer and for a pool', () => {
    expectRows(rows, setting)
    const inPool = rows.map(([rest, path, ...texts]): Row => {
      const expected = texts[0].replace(/(?<=which is )(?=health|retry|timeouts)|^(?=timeouts\.)/, 'pools.p.')
      return [{ pools: { p: setting(rest) } }, `pools.p.${path}`, expected, texts[1]]
    })
    expectRows(inPool)
  })

  test('of the balancer alone', () => {
    expectRows(
      [
        [{ name: '' }, 'name', 'not empty', '""'],
        [{ name: null }, 'name', 'not empty', 'null'],
        [{ origins: A }, 'origins', 'an array of origins', `"${A}"`],
        [{ origins: ['/a'] }, 'origins[0]', 'origin', '"/a"'],
        [{ origins: [`${A}/path`] }, 'origins[0]', 'origin', '/path'],
        [{ origins: ['ws://a'] }, 'origins[0]', 'origin', '"ws://a"'],
        [{ origins: ['https://u:p@a'] }, 'origins[0]', 'origin', 'a string of 13 characters'],
        [{ clock: Date }, 'clock', 'an object with now, after', 'a function'],
        [{ clock: { now: verb } }, 'clock.after', 'a function', 'undefined'],
        [{ random: 4 }, 'random', 'a function', '4'],
      ],
      setting,
    )
    expect(resolve(setting({ origins: ['HTTPS://A:443/'] })).origins).toEqual(['https://a'])
  })

  test('at their bounds are accepted', () => {
    for (const rest of [
      { health: { passive: { consecutive: 0, baseMs: 1, maxMs: 1, maxShare: 1 }, panicBelow: 0 } },
      { retry: { attempts: 100, status: [400, 599], baseMs: 0, maxMs: 0, bufferBytes: 0, holdBytes: 65_536 } },
      { retry: { attempts: 1, status: [], budget: { share: 0, perSecond: 0, windowMs: 100 } } },
      { timeouts: { connectMs: 0, headersMs: 5, attemptMs: 5, totalMs: 5 } },
      { timeouts: { headersMs: MOST } },
      { timeouts: { attemptMs: 5, totalMs: 0 } },
      { undici: { connections: 1, pipelining: 1, keepAliveMs: 1, allowH2: true, maxHeaderBytes: 1, tls: {} } },
      { name: undefined, retry: undefined, health: { passive: undefined } },
    ]) {
      resolve(setting(rest))
    }
  })
})
