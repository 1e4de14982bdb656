// node scripts/counts.mjs <report.json>: the closing line of a CI run, from the report of vitest's json reporter.
import { readFileSync } from 'node:fs'

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'))
// A file that could not be loaded has no failed test of its own; it still counts as one failure.
const broken = report.testResults.filter(
  (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
)
const failed = report.numFailedTests + broken.length

console.log(`${report.numPassedTests} passed, ${failed} failed`)
process.exitCode = report.success && failed === 0 ? 0 : 1
