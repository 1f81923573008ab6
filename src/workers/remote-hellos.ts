import type { FromWorker } from "./messages.ts";

/** The hellos that were answered, in a worker: the supervisor knows those of all workers. */
export class RemoteHellos {
  readonly #post: (message: FromWorker) => void;
  readonly #waiting = new Map<number, (fresh: boolean) => void>();
  #lastId = 0;
  #closed = false;

  constructor(post: (message: FromWorker) => void) {
    this.#post = post;
  }

  /**
   * Takes a hello for the caller alone.
   *
   * @param random Its 32 bytes.
   * @returns `false` when it was taken before, or nobody can tell.
   */
  claim(random: Uint8Array): Promise<boolean> {
    if (this.#closed) return Promise.resolve(false);
    const id = ++this.#lastId;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#waiting.set(id, resolve);
    this.#post({ type: "claim", id, random: random.toHex() });
    return promise;
  }

  /** The supervisor's answer. */
  onClaimed(id: number, fresh: boolean): void {
    this.#waiting.get(id)?.(fresh);
    this.#waiting.delete(id);
  }

  /** There is no supervisor any more. */
  close(): void {
    this.#closed = true;
    for (const resolve of this.#waiting.values()) resolve(false);
    this.#waiting.clear();
  }
}
