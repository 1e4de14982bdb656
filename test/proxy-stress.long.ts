// 2 GiB, 10 000 clients that go away, and 5 000 streams of events: minutes. proxy-stress.test.ts is the short form.
import { stressTests } from './support/stress.ts'

stressTests({
  bodies: [
    ['node', 2048],
    ['express', 2048],
    ['fastify', 2048],
    ['web', 2048],
  ],
  departures: [
    ['node', 10_000],
    ['express', 10_000],
    ['fastify', 10_000],
    ['web', 10_000],
  ],
  streams: 5_000,
  messages: 20,
  compares: true,
})
