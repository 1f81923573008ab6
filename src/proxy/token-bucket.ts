import type { RateBucket } from "./gate.ts";
import { Turns } from "./turns.ts";

/** What may pass at once after a pause, as a part of a second: short, so that the rate is true over any second. */
const BURST_S = 0.1;
/** So much of a second's bytes must be there before anybody is woken: fewer, larger turns cost less. */
const TURN_S = 0.02;
/** However slow it is: a packet of a chat passes in one go. */
const LEAST_BURST = 4 * 1024;

/** What a {@link TokenBucket} reads time from. */
export interface Clock {
  /** Milliseconds, only forward. */
  readonly now: () => number;
  /** Calls `listener` after `ms`. @returns Takes that back. */
  readonly after: (ms: number, listener: () => void) => () => void;
}

/** The runtime's own. */
export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  after: (ms, listener) => {
    const timer = setTimeout(listener, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/**
 * So many bytes a second, over all who share it.
 *
 * Who finds it empty waits in line, and has a turn of about 20 ms' bytes when it comes to the front: all get the
 * same, however large the pieces are in which they move their bytes.
 */
export class TokenBucket implements RateBucket {
  readonly #clock: Clock;
  #perMs = 0;
  #burst = 0;
  #turn = 0;
  #tokens = 0;
  #at: number;
  readonly #turns = new Turns();
  #cancelTimer: (() => void) | undefined;

  constructor(bytesPerSecond: number, clock: Clock = SYSTEM_CLOCK) {
    this.#clock = clock;
    this.#at = clock.now();
    this.rate = bytesPerSecond;
    this.#tokens = this.#burst;
  }

  /** Bytes a second, from now on. */
  set rate(bytesPerSecond: number) {
    this.#fill();
    this.#perMs = bytesPerSecond / 1_000;
    this.#burst = Math.max(bytesPerSecond * BURST_S, LEAST_BURST);
    this.#turn = Math.min(bytesPerSecond * TURN_S, this.#burst);
    if (this.#tokens > this.#burst) this.#tokens = this.#burst;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#schedule();
  }

  get rate(): number {
    return this.#perMs * 1_000;
  }

  get empty(): boolean {
    if (this.#turns.taken) return true;
    this.#fill();
    return this.#tokens <= 0;
  }

  spend(bytes: number): void {
    this.#fill();
    this.#tokens -= bytes;
  }

  /**
   * Takes up to `most` bytes; returns how many. What is not used can be given back by `spend(-n)`.
   *
   * 0 when there are neither so many nor enough for a turn: whoever gets less than it needs asks again at once, and would
   * do so all the time for the few bytes that have come meanwhile.
   */
  take(most: number): number {
    if (this.empty || this.#tokens < Math.min(most, this.#turn)) return 0;
    const taken = Math.min(most, Math.floor(this.#tokens));
    this.#tokens -= taken;
    return taken;
  }

  whenReady(listener: () => void): () => void {
    const takeBack = this.#turns.add(listener);
    this.#schedule();
    return () => {
      takeBack();
      if (this.#turns.waiting > 0) return;
      this.#cancelTimer?.();
      this.#cancelTimer = undefined;
    };
  }

  #fill(): void {
    const now = this.#clock.now();
    if (now > this.#at) this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs);
    this.#at = now;
  }

  #schedule(): void {
    if (this.#cancelTimer !== undefined || this.#turns.waiting === 0) return;
    this.#fill();
    const missing = Math.max(0, this.#turn - this.#tokens);
    const ms = Math.max(1, Math.ceil(missing / this.#perMs));
    this.#cancelTimer = this.#clock.after(ms, () => {
      this.#cancelTimer = undefined;
      this.#turns.serve(() => !this.empty);
      this.#schedule();
    });
  }
}
