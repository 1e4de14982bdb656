import type { WebHandler } from 'evenkeel/web'
import { upstream } from './upstreams.ts'
import { webListener } from './web-listener.ts'

/** A server of node:http around a function of Fetch, gone with the test. */
export function webServer(handler: WebHandler): ReturnType<typeof upstream> {
  return upstream(webListener(handler))
}
