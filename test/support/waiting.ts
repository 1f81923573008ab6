/** How long a test may take when it does not say so itself, in milliseconds. */
export const TEST_LIMIT_MS = 60_000;
/**
 * How long a test waits for what should happen at once, in milliseconds: what takes longer hangs.
 *
 * It says nothing about speed: a busy machine needs several times as long as a quiet one.
 */
export const SOON_MS = 20_000;

/**
 * Settles like `promise`, but no later than `limitMs` from now.
 *
 * @throws {Error} That `what` did not happen.
 */
export function within<T>(promise: Promise<T>, what: string, limitMs = SOON_MS): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what}: not within ${limitMs} ms`)), limitMs);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Lets others wait until something about its owner is true; the owner says when something has changed. */
export class Condition {
  #waiting: { readonly holds: () => boolean; readonly resolve: () => void }[] = [];

  /** Looks again at what is waited for. */
  changed(): void {
    this.#waiting = this.#waiting.filter(({ holds, resolve }) => {
      if (!holds()) return true;
      resolve();
      return false;
    });
  }

  /** Waits until `holds()`. @throws {Error} That `what` did not happen within `limitMs`. */
  until(holds: () => boolean, what: string, limitMs = SOON_MS): Promise<void> {
    if (holds()) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ holds, resolve });
    return within(promise, what, limitMs);
  }
}

/** Lets the event loop turn once, so that what was written before becomes a segment of its own. */
export function nextTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
}
