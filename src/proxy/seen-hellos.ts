import type { HelloClaims } from "./fake-tls.ts";

/**
 * How long one is remembered, in seconds. Its digest does not cover the time in it, which whoever has recorded a hello
 * can move on: so the time alone keeps nobody from sending it again.
 */
const KEEP_S = 90 * 24 * 60 * 60;
/** About 13 MiB when full. */
const MOST = 131_072;
/** The start of a hello's random, which is its digest: what is remembered of it, in bytes. */
const KEY_LENGTH = 16;

/** When they cannot be kept, such as on a full disk, that is tried again after this time, in seconds. */
const RETRY_S = 60;

/** Where they are kept over restarts: keys of 16 bytes, one after the other, oldest first. */
export interface HelloStore {
  read(): Uint8Array;
  /** @returns Whether it is kept. */
  append(key: Uint8Array): boolean;
  /** Puts `keys` in the place of all that there are. @returns Whether they are kept. */
  replace(keys: Uint8Array): boolean;
}

/**
 * The ClientHellos that were answered: none is answered twice, or somebody who recorded one could learn from our
 * answer what we are.
 *
 * Bounded: when full, the oldest is forgotten.
 */
export class SeenHellos implements HelloClaims {
  /** When it may be forgotten, by its key; oldest first. */
  readonly #until = new Map<string, number>();
  readonly #most: number;
  readonly #store: HelloStore | undefined;
  /** Since all that is kept was written anew. */
  #appended = 0;
  /** What is kept lacks some: when it is tried to write all of them again. */
  #retryAt: number | undefined;

  constructor({
    most = MOST,
    store,
  }: { readonly most?: number; readonly store?: HelloStore | undefined } = {}) {
    this.#most = most;
    this.#store = store;
    if (store === undefined) return;
    const kept = store.read();
    const whole = kept.length - (kept.length % KEY_LENGTH);
    const first = Math.max(0, whole - most * KEY_LENGTH);
    for (let at = first; at < whole; at += KEY_LENGTH) {
      this.#until.set(kept.subarray(at, at + KEY_LENGTH).toHex(), KEEP_S);
    }
    // It only grows while we run; a crash may have cut its end.
    if (first > 0 || whole < kept.length) store.replace(kept.subarray(first, whole));
  }

  get size(): number {
    return this.#until.size;
  }

  /**
   * Takes a hello for the caller alone.
   *
   * @param random Its 32 bytes.
   * @param now In seconds since the start, of a clock that only goes forward.
   * @returns `false` when it was taken before.
   */
  claim(random: Uint8Array, now: number): boolean {
    const start = random.subarray(0, KEY_LENGTH);
    const key = start.toHex();
    if (this.#until.has(key)) return false;
    for (const [oldest, until] of this.#until) {
      if (until > now && this.#until.size < this.#most) break;
      this.#until.delete(oldest);
    }
    this.#until.set(key, now + KEEP_S);
    this.#keep(start, now);
    return true;
  }

  #keep(key: Uint8Array, now: number): void {
    const store = this.#store;
    if (store === undefined) return;
    const isWhole = this.#retryAt === undefined;
    if (!isWhole && now < (this.#retryAt ?? 0)) return;
    if (isWhole && this.#appended < this.#most) {
      this.#appended += 1;
      if (store.append(key)) return;
    } else {
      // What was forgotten here is still there, or what is here is not.
      this.#appended = 0;
      const all = Uint8Array.fromHex([...this.#until.keys()].join(""));
      if (store.replace(all)) {
        this.#retryAt = undefined;
        return;
      }
    }
    this.#retryAt = now + RETRY_S;
  }
}
