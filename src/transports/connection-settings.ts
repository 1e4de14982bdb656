import { BalancerError } from '../core/errors.ts'
import { CONNECTION_DEFAULTS, type UndiciOptions } from '../core/options.ts'

/** What a transport with connections of its own is given, over the defaults. A key that is undefined is as good as absent. */
export function settled<Options extends UndiciOptions>(options: Options): Options & Required<UndiciOptions> {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  const settings = { ...CONNECTION_DEFAULTS, ...(Object.fromEntries(given) as Options) }
  for (const name of ['connections', 'pipelining', 'maxHeaderBytes'] as const) {
    check(name, settings[name], 'a whole number >= 1', Number.isInteger(settings[name]) && settings[name] >= 1)
  }
  const { keepAliveMs } = settings
  check('keepAliveMs', keepAliveMs, 'a time > 0, ms', Number.isFinite(keepAliveMs) && keepAliveMs > 0)
  return settings
}

function check(name: string, value: unknown, expected: string, isRight: boolean): void {
  if (!isRight) throw new BalancerError('CONFIG', `${name}: expected ${expected}, found ${String(value)}`)
}
