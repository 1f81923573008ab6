/** Sends messages in batches, one for each turn of the event loop: a system call for all that happened in it. */
export class Outbox<Message> {
  readonly #send: (batch: readonly Message[]) => void;
  #batch: Message[] = [];
  #scheduled = false;

  /** @param send Gets messages in order. */
  constructor(send: (batch: readonly Message[]) => void) {
    this.#send = send;
  }

  post(message: Message): void {
    this.#batch.push(message);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }

  /** Sends now what waits. */
  readonly flush = (): void => this.#flush();

  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#send(batch);
  };
}
