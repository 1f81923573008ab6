/** What one client's first packets may take: an upload part of 512 KiB with its wrapping fits. */
const MOST_BYTES = 768 * 1024;
const FIRST_BYTES = 4 * 1024;
/** What all clients' first packets may take together. */
const BUDGET_BYTES = 32 * 1024 * 1024;

/** How much of the first packets of clients is kept, over all sessions. */
export class ReplayBudget {
  #left: number;

  constructor(bytes: number = BUDGET_BYTES) {
    this.#left = bytes;
  }

  /** Takes `bytes`, or nothing and returns `false`. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}

/**
 * What a client has sent before anybody answered, for the next way.
 *
 * One buffer that grows: a client that sends byte by byte must not cost an object a byte. When it is full, or
 * the budget of all sessions is used up, it keeps nothing more and says so.
 */
export class Replay {
  readonly #budget: ReplayBudget;
  #buffer = new Uint8Array(0);
  #length = 0;
  #overflowed = false;

  constructor(budget: ReplayBudget) {
    this.#budget = budget;
  }

  /** More came than is kept: it cannot be sent again. */
  get overflowed(): boolean {
    return this.#overflowed;
  }

  /** Whether nothing has come yet. */
  get empty(): boolean {
    return this.#length === 0 && !this.#overflowed;
  }

  /** Everything so far; valid until the next call. */
  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  add(plain: Uint8Array): void {
    if (this.#overflowed || !this.#makeRoom(plain.length)) {
      this.#overflowed = true;
      return;
    }
    this.#buffer.set(plain, this.#length);
    this.#length += plain.length;
  }

  /** Gives the memory back. */
  clear(): void {
    this.#budget.give(this.#buffer.length);
    this.#buffer = new Uint8Array(0);
    this.#length = 0;
  }

  #makeRoom(more: number): boolean {
    const needed = this.#length + more;
    if (needed <= this.#buffer.length) return true;
    if (needed > MOST_BYTES) return false;
    let size = Math.max(this.#buffer.length, FIRST_BYTES);
    while (size < needed) size *= 2;
    size = Math.min(size, MOST_BYTES);
    if (!this.#budget.take(size - this.#buffer.length)) return false;
    const grown = new Uint8Array(size);
    grown.set(this.bytes);
    this.#buffer = grown;
    return true;
  }
}
