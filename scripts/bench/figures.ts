import type { ProxyName } from "./proxies.ts";

/** Units of what is measured about the measurement itself: not for the table. */
export const RIG_COST = "rig CPU s/GiB";
export const OTHER_CORES = "other cores";

/** Units of what only tgws has: a table of their own. */
export const FIRST_MS = "first ms";
export const NEXT_MS = "next ms";

/** One measured number: a row of the table is all figures with the same name and unit. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  /** `undefined` where this system does not tell; such a figure is left out. */
  readonly value: number | undefined;
}

/** All values of a row, in the order of the rounds. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly values: Readonly<Record<ProxyName, number[]>>;
}

/** Collects figures into rows, in the order in which they first come. */
export class Figures {
  readonly #rows = new Map<string, Row>();

  get rows(): readonly Row[] {
    return [...this.#rows.values()];
  }

  add(proxy: ProxyName, figures: readonly Figure[]): void {
    for (const { name, unit, value } of figures) {
      if (value === undefined || !Number.isFinite(value)) continue;
      const key = `${name} ${unit}`;
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = { name, unit, values: { tgws: [], bare: [] } };
        this.#rows.set(key, row);
      }
      row.values[proxy].push(value);
    }
  }
}

/** The middle value, or the mean of the two in the middle; `NaN` of nothing. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which the share `q` of `values` lies, interpolated; `NaN` of nothing. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/**
 * Divides values that were measured next to each other, pair by pair: noise that lasts longer than one
 * round meets both.
 */
export function pairRatios({ values }: Row): number[] {
  const count = Math.min(values.tgws.length, values.bare.length);
  const ratios: number[] = [];
  for (let at = 0; at < count; at += 1) ratios.push((values.tgws[at] ?? 0) / (values.bare[at] ?? 0));
  return ratios.filter(Number.isFinite);
}
