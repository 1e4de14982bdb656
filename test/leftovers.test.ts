import { EventEmitter, once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { leftovers } from 'evenkeel/testing'
import { expect, onTestFinished, test } from 'vitest'

test('nothing is left over of nothing', async () => {
  const baseline = leftovers()
  await baseline.restored()
  await baseline.restored({ withinMs: 0 })
  expect(baseline.extra()).toEqual({})
})

test('a timer that holds up the process is, until it is cleared', async () => {
  const baseline = leftovers()
  const timer = setTimeout(() => {}, 60_000)
  onTestFinished(() => clearTimeout(timer))
  expect(baseline.extra()).toMatchObject({ Timeout: 1 })
  await expect(baseline.restored({ withinMs: 20 })).rejects.toThrow(/^left over after 20 ms: .*Timeout \+1/)
  const restored = baseline.restored()
  clearTimeout(timer)
  await restored
})

test('open sockets are, those that hold up nothing too where the system tells', async () => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const baseline = leftovers({ server })
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[net.Socket], []]
  expect(baseline.extra()).toMatchObject({ TCPSocketWrap: 2 })
  client.unref()
  accepted.unref()
  expect(baseline.extra()).not.toHaveProperty('TCPSocketWrap')
  if (process.platform === 'linux') expect(baseline.extra()).toMatchObject({ 'open sockets': 2 })
  client.destroy()
  accepted.destroy()
  await baseline.restored()
})

test('listeners are, of the process and of what is watched', async () => {
  const signal = new EventEmitter().on('abort', () => {})
  const baseline = leftovers({ signal })
  const listener = (): void => {}
  signal.on('abort', listener)
  process.on('SIGUSR2', listener)
  onTestFinished(() => void process.off('SIGUSR2', listener))
  expect(baseline.extra()).toMatchObject({ 'abort listeners of signal': 1, 'SIGUSR2 listeners of process': 1 })
  signal.off('abort', listener)
  process.off('SIGUSR2', listener)
  await baseline.restored()
})
