/** Who asks, by what name and scheme: from the connection itself, or from proxies that are trusted to know. */
import { BlockList, isIP, isIPv4, isIPv6, SocketAddress } from 'node:net'
import { isToken } from '../core/spelling.ts'
import { isAuthority } from '../core/target.ts'
import type { Incoming, Reading } from './incoming.ts'

/** The client of a request, and what backends are told of it. */
export interface Client {
  /** As far as it can be known; IPv4 in its own form. */
  readonly address: string | undefined
  readonly host: string | undefined
  readonly proto: string
  readonly port: string | undefined
  /** For X-Forwarded-For. */
  readonly chain: string | undefined
  /** For Forwarded; undefined = not sent. */
  readonly forwarded: string | undefined
  /** Whether the peer is one of the trusted: what it says of others is believed. */
  readonly isTrusted: boolean
}

/** What a proxy sees of the other end of its own connection. */
type Peer = Pick<Client, 'address' | 'host' | 'proto'>

/** Most hops that are looked at, and passed on. */
const MOST_HOPS = 20

/** Knows the trusted proxies; made once. */
export class Clients {
  readonly #trusted: BlockList | undefined
  readonly #forwarded: boolean | 'trusted'

  /** `names` are addresses and networks that were checked. */
  constructor(names: readonly string[], forwarded: boolean | 'trusted') {
    this.#forwarded = forwarded
    if (names.length === 0) return
    this.#trusted = new BlockList()
    for (const name of names) trust(this.#trusted, name)
  }

  of({ address, isEncrypted }: Incoming, fields: Reading): Client {
    const peer: Peer = {
      address: address?.startsWith('::ffff:') === true ? address.slice(7) : address,
      host: fields.host ?? fields.authority,
      proto: isEncrypted ? 'https' : 'http',
    }
    if (this.#trusts(peer.address)) {
      return this.#forwarded === 'trusted' ? this.#byForwarded(peer, fields) : this.#byHeaders(peer, fields)
    }
    const { address: chain, host, proto } = peer
    const forwarded = this.#forwarded === false ? undefined : elementOf(peer)
    return { address: chain, host, proto, port: undefined, chain, forwarded, isTrusted: false }
  }

  /** From X-Forwarded-*, as a trusted proxy wrote them. */
  #byHeaders(peer: Peer, fields: Reading): Client {
    const hops = hopsOf(fields.forwardedFor)
    const host = last(fields.forwardedHost)
    const proto = last(fields.forwardedProto)?.toLowerCase()
    const port = last(fields.forwardedPort)
    const client = {
      address: this.#walk(peer, hops).at(-1),
      host: host !== undefined && isAuthority(host) ? host : peer.host,
      proto: proto === 'http' || proto === 'https' ? proto : peer.proto,
    }
    return {
      ...client,
      port: port !== undefined && /^\d{1,5}$/.test(port) ? port : undefined,
      chain: [...hops.reverse(), peer.address].join(', '),
      forwarded: this.#forwarded === true ? elementOf(client) : undefined,
      isTrusted: true,
    }
  }

  /** From Forwarded, as trusted proxies wrote it. */
  #byForwarded(peer: Peer, fields: Reading): Client {
    const elements = (fields.forwarded === undefined ? undefined : parseForwarded(fields.forwarded)) ?? []
    const nearest = elements.slice(1 - MOST_HOPS).reverse()
    const walked = this.#walk(
      peer,
      nearest.map((element) => element.get('for') ?? ''),
    )
    const element = nearest[walked.length - 2]
    const host = element?.get('host')
    const proto = element?.get('proto')?.toLowerCase()
    return {
      address: walked.at(-1),
      host: host !== undefined && isAuthority(host) ? host : peer.host,
      proto: proto === 'http' || proto === 'https' ? proto : peer.proto,
      port: undefined,
      chain: walked.toReversed().join(', '),
      forwarded: elements.length === 0 ? elementOf(peer) : `${fields.forwarded}, ${elementOf(peer)}`,
      isTrusted: true,
    }
  }

  /** Addresses from the peer outwards over the nodes, up to the first that nobody vouches for. */
  #walk(peer: Peer, nodes: readonly string[]): readonly (string | undefined)[] {
    const walked = [peer.address]
    for (const node of nodes) {
      const address = addressOf(node)
      if (address === undefined) break
      walked.push(address)
      if (!this.#trusts(address)) break
    }
    return walked
  }

  #trusts(address: string | undefined): boolean {
    if (this.#trusted === undefined || address === undefined) return false
    return this.#trusted.check(address, isIPv4(address) ? 'ipv4' : 'ipv6')
  }
}

