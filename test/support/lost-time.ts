const TICK_MS = 25;
/** A timer may be so late on a quiet machine, too, in milliseconds. */
const USUAL_MS = 10;

/**
 * How much time this process loses while it waits for a processor: by so much others may be late, too.
 *
 * What a test says about moments has to hold after that is taken off.
 */
export class LostTime implements Disposable {
  /** In milliseconds. */
  ms = 0;
  #due = performance.now() + TICK_MS;
  readonly #timer = setInterval(() => this.#tick(), TICK_MS);

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const now = performance.now();
    const late = now - this.#due;
    if (late > USUAL_MS) this.ms += late;
    this.#due = now + TICK_MS;
  }
}
