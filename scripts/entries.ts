/** Every public entry: the file's name in dist -> its source. tsconfig.json `paths` and package.json `exports` list the same ones. */
export const entries = {
  index: 'src/index.ts',
  config: 'src/config/index.ts',
  express: 'src/adapters/express.ts',
  fastify: 'src/adapters/fastify.ts',
  'load-report': 'src/adapters/load-report.ts',
  node: 'src/adapters/node.ts',
  prometheus: 'src/telemetry/prometheus.ts',
  testing: 'src/testing/index.ts',
  web: 'src/adapters/web.ts',
}

/** What a user imports -> the absolute URL of its source, e.g. `evenkeel/node` -> `file:///…/src/adapters/node.ts`. */
export const sources: ReadonlyMap<string, string> = new Map(
  Object.entries(entries).map(([name, source]) => [
    name === 'index' ? 'evenkeel' : `evenkeel/${name}`,
    new URL(`../${source}`, import.meta.url).href,
  ]),
)
