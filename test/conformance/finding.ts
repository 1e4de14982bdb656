/** What came of asking one subject about one row. */
export interface Finding {
  readonly number: number
  readonly says: string
  readonly subject: string
  /** Undefined: it is this project's. */
  readonly version: string | undefined
  /** '–': it was not asked. */
  readonly mark: 'yes' | 'no' | '–'
  /** Of a 'no': what was seen. */
  readonly why?: string
  /** Whether an error came up that nobody caught: it ends a process. */
  readonly crashed?: boolean
}

declare module 'vitest' {
  interface TaskMeta {
    finding?: Finding
  }
}
