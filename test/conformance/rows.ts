import { CONNECTION_ROWS } from './connection-rows.ts'
import { IDENTITY_ROWS } from './identity-rows.ts'
import { REQUEST_ROWS } from './request-rows.ts'
import { RESPONSE_ROWS } from './response-rows.ts'
import type { Row } from './row.ts'
import { STREAMING_ROWS } from './streaming-rows.ts'
import { TARGET_ROWS } from './target-rows.ts'
import { UPGRADE_ROWS } from './upgrade-rows.ts'

/** The whole list, in its order. */
export const ROWS: readonly Row[] = [
  ...CONNECTION_ROWS,
  ...IDENTITY_ROWS,
  ...TARGET_ROWS,
  ...REQUEST_ROWS,
  ...RESPONSE_ROWS,
  ...STREAMING_ROWS,
  ...UPGRADE_ROWS,
]
