const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = new RegExp(`^(?:${OCTET}\\.){3}${OCTET}$`);
const IPV6_GROUPS = 8;

/**
 * Tells whether `text` is an IP address, and which: 4, 6, or 0 for neither.
 *
 * Does what `isIP` of node:net does, zones (`fe80::1%eth0`) included; that module costs 2.5 MiB, which is much
 * on a small machine for a question of this size.
 *
 * @see RFC 4291 section 2.2
 */
export function ipVersion(text: string): 0 | 4 | 6 {
  if (IPV4.test(text)) return 4;
  return isIpv6(text) ? 6 : 0;
}

function isIpv6(text: string): boolean {
  const [address = "", zone] = text.split(/%(.*)/s);
  if (zone !== undefined && !/^[0-9a-zA-Z\-.:]+$/.test(zone)) return false;
  const halves = address.split("::");
  if (halves.length > 2) return false;
  const lengths = halves.map((half, index) => countGroups(half, index === halves.length - 1));
  if (lengths.includes(undefined)) return false;
  const groups = lengths.reduce<number>((sum, length) => sum + (length ?? 0), 0);
  return halves.length === 2 ? groups < IPV6_GROUPS : groups === IPV6_GROUPS;
}

/** How many groups `text` has; an IPv4 address at the end stands for two. `undefined` when one is wrong. */
function countGroups(text: string, isLast: boolean): number | undefined {
  if (text === "") return 0;
  const groups = text.split(":");
  const tail = isLast && IPV4.test(groups.at(-1) ?? "") ? 1 : 0;
  const plain = tail === 1 ? groups.slice(0, -1) : groups;
  return plain.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group)) ? groups.length + tail : undefined;
}
