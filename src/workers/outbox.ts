/** How long a message may wait that nobody waits for, in milliseconds. */
const LATER_MS = 50;

/**
 * Sends messages in batches, and in their order: one for each turn of the event loop, a system call for all that
 * happened in it.
 */
export class Outbox<Message> {
  readonly #send: (batch: readonly Message[]) => void;
  #batch: Message[] = [];
  #scheduled = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param send Gets messages in order. */
  constructor(send: (batch: readonly Message[]) => void) {
    this.#send = send;
  }

  /** Sends it at the end of this turn. */
  post(message: Message): void {
    this.#batch.push(message);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.flush);
  }

  /** Sends it with the next one that is in a hurry, or soon: whoever is woken for it, is woken less often. */
  postLater(message: Message): void {
    this.#batch.push(message);
    if (!this.#scheduled) this.#timer ??= setTimeout(this.flush, LATER_MS);
  }

  /** Sends now what waits. */
  readonly flush = (): void => {
    this.#scheduled = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#send(batch);
  };
}
