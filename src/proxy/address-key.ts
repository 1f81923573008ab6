import { formatIp, parseIp } from "../core/ip-address.ts";
import { unmap } from "../core/ip-network.ts";

/** An IPv6 customer has at least so many bits to choose addresses from: they are one address here. */
const IPV6_PREFIX_BYTES = 8;

/**
 * Returns what is one address for limits: IPv4 whole, also in its IPv4-mapped form, and IPv6 by its /64.
 *
 * Text that is no address stays as it is.
 */
export function addressKey(address: string): string {
  if (!address.includes(":")) return address;
  const bytes = parseIp(address.replace(/%.*$/s, ""));
  if (bytes === undefined) return address;
  const plain = unmap(bytes);
  if (plain.length === 4) return formatIp(plain);
  if (address === LOOPBACK_6) return address; // not its /64, in which the mapped ones are
  return `${plain.subarray(0, IPV6_PREFIX_BYTES).toHex()}/64`;
}

const LOOPBACK_6 = "::1";

/** Whether a key is this machine's own: of a tunnel or a load balancer on it, behind which may be anybody. */
export function isLoopbackKey(key: string): boolean {
  return key === LOOPBACK_6 || key.startsWith("127.");
}
