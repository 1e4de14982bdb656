import { type FaultServer, faultServer } from 'evenkeel/testing'
import type { Row, Seat } from '../../scripts/print-failures.ts'
import type { Case } from './cases.ts'
import type { FaceName } from './faces.ts'
import { type Carrier, play, type Sight } from './play.ts'

const NAMES: readonly FaceName[] = ['fetch', 'request', 'proxy']

/** Plays one fault through every face, by every method, alone and beside others, all at once: its row, and broken promises. */
export async function rowOf(one: Case, hole: string, carrier: Carrier): Promise<{ row: Row; broken: string[] }> {
  const peers = await Promise.all([faultServer(), faultServer()])
  const broken: string[] = []
  const seat = async (method: 'GET' | 'POST', beside: readonly FaultServer[]): Promise<Seat> => {
    const sights = await Promise.all(NAMES.map((face) => play(one, { face, method, peers: beside }, hole, carrier)))
    broken.push(...sights.flatMap((sight) => sight.broken))
    const [fetch, request, proxy] = sights as [Sight, Sight, Sight]
    return {
      caller: oneOf([fetch.caller, request.caller]),
      client: proxy.caller,
      backend: oneOf(sights.map(({ backend }) => backend)),
    }
  }
  try {
    const [getAlone, getBeside, postAlone, postBeside] = await Promise.all([
      seat('GET', []),
      seat('GET', peers),
      seat('POST', []),
      seat('POST', peers),
    ])
    const { group, name } = one
    return { row: { group, name, get: [getAlone, getBeside], post: [postAlone, postBeside] }, broken }
  } finally {
    await Promise.all(peers.map((peer) => peer.close()))
  }
}

/** Ways that agree are told once. */
function oneOf(words: readonly string[]): string {
  return [...new Set(words)].join(' or ')
}
