import { availableParallelism } from "node:os";
import {
  FIRST_BYTE_US,
  FIRST_MS,
  FLIGHT_US,
  median,
  NEXT_MS,
  OTHER_CORES,
  pairRatios,
  quantile,
  RIG_COST,
  type Row,
  valuesOf,
} from "./figures.ts";
import type { Pair } from "./proxies.ts";
import { rankTest } from "./rank-test.ts";

/** Units that {@link formatTable} leaves to others. */
const ELSEWHERE: readonly string[] = [RIG_COST, OTHER_CORES, FIRST_MS, NEXT_MS, FIRST_BYTE_US, FLIGHT_US];

/**
 * Formats the rows of a pair as a table: medians of both proxies, the median of their ratios, and how far that spread.
 *
 * @returns Nothing when there are none. See {@link formatSoloTable} and {@link formatStrangerTable} for the others.
 */
export function formatTable(rows: readonly Row[], pair: Pair): string {
  const cells = [["", "", ...pair, "ratio", "min..max"]];
  for (const row of rows) {
    if (row.pair !== pair || ELSEWHERE.includes(row.unit)) continue;
    const ratios = pairRatios(row);
    const name = currentName(cells) === row.name ? "" : row.name;
    cells.push([
      name,
      row.unit,
      formatNumber(median(valuesOf(row, 0))),
      formatNumber(median(valuesOf(row, 1))),
      formatNumber(median(ratios)),
      ratios.length > 1 ? `${formatNumber(Math.min(...ratios))}..${formatNumber(Math.max(...ratios))}` : "",
    ]);
  }
  return alignColumns(cells, 2);
}

/** Formats what only tgws was measured for, a line for each name: for every unit, the median and the worst. */
export function formatSoloTable(rows: readonly Row[]): string {
  const solo = rows.filter(({ unit }) => unit === FIRST_MS || unit === NEXT_MS);
  const units = [...new Set(solo.map(({ unit }) => unit))];
  const cells = [["", ...units.flatMap((unit) => [unit, "worst"])]];
  for (const [name, own] of Map.groupBy(solo, (row) => row.name)) {
    const values = units.flatMap((unit) =>
      own.filter((row) => row.unit === unit).map((row) => valuesOf(row, 0)),
    );
    cells.push([
      name,
      ...values.flatMap((all) => [formatNumber(median(all)), formatNumber(Math.max(...all))]),
    ]);
  }
  return alignColumns(cells, 1);
}

/**
 * Formats how long strangers wait for the cover site's answer, a line for each kind: how the times spread, and how they
 * compare with the first kind of the same site.
 */
export function formatStrangerTable(rows: readonly Row[]): string {
  const cells = [["", "", "n", "p10", "median", "p90", "difference", "z", "p"]];
  for (const unit of [FIRST_BYTE_US, FLIGHT_US]) {
    let first: Row | undefined;
    for (const row of rows.filter((one) => one.unit === unit)) {
      const [site] = row.name.split(": ");
      if (first?.name.startsWith(`${site}: `) !== true) first = row;
      const [own, others] = [valuesOf(row, 0), valuesOf(first, 0)];
      const { z, p } = rankTest(own, others);
      const against = [formatSigned(median(own) - median(others)), formatSigned(z), p.toFixed(4)];
      cells.push([
        row.name,
        unit,
        String(own.length),
        ...[0.1, 0.5, 0.9].map((q) => quantile(own, q).toFixed(0)),
        ...(row === first ? ["", "", ""] : against),
      ]);
    }
  }
  return alignColumns(cells, 2);
}

function formatSigned(value: number): string {
  return `${value < 0 ? "-" : "+"}${formatNumber(Math.abs(value))}`;
}

/** @param cells The first line is the header; nothing below it is no table. @param texts So many columns are text. */
function alignColumns(cells: readonly (readonly string[])[], texts: number): string {
  if (cells.length < 2) return "";
  const widths =
    cells[0]?.map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0))) ?? [];
  const lines = cells.map((line) => {
    const padded = line.map((cell, column) => {
      const width = widths[column] ?? 0;
      return column < texts ? cell.padEnd(width) : cell.padStart(width);
    });
    return padded.join("  ").trimEnd();
  });
  return lines.join("\n");
}

/** What to know before believing the table, one line each: what else was running, and what the rig took. */
export function formatCaveats(rows: readonly Row[]): string[] {
  const lines: string[] = [];
  const allOf = (wanted: string): number[] => {
    return rows
      .filter(({ unit }) => unit === wanted)
      .flatMap((row) => [...valuesOf(row, 0), ...valuesOf(row, 1)]);
  };
  const cores = quantile(allOf(OTHER_CORES), 0.75);
  if (cores > 0.2) {
    lines.push(
      `Noisy: in a quarter of the windows ${cores.toFixed(1)} cores or more were busy with something else.`,
      "CPU times suffer little from that; GiB/s, round trips and set-up times do.",
    );
  }
  const cost = median(allOf(RIG_COST));
  if (cost > 0 && availableParallelism() < 4) {
    lines.push(
      `Load client and stub data centre took ${cost.toFixed(1)} CPU s/GiB of the same ${availableParallelism()} cores:`,
      "GiB/s is what was left for the proxy. Compare CPU s/GiB.",
    );
  }
  if (process.platform !== "linux") lines.push("Some figures can only be had on Linux and are left out.");
  return lines;
}

function currentName(cells: readonly string[][]): string | undefined {
  return cells.findLast((line) => line[0] !== "")?.[0];
}

/** Three digits that matter, without an exponent. */
function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return "-";
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 3));
}
