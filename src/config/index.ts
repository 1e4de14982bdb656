export { configSchema } from './file-schema.ts'
export type { JsonSchema } from './json-schema.ts'
export {
  type ConfigFormat,
  configOf,
  loadConfig,
  type ParseOptions,
  parseConfig,
  type SubstitutionOptions,
} from './load.ts'
export { issueText } from './report.ts'
export type {
  BerrySettings,
  BerryTables,
  Config,
  ConfigTables,
  ModelBackendTable,
  ModelConfig,
  ModelTable,
  ProviderTable,
  RateLimitTable,
  SmartAiTable,
  Spelt,
  UserConfig,
  UserTable,
} from './tables.ts'
export { type WatchOptions, watchConfig } from './watch.ts'
