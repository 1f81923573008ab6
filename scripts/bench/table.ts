import { availableParallelism } from "node:os";
import { median, OTHER_CORES, pairRatios, quantile, RIG_COST, type Row } from "./figures.ts";

/** Formats rows as a table: medians of both proxies, the median of their ratios, and how far that spread. */
export function formatTable(rows: readonly Row[]): string {
  const cells = [["", "", "tgws", "bare", "ratio", "min..max"]];
  for (const row of rows) {
    if (row.unit === RIG_COST || row.unit === OTHER_CORES) continue;
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
  const widths =
    cells[0]?.map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0))) ?? [];
  const lines = cells.map((line) => {
    const padded = line.map((cell, column) => {
      const width = widths[column] ?? 0;
      return column < 2 ? cell.padEnd(width) : cell.padStart(width);
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
