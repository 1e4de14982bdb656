import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import type WebSocket from 'ws'
import { closeOf, socketTo, socketUpstream } from './support/sockets.ts'
import type { Footprint } from './support/tunnel-child.ts'
import type { Upstream } from './support/upstreams.ts'

const COUNT = 1_000
const MESSAGES = 20
const CHILD = fileURLToPath(new URL('support/tunnel-child.ts', import.meta.url))
const FROM_SOURCE = new URL('../scripts/from-source.mjs', import.meta.url).href

/** A proxy in a process of its own. */
async function proxyProcess(
  kind: 'ours' | 'pipe',
  backend: Upstream,
): Promise<Upstream & { readonly child: ChildProcess }> {
  const child = fork(CHILD, [kind, String(backend.port)], { execArgv: ['--expose-gc', '--import', FROM_SOURCE] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const [port] = (await once(child, 'message')) as [number]
  return { url: `http://127.0.0.1:${port}`, port, child }
}

async function footprintOf({ child }: { readonly child: ChildProcess }): Promise<Footprint> {
  child.send('footprint')
  const [footprint] = (await once(child, 'message')) as [Footprint]
  return footprint
}

/** So many, a few at a time. */
async function opened(front: Upstream, count: number): Promise<WebSocket[]> {
  const sockets: WebSocket[] = []
  while (sockets.length < count) {
    const some = Math.min(50, count - sockets.length)
    sockets.push(...(await Promise.all(Array.from({ length: some }, () => socketTo(front)))))
  }
  return sockets
}

async function closed(sockets: readonly WebSocket[]): Promise<void> {
  const ends = sockets.map(closeOf)
  for (const socket of sockets) socket.close(1000)
  await Promise.all(ends)
}

/** Sends everything through every one of them at once; resolves with what each got back. */
async function echoed(sockets: readonly WebSocket[], texts: readonly string[]): Promise<(readonly string[])[]> {
  return Promise.all(
    sockets.map((socket) => {
      const got: string[] = []
      return new Promise<string[]>((resolve) => {
        socket.on('message', (data) => {
          if (got.push(String(data)) === texts.length) resolve(got)
        })
        for (const text of texts) socket.send(text)
      })
    }),
  )
}

const kib = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KiB`

test(`${COUNT} WebSockets through one process: all messages in order, and back to where it began`, async () => {
  const backend = await socketUpstream()
  const texts = Array.from({ length: MESSAGES }, (_, n) => `${n} ${'x'.repeat(n * 37)}`)
  const idleBytes: number[] = []
  for (const kind of ['ours', 'pipe'] as const) {
    const front = await proxyProcess(kind, backend)
    await closed(await opened(front, 100)) // code is compiled, pools are filled
    const before = await footprintOf(front)
    const sockets = await opened(front, COUNT)
    const idle = await footprintOf(front)
    const startMs = performance.now()
    const got = await echoed(sockets, texts)
    const ms = performance.now() - startMs
    for (const one of got) expect(one).toEqual(texts)
    const used = await footprintOf(front)
    await closed(sockets)
    let after = await footprintOf(front)
    while (after.sockets > before.sockets) {
      await pause(20)
      after = await footprintOf(front)
    }
    expect(idle.sockets - before.sockets).toBe(2 * COUNT)
    if (kind === 'ours') expect([idle.inflight, after.inflight]).toEqual([COUNT, 0])
    expect(after.heap - before.heap).toBeLessThan(2 * 1_048_576)
    idleBytes.push(idle.heap - before.heap)
    console.log(
      `${kind}: each idle WebSocket takes ${kib((idle.heap - before.heap) / COUNT)} of heap and buffers, ${kib((idle.rss - before.rss) / COUNT)} of RSS;`,
      `after its messages ${kib((used.heap - before.heap) / COUNT)}; ${COUNT * MESSAGES} messages there and back in ${ms.toFixed(0)} ms;`,
      `after the last one ${kib(after.heap - before.heap)} in all`,
    )
  }
  expect(idleBytes[0]).toBeLessThan(2 * idleBytes[1]!)
})
