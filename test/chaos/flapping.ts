import { faultServer } from 'evenkeel/testing'
import { pause } from '../support/upstreams.ts'
import { FACES, type FaceName } from './faces.ts'
import { startFront } from './play.ts'

/** Up and down for so long, ms. */
const TURN_MS = 15
const TURNS = 5
const NAMES: readonly FaceName[] = ['fetch', 'request', 'proxy']

/** One of three backends refuses connections every other moment, at four in flight, until it did so a few times. */
export async function flapping(): Promise<{ calls: number; turns: number; words: Record<string, number> }> {
  const servers = await Promise.all([faultServer(), faultServer(), faultServer()])
  const flapper = servers[0]!
  const front = await startFront({ backends: servers.map(({ url }) => url), retry: { baseMs: 1 } })
  const words: Record<string, number> = {}
  let calls = 0
  let turns = 0
  const client = async (): Promise<void> => {
    while (turns < TURNS) {
      const n = calls++
      // Only GET: a POST on a connection that is torn down is lost, rightly.
      const seen = await FACES[NAMES[n % NAMES.length]!](front, { method: 'GET', id: `flap-${n}` })
      words[seen.words] = (words[seen.words] ?? 0) + 1
    }
  }
  const flap = async (): Promise<void> => {
    for (; turns < TURNS; turns++) {
      await flapper.play({ refuse: true })
      await pause(TURN_MS)
      await flapper.play()
      await pause(TURN_MS)
    }
  }
  await Promise.all([flap(), client(), client(), client(), client()])
  await front.close()
  await Promise.all(servers.map((server) => server.close()))
  return { calls, turns, words }
}
