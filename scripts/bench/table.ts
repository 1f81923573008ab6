import { availableParallelism } from "node:os";
import {
  FIRST_MS,
  median,
  NEXT_MS,
  OTHER_CORES,
  pairRatios,
  quantile,
  RIG_COST,
  type Row,
} from "./figures.ts";

/**
 * Formats rows as a table: medians of both proxies, the median of their ratios, and how far that spread.
 *
 * @returns Nothing when there are none. See {@link formatSoloTable} for the others.
 */
export function formatTable(rows: readonly Row[]): string {
  const cells = [["", "", "tgws", "bare", "ratio", "min..max"]];
  for (const row of rows) {
    if (row.unit === RIG_COST || row.unit === OTHER_CORES || isSolo(row)) continue;
    const ratios = pairRatios(row);
    const name = currentName(cells) === row.name ? "" : row.name;
    cells.push([
      name,
      row.unit,
      formatNumber(median(row.values.tgws)),
      formatNumber(median(row.values.bare)),
      formatNumber(median(ratios)),
      ratios.length > 1 ? `${formatNumber(Math.min(...ratios))}..${formatNumber(Math.max(...ratios))}` : "",
    ]);
  }
  return alignColumns(cells, 2);
}

/** Formats what only tgws was measured for, a line for each name: for every unit, the median and the worst. */
export function formatSoloTable(rows: readonly Row[]): string {
  const solo = rows.filter(isSolo);
  const units = [...new Set(solo.map(({ unit }) => unit))];
  const cells = [["", ...units.flatMap((unit) => [unit, "worst"])]];
  for (const [name, own] of Map.groupBy(solo, (row) => row.name)) {
    const values = units.map((unit) => own.find((row) => row.unit === unit)?.values.tgws ?? []);
    cells.push([
      name,
      ...values.flatMap((all) => [formatNumber(median(all)), formatNumber(Math.max(...all))]),
    ]);
  }
  return alignColumns(cells, 1);
}

function isSolo({ unit }: Row): boolean {
  return unit === FIRST_MS || unit === NEXT_MS;
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
  const valuesOf = (wanted: string): number[] => {
    return rows
      .filter(({ unit }) => unit === wanted)
      .flatMap(({ values }) => [...values.tgws, ...values.bare]);
  };
  const cores = quantile(valuesOf(OTHER_CORES), 0.75);
  if (cores > 0.2) {
    lines.push(
      `Noisy: in a quarter of the windows ${cores.toFixed(1)} cores or more were busy with something else.`,
      "CPU times suffer little from that; GiB/s, round trips and set-up times do.",
    );
  }
  const cost = median(valuesOf(RIG_COST));
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
