/**
 * The upper ends of the buckets of a {@link Histogram}, in milliseconds, each included; beyond the last there is
 * one bucket more. A way opens in 20-400 ms as a rule, and is given up after 4.5 s.
 */
export const BUCKET_ENDS_MS = [
  10, 25, 50, 100, 200, 350, 500, 750, 1_000, 1_500, 2_500, 5_000, 10_000,
] as const;

/** How often something took how long. A JSON value. */
export interface Histogram {
  /** By bucket, each for itself: one more than {@link BUCKET_ENDS_MS}. */
  readonly counts: readonly number[];
  /** All times together, in whole microseconds, so that sums do not depend on their order. */
  readonly sumMicros: number;
}

/** A histogram that grows. */
export interface GrowingHistogram extends Histogram {
  readonly counts: number[];
  sumMicros: number;
}

/** A histogram without any time in it. */
export function newHistogram(): GrowingHistogram {
  return { counts: Array.from({ length: BUCKET_ENDS_MS.length + 1 }, () => 0), sumMicros: 0 };
}

/** Counts one time. What is no number of milliseconds counts as 0. */
export function countTime(into: GrowingHistogram, ms: number): void {
  const time = ms > 0 && Number.isFinite(ms) ? ms : 0;
  let bucket = 0;
  for (const end of BUCKET_ENDS_MS) {
    if (time <= end) break;
    bucket += 1;
  }
  into.counts[bucket] = (into.counts[bucket] ?? 0) + 1;
  into.sumMicros += Math.round(time * 1_000);
}

/** How many times are in it. */
export function countOf({ counts }: Histogram): number {
  let count = 0;
  for (const one of counts) count += one;
  return count;
}

/** The average in milliseconds; `undefined` without any. */
export function averageMs(histogram: Histogram): number | undefined {
  const count = countOf(histogram);
  return count === 0 ? undefined : histogram.sumMicros / 1_000 / count;
}

/** Both together. */
export function addHistograms(a: Histogram, b: Histogram): Histogram {
  return {
    counts: a.counts.map((count, bucket) => count + (b.counts[bucket] ?? 0)),
    sumMicros: a.sumMicros + b.sumMicros,
  };
}
