/** So many connections leave a few MiB of garbage behind: worth a collection. */
const BURST = 100;
/** A burst is over when nothing came for this long, in milliseconds. */
const QUIET_MS = 200;

/**
 * Runs the garbage collector once after a burst of connections.
 *
 * Opening a connection makes about 8 KiB of garbage. The runtime collects under load, but a proxy that falls
 * idle right after a burst would keep it for as long as it is idle: on a small machine, for hours.
 */
export class BurstCollector {
  #count = 0;
  #lastCount = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Notes a connection. */
  note(): void {
    this.#count += 1;
    if (this.#count >= BURST) this.#timer ??= setTimeout(this.#look, QUIET_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  readonly #look = (): void => {
    const quiet = this.#count === this.#lastCount;
    this.#lastCount = quiet ? 0 : this.#count;
    this.#timer = quiet ? undefined : setTimeout(this.#look, QUIET_MS);
    if (!quiet) return;
    this.#count = 0;
    Bun.gc(true);
  };
}
