// node --import ./scripts/from-source.mjs examples/x.ts
// Makes `evenkeel` and its subpaths mean the sources, so that examples run as users would write them, without a build.
import { registerHooks } from 'node:module'
import { sources } from './entries.ts'

registerHooks({
  resolve(specifier, context, nextResolve) {
    return nextResolve(sources.get(specifier) ?? specifier, context)
  },
})
