import type { Pair, ProxyName } from "./proxies.ts";

/** Units of what is measured about the measurement itself: not for the table. */
export const RIG_COST = "rig CPU s/GiB";
export const OTHER_CORES = "other cores";

/** Units of what only tgws has: a table of their own. */
export const FIRST_MS = "first ms";
export const NEXT_MS = "next ms";

/** Units of how strangers are answered: another table of their own. */
export const FIRST_BYTE_US = "first byte µs";
export const FLIGHT_US = "flight µs";

/** One measured number: a row of the table is all figures with the same name and unit. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  /** `undefined` where this system does not tell; such a figure is left out. */
  readonly value: number | undefined;
}

/** All values of a row, in the order in which they were measured, of each of the pair. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly pair: Pair;
  readonly values: Readonly<Partial<Record<ProxyName, number[]>>>;
}

/** Collects figures into rows, in the order in which they first come. */
export class Figures {
  readonly #rows = new Map<string, Row>();

  get rows(): readonly Row[] {
    return [...this.#rows.values()];
  }

  /** @param proxy One of `pair`. */
  add(pair: Pair, proxy: ProxyName, figures: readonly Figure[]): void {
    for (const { name, unit, value } of figures) {
      if (value === undefined || !Number.isFinite(value)) continue;
      const key = `${name} ${unit}`;
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = { name, unit, pair, values: { [pair[0]]: [], [pair[1]]: [] } };
        this.#rows.set(key, row);
      }
      row.values[proxy]?.push(value);
    }
  }
}

/** The values of the row's first or second proxy. */
export function valuesOf({ pair, values }: Row, which: 0 | 1): readonly number[] {
  return values[pair[which]] ?? [];
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
export function pairRatios(row: Row): number[] {
  const below = valuesOf(row, 1);
  const ratios = valuesOf(row, 0).map((value, at) => value / (below[at] ?? Number.NaN));
  return ratios.filter(Number.isFinite);
}
