/** What a part of the user's own may do wrong, told with its name. Nothing of it is asked on the way of a request that goes well. */
import type { Chooser, Core, Members, Picker, Policy, Strategy, Watcher } from './contracts.ts'
import { BalancerError } from './errors.ts'

/** Starts it in a pool. */
export function startedChooser(strategy: Strategy, core: Core): Chooser {
  const chooser = named('strategy', strategy, 'start', () => strategy.start(core))
  if (typeof chooser?.build === 'function') return chooser
  throw wrong('strategy', strategy.name, 'start', 'an object with build', chooser)
}

/** Has its picker made. */
export function builtPicker(strategy: Strategy, chooser: Chooser, members: Members): Picker {
  const picker = named('strategy', strategy, 'build', () => chooser.build(members))
  if (typeof picker === 'function') return picker
  throw wrong('strategy', strategy.name, 'build', 'a function', picker)
}

/** A picker has returned something else than a backend. */
export function noBackend(strategy: string, picked: unknown): BalancerError {
  return wrong('strategy', strategy, 'its picker', 'one of the backends, or undefined', picked)
}

/** Has the policy put around a handler. */
export function wrapped<Handler>(policy: Policy, wrap: () => Handler): Handler {
  const handler = named('policy', policy, 'wrap', wrap)
  if (typeof handler === 'function') return handler
  throw wrong('policy', policy.name, 'wrap', 'a function', handler)
}

/** Starts it in a pool. */
export function startedWatcher(watcher: Watcher, core: Core): ReturnType<Watcher['start']> {
  const started = named('watcher', watcher, 'start', () => watcher.start(core))
  if (typeof started?.stop === 'function') return started
  throw wrong('watcher', watcher.name, 'start', 'an object with stop', started)
}

/** Never bare, unless it was put into words by somebody who knows more. */
function named<T>(kind: string, { name }: { readonly name: string }, verb: string, run: () => T): T {
  try {
    return run()
  } catch (cause) {
    if (cause instanceof BalancerError) throw cause
    throw new BalancerError('CONFIG', `${kind} ${name}: ${verb} failed`, { cause })
  }
}

function wrong(kind: string, name: string, what: string, expected: string, got: unknown): BalancerError {
  const found = got === null ? 'null' : got instanceof Promise ? 'a promise' : `a value of type ${typeof got}`
  return new BalancerError('CONFIG', `${kind} ${name}: expected ${what} to return ${expected}, got ${found}`)
}
