import type { ScriptedSend } from './scripted.ts'

/** What a backend does with a send. */
export type Play = (send: ScriptedSend, number: number) => void

export const refuse: Play = (send) => send.refuse()

/** The connection breaks once the request is on it: it may have been processed. */
export const reset: Play = (send) => {
  send.connect()
  send.fail()
}

export const stale: Play = (send) => send.stale()

export function status(code: number, text = ''): Play {
  return (send) => send.answer(code, text)
}

/** Each send as its number says, the last one for ever. */
export function inOrder(...plays: readonly Play[]): Play {
  return (send, number) => plays[Math.min(number, plays.length) - 1]!(send, number)
}
