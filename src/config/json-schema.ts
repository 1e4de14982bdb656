/** As much of JSON Schema as this room writes and reads. */
export interface JsonSchema {
  readonly $schema?: string
  readonly $ref?: string
  readonly $defs?: Readonly<Record<string, JsonSchema>>
  readonly title?: string
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly pattern?: string
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: boolean | JsonSchema
  readonly required?: readonly string[]
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
}

/** True for parts and functions, which no file can hold. */
export function isUnwritable(schema: JsonSchema): boolean {
  if (schema.items !== undefined) return isUnwritable(schema.items)
  const inner = schema.properties === undefined ? [] : Object.values(schema.properties)
  return Object.keys(schema).length === 0 || (inner.length > 0 && inner.every(isUnwritable))
}

/** What an object may hold by this schema, all its kinds of object together; undefined if it may be no object with known keys. */
export function propertiesOf(schema: JsonSchema): Readonly<Record<string, JsonSchema>> | undefined {
  const all = [schema.properties, ...(schema.anyOf ?? []).map(propertiesOf)].filter((it) => it !== undefined)
  return all.length === 0 ? undefined : Object.assign({}, ...all)
}

/** What an array may hold by this schema. */
export function itemsOf(schema: JsonSchema): JsonSchema | undefined {
  return schema.items ?? schema.anyOf?.map(itemsOf).find((it) => it !== undefined)
}
