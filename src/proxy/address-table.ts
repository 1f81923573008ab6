import { RefusedError } from "../core/errors.ts";
import { addressKey, isLoopbackKey } from "./address-key.ts";

/** Addresses that are remembered: about 12 MiB. A stranger who has more of them does not make it grow. */
const MOST_ADDRESSES = 65_536;
/** Entries that are looked at for each new one, so that the table is swept without ever being walked. */
const SWEEP = 8;

/** Limits of one address; what is `undefined` has no limit. */
export interface AddressLimits {
  /** Connections at a time. */
  readonly maxPerAddress: number | undefined;
  /** New connections per second; as many may come at once after a second without any. */
  readonly addressRate: number | undefined;
}

interface Entry {
  connections: number;
  /** Connections that may be made now. */
  tokens: number;
  /** When that was so, in milliseconds. */
  at: number;
}

/** What {@link AddressTable.arrive} was counted under; `undefined` when it was not. */
export type CountedAddress = string | undefined;

/**
 * The connections of each address, and how fast it makes new ones.
 *
 * Bounded: an entry is forgotten when it has no connection and could make as many new ones as a stranger. When it is
 * full of others, addresses that are not in it are not counted, rather than refused.
 */
export class AddressTable {
  readonly #entries = new Map<string, Entry>();
  readonly #most: number;
  #limits: AddressLimits = { maxPerAddress: undefined, addressRate: undefined };

  constructor(most: number = MOST_ADDRESSES) {
    this.#most = most;
  }

  get size(): number {
    return this.#entries.size;
  }

  set limits(limits: AddressLimits) {
    this.#limits = limits;
  }

  /**
   * Counts a connection; nothing is, of this machine's own addresses and while there are no limits.
   *
   * @param now In milliseconds, only forward.
   * @throws {RefusedError} `address-connections` or `address-rate`.
   */
  arrive(address: string, now: number): CountedAddress {
    const { maxPerAddress, addressRate } = this.#limits;
    if (maxPerAddress === undefined && addressRate === undefined) return undefined;
    const key = addressKey(address);
    if (isLoopbackKey(key)) return undefined;
    const entry = this.#entries.get(key) ?? this.#add(key, now);
    if (entry === undefined) return undefined;
    if (maxPerAddress !== undefined && entry.connections >= maxPerAddress) {
      throw new RefusedError("address-connections");
    }
    if (addressRate !== undefined) {
      this.#fill(entry, addressRate, now);
      if (entry.tokens < 1) throw new RefusedError("address-rate");
      entry.tokens -= 1;
    }
    entry.connections += 1;
    return key;
  }

  /** A connection is gone. */
  leave(key: CountedAddress, now: number): void {
    const entry = key === undefined ? undefined : this.#entries.get(key);
    if (key === undefined || entry === undefined) return;
    entry.connections -= 1;
    this.#forget(key, entry, now);
  }

  /** Forgets whoever is as good as a stranger. */
  sweep(now: number): void {
    for (const [key, entry] of this.#entries) this.#forget(key, entry, now);
  }

  #add(key: string, now: number): Entry | undefined {
    if (this.#entries.size >= this.#most) {
      let looked = 0;
      for (const [other, entry] of this.#entries) {
        this.#forget(other, entry, now);
        if (this.#entries.has(other)) {
          this.#entries.delete(other);
          this.#entries.set(other, entry); // to the end: the next time others are looked at
        }
        looked += 1;
        if (looked >= SWEEP) break;
      }
      if (this.#entries.size >= this.#most) return undefined;
    }
    const entry = { connections: 0, tokens: burstOf(this.#limits.addressRate), at: now };
    this.#entries.set(key, entry);
    return entry;
  }

  #fill(entry: Entry, rate: number, now: number): void {
    entry.tokens = Math.min(burstOf(rate), entry.tokens + ((now - entry.at) / 1_000) * rate);
    entry.at = now;
  }

  #forget(key: string, entry: Entry, now: number): void {
    if (entry.connections > 0) return;
    const { addressRate } = this.#limits;
    if (addressRate !== undefined) {
      this.#fill(entry, addressRate, now);
      if (entry.tokens < burstOf(addressRate)) return;
    }
    this.#entries.delete(key);
  }
}

/** At least one, or a rate below one a second would let nobody in. */
function burstOf(rate: number | undefined): number {
  return Math.max(1, rate ?? 1);
}
