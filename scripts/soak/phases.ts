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

/**
 * Divides a soak:
 *
 *      0          20%            42%        50%      65%                 85%      100%
 *      |- warm-up -|- kills, too -|- settle -| early  |----- the same -----|  late  |
 *
 * Whatever process there is in the middle is there at the end, too: a killed worker's fresh memory hides no growth.
 */
export function planPhases(durationMs: number): Phases {
  const at = (share: number): number => durationMs * share;
  return {
    kills: { from: at(0.2), to: at(0.42) },
    early: { from: at(0.5), to: at(0.65) },
    late: { from: at(0.85), to: at(1) },
    end: durationMs,
  };
}

/** Whether `window` holds a moment. */
export function isWithin({ from, to }: Window, at: number): boolean {
  return at >= from && at < to;
}
