import type { RateBucket } from "./gate.ts";
import { Turns } from "./turns.ts";

/** Asked for at a time: what a fast user moves in a few milliseconds. Who lends gives less to a slow one. */
const PORTION = 256 * 1024;

/**
 * A part of a rate that another process shares out, as that lends it: a worker's.
 *
 * It asks once it has nothing left and somebody waits, and not again before it was granted something.
 */
export class LeasedBucket implements RateBucket {
  readonly #ask: (most: number) => void;
  readonly #turns = new Turns();
  #tokens = 0;
  #asked = false;

  /** @param ask Asks for up to so many bytes; {@link LeasedBucket.grant} must follow, from the event loop. */
  constructor(ask: (most: number) => void) {
    this.#ask = ask;
  }

  get empty(): boolean {
    return this.#turns.taken || this.#tokens <= 0;
  }

  spend(bytes: number): void {
    this.#tokens -= bytes;
  }

  whenReady(listener: () => void): () => void {
    const takeBack = this.#turns.add(listener);
    // With something left and nobody before, it is its turn as soon as the caller has returned.
    if (this.#tokens > 0) queueMicrotask(() => this.#serve());
    else this.#want();
    return takeBack;
  }

  /** So many bytes were lent; at least one, unless nobody lends any more. */
  grant(bytes: number): void {
    this.#asked = false;
    this.#tokens += bytes;
    this.#serve();
  }

  #serve(): void {
    this.#turns.serve(() => this.#tokens > 0);
    if (this.#turns.waiting > 0) this.#want();
  }

  #want(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#ask(PORTION - Math.min(0, this.#tokens)); // what was overdrawn is owed
  }
}
