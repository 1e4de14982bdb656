// npm run conformance: asks every subject about every row of test/conformance, and prints docs/conformance.md from what was seen.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Finding } from '../test/conformance/finding.ts'

const ROOT = new URL('../', import.meta.url)
const PAGE = new URL('docs/conformance.md', ROOT)
const GENERATED = /(?<=<!-- conformance -->\n)[\s\S]*(?=<!-- end of conformance -->)/

/** Chapters of the list, by the number of their first row. */
const CHAPTERS: readonly (readonly [from: number, title: string])[] = [
  [1, 'Fields of a connection'],
  [9, 'Who the client is, and which host'],
  [16, 'Which path of which backend'],
  [22, 'Framing of requests'],
  [34, 'Framing of answers'],
  [49, 'Streams, aborts, repeats and errors'],
  [58, 'Upgrades'],
  [62, 'HTTP/2'],
  [66, 'Inside other servers'],
  [70, 'Tracing'],
]

/** The page with its tables as they should be. */
export function conformancePage(findings: readonly Finding[]): string {
  const subjects = [...new Map(findings.map(({ subject, version }) => [subject, version]))]
  const names = subjects.map(([name]) => name)
  const totals = subjects.map(([name, version]) => totalOf(name, version, findings))
  const rows = Map.groupBy(findings, ({ number, says }) => `${number} ${says}`)
  const tables = CHAPTERS.flatMap(([from, title], i) => {
    const before = CHAPTERS[i + 1]?.[0] ?? Number.POSITIVE_INFINITY
    const lines = [...rows.values()]
      .filter(([first]) => first!.number >= from && first!.number < before)
      .sort(([a], [b]) => a!.number - b!.number)
      .map((row) => lineOf(row, names))
    return lines.length === 0
      ? []
      : [[`### ${title}`, '', ...headOf(['row', 'what holds', ...names]), ...lines].join('\n')]
  })
  const head = headOf(['proxy', 'version', 'asked', 'holds', 'does not', 'of those, ends the process'])
  const text = [['## Totals', '', ...head, ...totals].join('\n'), '## Row by row', ...tables].join('\n\n')
  return readFileSync(PAGE, 'utf8').replace(GENERATED, () => `\n${text}\n\n`)
}

/** A row's cell as it stands in the page. */
export function cell(text: string): string {
  return text.replace(/[|<>*_`]/g, (sign) => `\\${sign}`)
}

function totalOf(name: string, version: string | undefined, findings: readonly Finding[]): string {
  const own = findings.filter(({ subject }) => subject === name)
  const yes = own.filter(({ mark }) => mark === 'yes')
  const no = own.filter(({ mark }) => mark === 'no')
  const crashed = no.filter(({ crashed }) => crashed === true)
  const cells = [version ?? 'this one', yes.length + no.length, yes.length, no.length, crashed.length]
  return `| ${[version === undefined ? `evenkeel (${name})` : name, ...cells].join(' | ')} |`
}

function lineOf(row: readonly Finding[], names: readonly string[]): string {
  const { number, says } = row[0]!
  const marks = names.map((name) => row.find(({ subject }) => subject === name)?.mark ?? '–')
  return `| ${[number, cell(says), ...marks].join(' | ')} |`
}

function headOf(titles: readonly string[]): readonly string[] {
  return [`| ${titles.join(' | ')} |`, `|${' --- |'.repeat(titles.length)}`]
}

/** Everything that was found, in the order of the subjects. */
async function ask(): Promise<readonly Finding[]> {
  const config = fileURLToPath(new URL('vitest.conformance.config.ts', ROOT))
  const { startVitest } = await import('vitest/node')
  const vitest = await startVitest('test', [], { watch: false, config })
  const modules = vitest.state.getTestModules()
  const broken = modules.flatMap((module) => module.errors())
  await vitest.close()
  if (broken.length > 0) throw new Error(broken.map(({ message }) => message).join('\n'))
  const names = vitest.projects.map(({ name }) => name)
  return modules
    .sort((a, b) => names.indexOf(a.project.name) - names.indexOf(b.project.name))
    .flatMap((module) => [...module.children.allTests()])
    .map((test) => test.meta().finding)
    .filter((finding) => finding !== undefined)
}

if (import.meta.main) {
  const findings = await ask()
  writeFileSync(PAGE, conformancePage(findings))
  const failed = findings.filter(({ version, mark }) => version === undefined && mark === 'no')
  for (const { subject, number, says, why } of failed) console.error(`${subject}, row ${number}: ${says}: ${why}`)
  process.exitCode = failed.length === 0 ? 0 : 1
}
