import { parseIp } from "./ip-address.ts";
import { type IpNetwork, unmap } from "./ip-network.ts";

const IPV4_LENGTH = 4;
const IPV6_LENGTH = 16;

/**
 * Many ranges of IP addresses, and whether an address is in one of them: about a microsecond among 100,000.
 *
 * Node's `BlockList` looks at one range after the other, which is 100 times slower then, and takes seconds to be made.
 */
export class NetworkSet {
  readonly #ipv4: Ranges;
  readonly #ipv6: Ranges;

  constructor(networks: Iterable<IpNetwork>) {
    const all = Array.from(networks, (network) => network.range);
    this.#ipv4 = new Ranges(
      all.filter(({ first }) => first.length === IPV4_LENGTH),
      IPV4_LENGTH,
    );
    this.#ipv6 = new Ranges(
      all.filter(({ first }) => first.length === IPV6_LENGTH),
      IPV6_LENGTH,
    );
  }

  /** Ranges that do not touch each other: fewer than the networks that it was made of, maybe. */
  get size(): number {
    return this.#ipv4.size + this.#ipv6.size;
  }

  /** As {@link IpNetwork.contains} of any of them. */
  contains(ip: string): boolean {
    const parsed = parseIp(ip.replace(/%.*$/s, ""));
    if (parsed === undefined) return false;
    const address = unmap(parsed);
    return (address.length === IPV4_LENGTH ? this.#ipv4 : this.#ipv6).contain(address);
  }
}

interface Range {
  readonly first: Uint8Array;
  readonly last: Uint8Array;
}

/** Sorted, and apart from each other: first and last addresses, one after the other in a buffer each. */
class Ranges {
  readonly size: number;
  readonly #length: number;
  readonly #firsts: Uint8Array;
  readonly #lasts: Uint8Array;

  constructor(ranges: readonly Range[], length: number) {
    const merged: { first: Uint8Array; last: Uint8Array }[] = [];
    for (const range of ranges.toSorted((one, other) => compare(one.first, 0, other.first, length))) {
      const before = merged.at(-1);
      if (before === undefined || compare(before.last, 0, range.first, length) < 0) merged.push({ ...range });
      else if (compare(before.last, 0, range.last, length) < 0) before.last = range.last;
    }
    this.size = merged.length;
    this.#length = length;
    this.#firsts = new Uint8Array(merged.length * length);
    this.#lasts = new Uint8Array(merged.length * length);
    for (const [index, { first, last }] of merged.entries()) {
      this.#firsts.set(first, index * length);
      this.#lasts.set(last, index * length);
    }
  }

  contain(address: Uint8Array): boolean {
    const length = this.#length;
    let low = 0;
    let high = this.size;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compare(this.#firsts, middle * length, address, length) <= 0) low = middle + 1;
      else high = middle;
    }
    return low > 0 && compare(this.#lasts, (low - 1) * length, address, length) >= 0;
  }
}

/** Negative, zero or positive, as the `length` bytes of `one` from `at` on come before, with or after `other`. */
function compare(one: Uint8Array, at: number, other: Uint8Array, length: number): number {
  for (let index = 0; index < length; index += 1) {
    const difference = (one[at + index] ?? 0) - (other[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
