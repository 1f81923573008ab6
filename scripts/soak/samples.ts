import { isWithin, type Window } from "./phases.ts";
import type { ProcessSample } from "./proxy.ts";

/** What was measured at a moment. */
export interface Sample {
  /** Milliseconds since the start of the load. */
  readonly at: number;
  readonly live: number;
  readonly processes: readonly ProcessSample[];
}

/** How a figure spread over a window. */
export interface Spread {
  readonly count: number;
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Returns how a figure spread over a window. */
export function spreadOver(
  samples: readonly Sample[],
  window: Window,
  figure: (sample: Sample) => number,
): Spread {
  const values = samples
    .filter(({ at }) => isWithin(window, at))
    .map(figure)
    .sort((a, b) => a - b);
  return {
    count: values.length,
    min: values[0] ?? 0,
    median: values[values.length >> 1] ?? 0,
    max: values.at(-1) ?? 0,
  };
}

/** The memory of all processes of the proxy together. */
export function totalRss({ processes }: Sample): number {
  return processes.reduce((sum, { rssKib }) => sum + rssKib, 0);
}

/** CPU seconds that the proxy has used, those of ended processes included. */
export function totalCpu(samples: readonly Sample[]): number {
  const last = new Map<number, number>();
  for (const { pid, cpuSeconds } of samples.flatMap(({ processes }) => processes)) last.set(pid, cpuSeconds);
  return [...last.values()].reduce((sum, seconds) => sum + seconds, 0);
}

/** Growth of all processes' memory within a window, by least squares, in KiB per hour. */
export function growthPerHour(samples: readonly Sample[], window: Window): number {
  const points = samples
    .filter(({ at }) => isWithin(window, at))
    .map((sample) => [sample.at, totalRss(sample)] as const);
  const meanAt = mean(points.map(([at]) => at));
  const meanRss = mean(points.map(([, rss]) => rss));
  let [over, under] = [0, 0];
  for (const [at, rss] of points) {
    over += (at - meanAt) * (rss - meanRss);
    under += (at - meanAt) ** 2;
  }
  return under === 0 ? 0 : (over / under) * 3_600_000;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
