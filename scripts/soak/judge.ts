import type { Failure } from "./orders.ts";

/** Why some sessions may fail: a fault that was injected. */
export interface Excuse {
  readonly fault: string;
  /** `Date.now()` after which no failure is its fault. */
  readonly until: number;
  covers(failure: Failure): boolean;
}

/** A failure may be heard of before the fault that has caused it, and so much later at most, in milliseconds. */
const HEARSAY_MS = 5_000;
/** Failures that nothing excuses are kept up to this many. */
const MOST_KEPT = 200;

/** Decides which failures were caused by a fault of the soak's own. */
export class Judge {
  /** Excused failures by fault. */
  readonly excused: Record<string, number> = {};
  /** The first of them. */
  readonly unexcused: Failure[] = [];
  unexcusedCount = 0;
  corruptions = 0;
  #excuses: Excuse[] = [];
  #open: Failure[] = [];

  excuse(excuse: Excuse): void {
    this.#excuses.push(excuse);
  }

  hear(failure: Failure): void {
    if (failure.corruption) {
      this.corruptions += 1;
      this.#blame(failure); // nothing excuses that
    } else {
      this.#open.push(failure);
    }
  }

  /** Decides what can be decided. @param now `Date.now()`; `Infinity` decides everything. */
  settle(now: number): void {
    const due = this.#open.filter(({ failedAt }) => failedAt + HEARSAY_MS <= now);
    this.#open = this.#open.filter(({ failedAt }) => failedAt + HEARSAY_MS > now);
    for (const failure of due) {
      const excuse = this.#excuses.find(({ until, covers }) => failure.failedAt <= until && covers(failure));
      if (excuse === undefined) this.#blame(failure);
      else this.excused[excuse.fault] = (this.excused[excuse.fault] ?? 0) + 1;
    }
    this.#excuses = this.#excuses.filter(({ until }) => until + 2 * HEARSAY_MS > now);
  }

  #blame(failure: Failure): void {
    this.unexcusedCount += 1;
    if (this.unexcused.length < MOST_KEPT) this.unexcused.push(failure);
  }
}
