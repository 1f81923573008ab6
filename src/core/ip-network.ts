import { FormatError } from "./errors.ts";
import { formatIp, parseIp } from "./ip-address.ts";

const HINT = "for example 10.0.0.0/8, 192.0.2.7, 2001:db8::/32 or ::1";

/** What stands before an IPv4 address in its IPv4-mapped form, which IPv6 sockets show: `::ffff:0:0/96`. */
const MAPPED = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);
const MAPPED_BITS = 96;
/** What stands before an IPv4 address inside an IPv6 one: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056). */
const EMBEDDINGS: readonly Uint8Array[] = [
  MAPPED,
  Uint8Array.of(0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0),
  Uint8Array.of(0x20, 0x02),
];

/**
 * A range of IP addresses in CIDR notation, or one address alone.
 *
 * An IPv4 address is the same in its IPv4-mapped form (`::ffff:192.0.2.7`): a listener on `::` sees it so.
 */
export class IpNetwork {
  readonly #address: Uint8Array;
  readonly #bits: number;

  private constructor(address: Uint8Array, bits: number) {
    this.#address = address;
    this.#bits = bits;
  }

  /**
   * Reads `10.0.0.0/8`, `2001:db8::/32` or an address alone; IPv6 may stand in brackets.
   *
   * @throws {FormatError} `BAD_ADDRESS` when it is none, or when bits are set after the prefix: such a text says
   * two things at once, and a list of trusted addresses must not be guessed.
   */
  static parse(text: string): IpNetwork {
    const [, written = "", length] = /^([^/]*)(?:\/(.*))?$/s.exec(text.trim()) ?? [];
    const address = parseIp(/^\[(.*:.*)\]$/s.exec(written)?.[1] ?? written);
    if (address === undefined) throw new FormatError("BAD_ADDRESS", "not an IP address or network", HINT);
    const most = address.length * 8;
    if (length !== undefined && !(/^\d{1,3}$/.test(length) && Number(length) <= most)) {
      throw new FormatError("BAD_ADDRESS", `what stands after / is not a number from 0 to ${most}`, HINT);
    }
    const bits = length === undefined ? most : Number(length);
    const start = clearAfter(address, bits);
    if (!sameBits(start, address, most)) {
      const hint = `the network is ${formatIp(start)}/${bits}, the address alone is ${formatIp(address)}`;
      throw new FormatError("BAD_ADDRESS", `bits are set after the first ${bits}`, hint);
    }
    const plain = unmap(address);
    return plain === address || bits < MAPPED_BITS
      ? new IpNetwork(address, bits)
      : new IpNetwork(plain, bits - MAPPED_BITS);
  }

  /** Whether the address `ip` is inside. False for what is none; the zone of `fe80::1%eth0` does not matter. */
  contains(ip: string): boolean {
    const address = parseIp(ip.replace(/%.*$/s, ""));
    return address !== undefined && this.#holds(unmap(address));
  }

  /** Its first and its last address: 4 bytes each, or 16. */
  get range(): { readonly first: Uint8Array; readonly last: Uint8Array } {
    const last = this.#address.map((byte, at) => {
      return byte | (0xff >> Math.min(8, Math.max(0, this.#bits - at * 8)));
    });
    return { first: this.#address, last };
  }

  /** `10.0.0.0/8`; an address alone is without its length. */
  toString(): string {
    const text = formatIp(this.#address);
    return this.#bits === this.#address.length * 8 ? text : `${text}/${this.#bits}`;
  }

  #holds(address: Uint8Array): boolean {
    return address.length === this.#address.length && sameBits(address, this.#address, this.#bits);
  }
}

/**
 * Tells whether `ip` is an address of the public internet.
 *
 * False for what leads back to this machine or into its surroundings (loopback, private, link-local, shared by a
 * provider), what is no single host (multicast, broadcast), what is reserved, and what is no address. IPv6 forms
 * that hold an IPv4 address (mapped, NAT64, 6to4) are what that address is.
 *
 * @see https://www.iana.org/assignments/iana-ipv4-special-registry
 * @see https://www.iana.org/assignments/iana-ipv6-special-registry
 */
export function isPublicAddress(ip: string): boolean {
  const parsed = parseIp(ip);
  if (parsed === undefined) return false;
  const address = embeddedIpv4(parsed) ?? parsed;
  const text = formatIp(address);
  special ??= {
    unicast: IpNetwork.parse(GLOBAL_UNICAST),
    others: NOT_PUBLIC.map((range) => IpNetwork.parse(range)),
  };
  if (address.length === 16 && !special.unicast.contains(text)) return false;
  return !special.others.some((network) => network.contains(text));
}

/** Read by need: doing so at the start costs every proxy 4 MiB of code that few ever run. */
let special: { readonly unicast: IpNetwork; readonly others: readonly IpNetwork[] } | undefined;

/** All of IPv6 that hosts are reached by from elsewhere: ::1, fc00::/7, fe80::/10 and ff00::/8 are outside. */
const GLOBAL_UNICAST = "2000::/3";

const NOT_PUBLIC: readonly string[] = [
  "0.0.0.0/8", // this network; most systems take 0.0.0.0 for themselves
  "10.0.0.0/8", // private
  "100.64.0.0/10", // shared by the customers of a provider
  "127.0.0.0/8", // loopback
  "169.254.0.0/16", // link-local, and the metadata of cloud machines
  "172.16.0.0/12", // private
  "192.0.0.0/24", // protocol assignments
  "192.0.2.0/24", // documentation
  "192.88.99.0/24", // 6to4 relays, given up
  "192.168.0.0/16", // private
  "198.18.0.0/15", // benchmarks
  "198.51.100.0/24", // documentation
  "203.0.113.0/24", // documentation
  "224.0.0.0/4", // multicast
  "240.0.0.0/4", // reserved, and broadcast
  "2001::/23", // protocol assignments, and Teredo
  "2001:db8::/32", // documentation
  "3fff::/20", // documentation
];

function embeddedIpv4(address: Uint8Array): Uint8Array | undefined {
  if (address.length !== 16) return undefined;
  const prefix = EMBEDDINGS.find((bytes) => sameBits(bytes, address, bytes.length * 8));
  return prefix && address.subarray(prefix.length, prefix.length + 4);
}

/** Returns the IPv4 address that an IPv4-mapped one is; any other address as it is. */
export function unmap(address: Uint8Array): Uint8Array {
  const mapped = address.length === 16 && sameBits(MAPPED, address, MAPPED_BITS);
  return mapped ? address.subarray(MAPPED_BITS / 8) : address;
}

/** Whether the first `bits` of both are the same. */
function sameBits(one: Uint8Array, other: Uint8Array, bits: number): boolean {
  const whole = bits >> 3;
  for (let at = 0; at < whole; at++) if (one[at] !== other[at]) return false;
  const mask = 0xff00 >> (bits & 7);
  return (((one[whole] ?? 0) ^ (other[whole] ?? 0)) & mask & 0xff) === 0;
}

/** A copy with zeros after the first `bits`. */
function clearAfter(address: Uint8Array, bits: number): Uint8Array {
  return address.map((byte, at) => byte & (0xff00 >> Math.min(8, Math.max(0, bits - at * 8))) & 0xff);
}
