/**
 * How long one is remembered, in seconds. Its digest does not cover the time in it, which whoever has recorded a hello
 * can move on: so the time alone keeps nobody from sending it again.
 */
const KEEP_S = 7 * 24 * 60 * 60;
/** About 13 MiB when full. */
const MOST = 131_072;

/**
 * The ClientHellos that were answered: none is answered twice, or somebody who recorded one could learn from our
 * answer what we are.
 *
 * Bounded: when full, the oldest is forgotten.
 */
export class SeenHellos {
  /** When it may be forgotten, by the start of its random; oldest first. */
  readonly #until = new Map<string, number>();
  readonly #most: number;

  constructor(most = MOST) {
    this.#most = most;
  }

  get size(): number {
    return this.#until.size;
  }

  /**
   * Takes a hello for the caller alone.
   *
   * @param random Its 32 bytes.
   * @param now In seconds, of a clock that only goes forward.
   * @returns `false` when it was taken before.
   */
  claim(random: Uint8Array, now: number): boolean {
    const key = random.subarray(0, 16).toHex();
    if (this.#until.has(key)) return false;
    for (const [oldest, until] of this.#until) {
      if (until > now && this.#until.size < this.#most) break;
      this.#until.delete(oldest);
    }
    this.#until.set(key, now + KEEP_S);
    return true;
  }
}
