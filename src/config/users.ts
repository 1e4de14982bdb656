import { Secret } from '../core/secret.ts'
import { type Table, tableAt, textOf } from './plain.ts'
import type { UserConfig } from './tables.ts'

/** The users of a file whose tables are known to be right. */
export function usersOf(root: Table): readonly UserConfig[] {
  const users = tableAt(root, 'users')
  const names = modelNames(root)
  return Object.keys(users).map((id) => {
    const { name, token, enabled, tags, allowed_models: allowed } = tableAt(users, id)
    const limits = tableAt(tableAt(users, id), 'rate_limit')
    const models = Array.isArray(allowed) ? allowed.map((it) => names.get(it) ?? textOf(it)) : []
    return Object.freeze({
      id,
      name: name as string,
      token: new Secret(textOf(token)),
      enabled: enabled !== false,
      tags: Object.freeze(Array.isArray(tags) ? [...tags] : []),
      allowedPools: Object.freeze(models),
      limits: Object.freeze({
        perMinute: limits.requests_per_minute as number | undefined,
        perHour: limits.requests_per_hour as number | undefined,
        perDay: limits.requests_per_day as number | undefined,
      }),
    })
  })
}

/** From what a model goes by, its key or its name, to its key. */
export function modelNames(root: Table): ReadonlyMap<unknown, string> {
  const models = tableAt(root, 'models')
  const ids = Object.keys(models)
  return new Map([...ids.map((id) => [tableAt(models, id).name, id] as const), ...ids.map((id) => [id, id] as const)])
}
