const PRIVATE_V4 =
  /^(127|10|0)\.|^192\.168\.|^169\.254\.|^172\.(1[6-9]|2\d|3[01])\.|^100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\./
const PRIVATE_V6 = /^\[(::1?\]|f[cd]|fe[89ab])/
const PRIVATE_NAME = /(^|\.)(localhost|local|internal|intranet|lan|home\.arpa|svc|test|example|invalid)$/

/** Whether what is sent to a URL's host leaves one's own network: an address or a name that is not kept for private use. */
export function isPublic(hostname: string): boolean {
  const name = hostname.toLowerCase()
  if (name.startsWith('[')) return !PRIVATE_V6.test(name)
  if (/^\d+(\.\d+){3}$/.test(name)) return !PRIVATE_V4.test(name)
  // A name without a dot is one of the network it is asked in.
  return name.includes('.') && !PRIVATE_NAME.test(name)
}
