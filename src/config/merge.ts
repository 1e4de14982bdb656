/**
 * The defaults under the balancer's settings under the pool's, leaf by leaf. What is a section and what a leaf is read
 * off the defaults: a list, a part or an empty object (`tls`) is replaced as a whole.
 */
export function merge<T extends object>(defaults: T, layers: readonly unknown[]): T {
  const merged = Object.entries(defaults).map(([key, fallback]) => {
    const said = layers.filter(isObject).flatMap((layer) => (layer[key] === undefined ? [] : [layer[key]]))
    const last = said.at(-1)
    if (last === undefined) return [key, fallback]
    // `passive: false` is no section, but it switches one off; a later layer may switch it on again.
    return [key, isSection(fallback) && isObject(last) ? merge(fallback, said) : last]
  })
  return Object.freeze(Object.fromEntries(merged)) as T
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}

function isSection(value: unknown): value is object {
  return isObject(value) && !Array.isArray(value) && Object.keys(value).length > 0
}
