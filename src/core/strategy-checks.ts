/** What a strategy of the user's own may do wrong, told with its name. Nothing of it is asked on the way of a request that goes well. */
import { BackendRecord } from './backend.ts'
import type { Chooser, Core, Members, Picker, Strategy } from './contracts.ts'
import { BalancerError } from './errors.ts'

/** Starts it in a pool. */
export function startedChooser(strategy: Strategy, core: Core): Chooser {
  const chooser = named(strategy, 'start', () => strategy.start(core))
  if (typeof chooser?.build === 'function') return chooser
  throw wrong(strategy.name, 'start', 'an object with build', chooser)
}

/** Has its picker made. */
export function builtPicker(strategy: Strategy, chooser: Chooser, members: Members): Picker {
  const picker = named(strategy, 'build', () => chooser.build(members))
  if (typeof picker === 'function') return picker
  throw wrong(strategy.name, 'build', 'a function', picker)
}

/** Why it failed to work with what a picker returned: if that is no backend, this is why. */
export function pickFault(strategy: string, picked: unknown, error: unknown): unknown {
  if (picked instanceof BackendRecord) return error
  return wrong(strategy, 'its picker', 'one of the backends, or undefined', picked, error)
}

/** Never bare, unless it was put into words by somebody who knows more. */
function named<T>({ name }: Strategy, verb: string, run: () => T): T {
  try {
    return run()
  } catch (cause) {
    if (cause instanceof BalancerError) throw cause
    throw new BalancerError('CONFIG', `strategy ${name}: ${verb} failed`, { cause })
  }
}

function wrong(strategy: string, what: string, expected: string, got: unknown, cause?: unknown): BalancerError {
  const found = got === null ? 'null' : got instanceof Promise ? 'a promise' : `a value of type ${typeof got}`
  const message = `strategy ${strategy}: expected ${what} to return ${expected}, got ${found}`
  return new BalancerError('CONFIG', message, { cause })
}
