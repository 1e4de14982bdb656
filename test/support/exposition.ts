/** Reads the text that Prometheus is given, strictly: a line it does not understand is an error. */

export interface Family {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly series: readonly Series[]
}

export interface Series {
  /** With its suffix, as in `x_bucket`. */
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/gy
const ESCAPES: Readonly<Record<string, string>> = { '\\\\': '\\', '\\"': '"', '\\n': '\n' }

export function familiesOf(text: string): ReadonlyMap<string, Family> {
  const families = new Map<string, Family & { readonly series: Series[] }>()
  const helps = new Map<string, string>()
  let current: (Family & { readonly series: Series[] }) | undefined
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, kind, name, rest] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (kind === 'HELP') helps.set(name!, rest!)
    else if (kind === 'TYPE') {
      if (families.has(name!)) throw new Error(`${name} is there twice`)
      current = { name: name!, type: rest!, help: helps.get(name!) ?? '', series: [] }
      families.set(name!, current)
    } else current!.series.push(seriesOf(line))
  }
  return families
}

/** The values of one metric by its labels, in the given order, joined by commas; '' without any. */
export function valuesOf(text: string, name: string, ...labels: readonly string[]): Readonly<Record<string, number>> {
  const all = [...familiesOf(text).values()].flatMap(({ series }) => series).filter((series) => series.name === name)
  const entries = all.map((series) => [labels.map((label) => series.labels[label]).join(), series.value] as const)
  if (new Set(entries.map(([key]) => key)).size < entries.length)
    throw new Error(`${labels.join()} does not tell ${name} apart`)
  return Object.fromEntries(entries)
}

function seriesOf(line: string): Series {
  const [, name, inner = '', value] = LINE.exec(line) ?? []
  if (name === undefined) throw new Error(`no line of Prometheus': ${line}`)
  const labels: Record<string, string> = {}
  let read = 0
  for (const [whole, label, text] of inner.matchAll(LABEL)) {
    if (Object.hasOwn(labels, label!)) throw new Error(`${label} twice: ${line}`)
    labels[label!] = text!.replace(/\\./g, (written) => ESCAPES[written]!)
    read += whole.length
  }
  if (read !== inner.length) throw new Error(`no labels of Prometheus': ${line}`)
  return { name, labels, value: value === '+Inf' ? Infinity : Number(value) }
}
