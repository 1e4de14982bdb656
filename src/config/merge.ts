/**
 * The defaults under the balancer's settings under the pool's, leaf by leaf. What is a section and what a leaf is read
 * off the defaults: a list, a part or an empty object (`tls`) is replaced as a whole. Sections that are off by default start
 * from `whenGiven` once somebody says one.
 */
export function merge<T extends object>(defaults: T, layers: readonly unknown[], whenGiven: object = {}): T {
  const given = whenGiven as Readonly<Record<string, object>>
  const merged = Object.entries(defaults).map(([key, fallback]) => {
    const said = layers.filter(isObject).flatMap((layer) => (layer[key] === undefined ? [] : [layer[key]]))
    const last = said.at(-1)
    if (last === undefined) return [key, fallback]
    if (!isObject(last)) return [key, last] // `passive: false` is no section, but it switches one off
    if (fallback === false && given[key] !== undefined) return [key, merge(given[key], said)]
    return [key, isSection(fallback) ? merge(fallback, said, given[key]) : last]
  })
  return Object.freeze(Object.fromEntries(merged)) as T
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}

function isSection(value: unknown): value is object {
  return isObject(value) && !Array.isArray(value) && Object.keys(value).length > 0
}
