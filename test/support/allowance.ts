/** How many bytes a stub still sends before it falls silent, as networks do that freeze a connection. */
export class Allowance {
  #left = Number.POSITIVE_INFINITY;

  /** Nothing goes out any more. */
  get used(): boolean {
    return this.#left === 0;
  }

  /** Lets `bytes` more go out, from now on. */
  limit(bytes: number): void {
    this.#left = bytes;
  }

  /** Returns the part of `bytes` that goes out. */
  take(bytes: Uint8Array): Uint8Array {
    const sent = bytes.length <= this.#left ? bytes : bytes.subarray(0, this.#left);
    this.#left -= sent.length;
    return sent;
  }
}
