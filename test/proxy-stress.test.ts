// Proxies in processes of their own, under more than they are used to; proxy-stress.long.ts does the same with more.
import { stressTests } from './support/stress.ts'

stressTests({
  // What they have in common is tried with the most, by the first.
  bodies: [
    ['node', 64],
    ['express', 24],
    ['fastify', 24],
    ['web', 24],
  ],
  departures: [['node', 400]],
  streams: 150,
  messages: 5,
  compares: false,
})
