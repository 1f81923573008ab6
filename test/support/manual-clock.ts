import type { Clock } from "../../src/proxy/token-bucket.ts";

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #now = 0;
  #timers: { readonly at: number; readonly listener: () => void }[] = [];

  readonly now = (): number => this.#now;

  readonly after = (ms: number, listener: () => void): (() => void) => {
    const timer = { at: this.#now + ms, listener };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  };

  /** Timers that have not come yet. */
  get pending(): number {
    return this.#timers.length;
  }

  get nowMs(): number {
    return this.#now;
  }

  /** Lets `ms` pass, and every timer in it come at its time. */
  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#timers.toSorted((one, other) => one.at - other.at)[0];
      if (next === undefined || next.at > end) break;
      this.#timers = this.#timers.filter((other) => other !== next);
      this.#now = Math.max(this.#now, next.at);
      next.listener();
    }
    this.#now = end;
  }
}
