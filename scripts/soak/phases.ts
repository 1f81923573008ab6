/** When what happens, in milliseconds from the start of the load. */
export interface Phases {
  /** Workers are killed and restarted, no more after it. */
  readonly kills: Window;
  /** The plateau: RSS is compared between these, within which no process is new. */
  readonly early: Window;
  readonly late: Window;
  readonly end: number;
}

/** From `from` until before `to`. */
export interface Window {
  readonly from: number;
  readonly to: number;
}

/** From here on there is time for everything, in milliseconds. */
const LONG_MS = 10 * 60_000;

/**
 * Divides a soak:
 *
 *      0          10%            28%              60%      72%             88%      100%
 *      |- warm-up -|- kills, too -|---- settle ----| early  |-- the same ---|  late  |
 *
 * Whatever process there is in the early window is there at the end, too: a killed worker's fresh memory hides no growth.
 * A young one has ten minutes of thirty to become as big as its load makes it: that is no growth of the proxy's. A short
 * soak has no such time, and gives kills more room instead.
 */
export function planPhases(durationMs: number): Phases {
  const at = (share: number): number => durationMs * share;
  return {
    kills: { from: at(0.1), to: at(durationMs < LONG_MS ? 0.45 : 0.28) },
    early: { from: at(0.6), to: at(0.72) },
    late: { from: at(0.88), to: at(1) },
    end: durationMs,
  };
}

/** Whether `window` holds a moment. */
export function isWithin({ from, to }: Window, at: number): boolean {
  return at >= from && at < to;
}
