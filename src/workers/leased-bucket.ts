import type { RateBucket } from "../proxy/gate.ts";

/** So much of a second is asked for at a time: twenty messages a second, or fifty of a user who wants more than the rate. */
const LEASE_S = 0.05;
/** Less is not worth a message, in bytes. */
const LEAST_LEASE = 16 * 1024;

/**
 * A user's rate in one of several processes: it spends what the supervisor has leased to it, and asks for more
 * in time, so that a user is as fast on one process as on all of them together.
 */
export class LeasedBucket implements RateBucket {
  readonly #ask: (bytes: number) => void;
  #lease: number;
  #left = 0;
  #asked = false;
  readonly #waiting = new Set<() => void>();

  /**
   * @param rate Bytes per second.
   * @param ask Asks for so many bytes; {@link LeasedBucket.grant} brings them, or a part of them.
   */
  constructor(rate: number, ask: (bytes: number) => void) {
    this.#ask = ask;
    this.#lease = leaseOf(rate);
    this.#askForMore();
  }

  /** The user's rate has changed. */
  set rate(rate: number) {
    this.#lease = leaseOf(rate);
  }

  spend(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < this.#lease) this.#askForMore();
  }

  get empty(): boolean {
    return this.#left <= 0;
  }

  whenReady(listener: () => void): () => void {
    this.#waiting.add(listener);
    this.#askForMore();
    return () => this.#waiting.delete(listener);
  }

  /** Bytes have come. */
  grant(bytes: number): void {
    this.#asked = false;
    this.#left += bytes;
    if (this.#left < this.#lease) this.#askForMore();
    // Whoever waits for its turn takes what it can; one read may use it up for the others.
    for (const listener of [...this.#waiting]) {
      if (this.empty) return;
      this.#waiting.delete(listener);
      listener();
    }
  }

  #askForMore(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#ask(this.#lease + Math.max(0, -this.#left));
  }
}

function leaseOf(rate: number): number {
  return Math.max(LEAST_LEASE, Math.ceil(rate * LEASE_S));
}