/** Whether it is an address, or a network as in '10.0.0.0/8'. */
export function isNetwork(name: unknown): boolean {
  if (typeof name !== 'string') return false
  const [address = '', prefix = '0', ...rest] = name.split('/')
  const most = isIPv4(address) ? 32 : isIPv6(address) && !address.includes('%') ? 128 : -1
  return rest.length === 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= most
}

function trust(list: BlockList, name: string): void {
  const [address = '', prefix] = name.split('/')
  const family = isIPv4(address) ? 'ipv4' : 'ipv6'
  if (prefix === undefined) list.addAddress(address, family)
  else list.addSubnet(address, Number(prefix), family)
}

/** The entries of X-Forwarded-For, the nearest first. */
function hopsOf(chain: string | undefined): string[] {
  const hops: string[] = []
  let end = chain?.length ?? 0
  while (end > 0 && hops.length < MOST_HOPS - 1) {
    const comma = chain!.lastIndexOf(',', end - 1)
    const hop = chain!.slice(comma + 1, end).trim()
    if (hop !== '') hops.push(hop)
    end = comma
  }
  return hops
}

/** The entry that the nearest proxy wrote. */
function last(values: string | undefined): string | undefined {
  return values?.slice(values.lastIndexOf(',') + 1).trim()
}

const NODE = /^(?:\[([^\]]*)\]|([\d.]+))(?::\w+)?$/

/** The address of a node with or without a port, in its one form: what is a name, unknown or misspelt has none. */
export function addressOf(node: string): string | undefined {
  const [, v6, v4] = NODE.exec(node) ?? []
  const address = v6 ?? v4 ?? node
  const family = isIP(address)
  if (family !== 6) return family === 4 ? address : undefined
  const [bare = ''] = address.split('%')
  const { address: plain } = new SocketAddress({ address: bare, family: 'ipv6' })
  const mapped = plain.startsWith('::ffff:') ? plain.slice(7) : ''
  return isIPv4(mapped) ? mapped : plain
}

const PAIR = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:([\w!#$%&'*+.^`|~-]+)|"((?:[^"\\]|\\.)*)")[ \t]*)?(?:([;,])|$)/y

/** The elements of a Forwarded field (RFC 7239 4), the nearest last; undefined if any of it is malformed. */
export function parseForwarded(text: string): ReadonlyMap<string, string>[] | undefined {
  const elements: Map<string, string>[] = []
  let element = new Map<string, string>()
  PAIR.lastIndex = 0
  for (;;) {
    const found = PAIR.exec(text)
    if (found === null) return undefined
    const [, given, token, quoted, end] = found
    const name = given?.toLowerCase()
    if (name !== undefined) {
      if (element.has(name)) return undefined
      element.set(name, token ?? quoted!.replaceAll(/\\(.)/g, '$1'))
    }
    if (end === ';') continue
    if (element.size > 0) elements.push(element)
    if (end === undefined) return elements
    element = new Map()
  }
}

/** What RFC 7239 says of one hop. */
function elementOf({ address = 'unknown', host, proto }: Peer): string {
  const node = isIPv6(address) ? `"[${address}]"` : address
  const by = host === undefined ? '' : `;host=${isToken(host) ? host : `"${host}"`}`
  return `for=${node}${by};proto=${proto}`
}
