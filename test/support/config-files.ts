// What the tests of configuration files share.
import { BalancerError } from 'evenkeel'
import { issueText, type ParseOptions, parseConfig } from 'evenkeel/config'

/** The error that a text makes. */
export async function refusedFile(text: string, options: ParseOptions = {}): Promise<BalancerError> {
  const error = await parseConfig(text, options).then(
    () => new Error(`accepted:\n${text}`),
    (reason: unknown) => reason,
  )
  if (error instanceof BalancerError && error.code === 'CONFIG') return error
  throw error
}

/** As in '3:1: settings.x: expected …, found …'. */
export async function complaintsOf(text: string, options: ParseOptions = {}): Promise<readonly string[]> {
  return (await refusedFile(text, options)).issues!.map((issue) => issueText(issue))
}

export async function warningsOf(text: string, options: ParseOptions = {}): Promise<readonly string[]> {
  return (await parseConfig(text, options)).warnings.map((issue) => issueText(issue))
}
