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

/**
 * Returns the 4 or 16 bytes of an IP address, in network order; `undefined` when `text` is none.
 *
 * An address with a zone (`fe80::1%eth0`) is none: what the zone means is known to one machine only.
 */
export function parseIp(text: string): Uint8Array | undefined {
  const version = text.includes("%") ? 0 : ipVersion(text);
  if (version === 0) return undefined;
  if (version === 4) return Uint8Array.from(text.split("."), Number);
  const [head = [], tail = []] = text.split("::").map(bytesOfGroups);
  const bytes = new Uint8Array(IPV6_GROUPS * 2);
  bytes.set(head);
  bytes.set(tail, bytes.length - tail.length);
  return bytes;
}

/** Formats 4 or 16 bytes in the one spelling that RFC 5952 section 4 gives each address. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const groups = Array.from({ length: IPV6_GROUPS }, (_, at) => view.getUint16(at * 2).toString(16));
  const zeros = longestZeros(groups);
  if (zeros === undefined) return groups.join(":");
  return `${groups.slice(0, zeros.start).join(":")}::${groups.slice(zeros.end).join(":")}`;
}

/** The first of the longest runs of zero groups; a group alone is not shortened. */
function longestZeros(
  groups: readonly string[],
): { readonly start: number; readonly end: number } | undefined {
  let longest = { start: 0, end: 1 };
  let start = 0;
  for (const [at, group] of groups.entries()) {
    if (group !== "0") start = at + 1;
    else if (at + 1 - start > longest.end - longest.start) longest = { start, end: at + 1 };
  }
  return longest.end - longest.start > 1 ? longest : undefined;
}

/** The bytes of the groups at one side of `::`, where an IPv4 address may stand for two; all is checked before. */
function bytesOfGroups(half: string): number[] {
  if (half === "") return [];
  return half.split(":").flatMap((group) => {
    if (group.includes(".")) return group.split(".").map(Number);
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
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
