import type { IncomingMessage, ServerResponse } from 'node:http'
import { setImmediate } from 'node:timers/promises'
import { ReadMetric } from './read-metric.ts'

/** Characters that are written at once: each write costs about as much as making so many. */
const CHUNK = 16_384
/** Longest that writing holds up the event loop at a time, ms, give or take a piece. */
const TURN_MS = 0.2

/** Where the text comes from: prom-client's `register`, a registry of your own, or anything else that has text. */
export interface TextSource {
  readonly contentType: string
  metrics(): Promise<string>
  getMetricsAsArray?(): readonly { readonly name: string }[]
  getSingleMetricAsString?(name: string): Promise<string>
}

export interface MetricsHandlerOptions {
  /** Told when the metrics could not be read; the client sees a bare 500. */
  readonly onError?: (error: unknown) => void
}

/** A handler for `http.createServer`, for `app.get` in Express and for `app.get` in Fastify. Its promise never rejects. */
export type MetricsHandler = (
  request: IncomingMessage | { readonly raw: IncomingMessage },
  response: ServerResponse | { readonly raw: ServerResponse; hijack(): unknown },
) => Promise<void>

/** Answers GET and HEAD with everything the registry holds, and every other method with 405. */
export function metricsHandler(registry: TextSource, options: MetricsHandlerOptions = {}): MetricsHandler {
  return async (request, response) => {
    const { method } = 'raw' in request ? request.raw : request
    if ('raw' in response) response.hijack() // Fastify's: from here on it is ours
    const raw = 'raw' in response ? response.raw : response
    if (method !== 'GET' && method !== 'HEAD') return answer(raw, 405, { allow: 'GET, HEAD' }, 'Method Not Allowed\n')
    try {
      const text = method === 'HEAD' ? [] : await textOf(registry)
      head(raw, 200, { 'content-type': registry.contentType })
      await write(raw, text)
    } catch (error) {
      if (raw.headersSent) raw.destroy()
      else answer(raw, 500, {}, 'Internal Server Error\n')
      options.onError?.(error)
    }
  }
}

/**
 * The text of everything in the registry. With many backends most of the time would go into what the registry does for each line, so
 * our metrics write their own, if it is letter by letter what the registry makes of one of them: with default labels it is not.
 */
async function textOf(registry: TextSource): Promise<Iterable<string>> {
  const metrics = registry.getMetricsAsArray?.() ?? []
  const ours = metrics.find((metric) => metric instanceof ReadMetric)
  const single = registry.getSingleMetricAsString?.bind(registry)
  if (ours === undefined || single === undefined || !registry.contentType.startsWith('text/plain')) {
    return [await registry.metrics()]
  }
  if ([...ours.text()].join('') !== (await single(ours.name))) return [await registry.metrics()]
  return joined(await Promise.all(metrics.map((it) => (it instanceof ReadMetric ? it.text() : single(it.name)))))
}

function* joined(texts: readonly (string | Iterable<string>)[]): Generator<string> {
  for (const [at, text] of texts.entries()) {
    if (typeof text === 'string') yield text
    else yield* text
    yield at < texts.length - 1 ? '\n\n' : '\n'
  }
}

/** Writes pieces as they are made, so many at a time that requests go on between them. */
async function write(response: ServerResponse, pieces: Iterable<string>): Promise<void> {
  let text = ''
  let sinceMs = performance.now()
  for (const piece of pieces) {
    text += piece
    if (performance.now() - sinceMs < TURN_MS) continue
    if (text.length > CHUNK) {
      response.write(text)
      text = ''
    }
    await setImmediate()
    if (response.destroyed) return // its client is gone
    sinceMs = performance.now()
  }
  response.end(text)
}

function answer(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  text: string,
): void {
  head(response, status, headers)
  response.end(text)
}

function head(response: ServerResponse, status: number, headers: Readonly<Record<string, string>>): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store', ...headers })
}
