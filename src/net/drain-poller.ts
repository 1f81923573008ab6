/** Something whose queue can only be looked at. */
export interface Drainable {
  /** Returns true when the queue is short again, or the owner is gone: it is then not asked again. */
  checkDrained(): boolean;
}

/** How soon a congested socket is looked at again, in milliseconds. */
const FIRST_DELAY_MS = 1;
const LAST_DELAY_MS = 16;

/**
 * Looks after congested WebSockets, which have no drain event.
 *
 * One timer serves all of them and runs only while one is congested. When nothing moves it slows down, so
 * that a stalled peer costs next to nothing.
 */
export class DrainPoller {
  readonly #congested = new Set<Drainable>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #delayMs = FIRST_DELAY_MS;

  watch(socket: Drainable): void {
    this.#congested.add(socket);
    this.#delayMs = FIRST_DELAY_MS;
    this.#schedule();
  }

  forget(socket: Drainable): void {
    this.#congested.delete(socket);
  }

  #schedule(): void {
    this.#timer ??= setTimeout(this.#poll, this.#delayMs);
  }

  readonly #poll = (): void => {
    this.#timer = undefined;
    let moved = false;
    const waiting: Drainable[] = [];
    for (const socket of [...this.#congested]) {
      this.#congested.delete(socket); // before asking: its owner may get congested again at once
      if (socket.checkDrained()) moved = true;
      else waiting.push(socket);
    }
    for (const socket of waiting) this.#congested.add(socket);
    this.#delayMs = moved ? FIRST_DELAY_MS : Math.min(this.#delayMs * 2, LAST_DELAY_MS);
    if (this.#congested.size > 0) this.#schedule();
  };
}
