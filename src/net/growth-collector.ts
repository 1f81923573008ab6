/** So many more connections than at the last collection, or a quarter more, are worth another. */
const LEAST_GROWTH = 100;
const GROWTH = 0.25;
/** A burst is over when nothing came for this long, in milliseconds. */
const QUIET_MS = 200;

/**
 * Runs the garbage collector while the number of connections grows, and once more when it has grown.
 *
 * Opening a connection makes several KiB of garbage. The runtime would let it pile up between the memory
 * that stays, which then is never given back: tens of MiB for a proxy that falls idle after a burst, for as
 * long as it is idle. Connections that come and go do not count: their memory is used again.
 */
export class GrowthCollector {
  /** Connections at the last collection, or fewer since. */
  #base = 0;
  #count = 0;
  #lastLook = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Notes that there are `count` connections now. */
  note(count: number): void {
    this.#count = count;
    if (count < this.#base) this.#base = count;
    if (count - this.#base < Math.max(LEAST_GROWTH, this.#base * GROWTH)) return;
    this.#collect();
    this.#timer ??= setTimeout(this.#look, QUIET_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #collect(): void {
    this.#base = this.#count;
    Bun.gc(true);
  }

  readonly #look = (): void => {
    const quiet = this.#count === this.#lastLook;
    this.#lastLook = this.#count;
    this.#timer = quiet ? undefined : setTimeout(this.#look, QUIET_MS);
    if (quiet) this.#collect();
  };
}
