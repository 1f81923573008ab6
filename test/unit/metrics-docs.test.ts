import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { BUCKET_ENDS_MS } from "../../src/observe/histogram.ts";
import { METRICS } from "../../src/observe/metrics.ts";
import { formatStatsPage } from "../../src/observe/stats-page.ts";
import { sampleReport } from "../support/status-report.ts";

const DOCS = readFileSync(new URL("../../docs/METRICS.md", import.meta.url), "utf8");

/** The cells of the table in the section that `heading` begins. */
function rowsOf(heading: string): string[][] {
  const [, section = ""] = DOCS.split(`\n## ${heading}\n`);
  const [text = ""] = section.split("\n## ");
  const lines = text.split("\n").filter((line) => line.startsWith("| "));
  return lines.slice(2).map((line) =>
    line
      .split("|")
      .map((cell) => cell.trim())
      .slice(1, -1),
  );
}

const namesIn = (cell = ""): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);

describe("docs/METRICS.md", () => {
  test("lists every metric with its type, labels and help, in their order, and no other", () => {
    const report = sampleReport();
    const expected = METRICS.map(({ name, type, help, read }) => {
      const labels = new Set(read(report).flatMap((sample) => Object.keys(sample.labels ?? {})));
      return [`\`${name}\``, type, [...labels].map((label) => `\`${label}\``).join(", ") || "-", help];
    });
    expect(rowsOf("/metrics")).toEqual(expected);
  });

  test("names the buckets", () => {
    const [, text = ""] = /buckets of both histograms end at ([^.]+(?:\.\d[^.]+)*)\./.exec(DOCS) ?? [];
    const [ms = "", s = ""] = text.split(" ms, ");
    const numbers = (part: string): number[] => (part.match(/[\d.]+/g) ?? []).map(Number);
    expect([...numbers(ms), ...numbers(s).map((one) => one * 1_000)]).toEqual([...BUCKET_ENDS_MS]);
  });

  test("lists every key of /stats, and no other", () => {
    const known = new Set(rowsOf("/stats").flatMap(([keys]) => namesIn(keys)));
    const keys = formatStatsPage(sampleReport())
      .trimEnd()
      .split("\n")
      .map((line) => line.split("\t")[0] ?? "");
    const shown = keys.map((key) =>
      key.replace(/^(tgws_(?:ended|masked|refused))_(?!bytes).*/, "$1_REASON").replace("_ann_", "_NAME_"),
    );
    expect([...known].sort()).toEqual([...new Set(shown)].sort());
  });

  test("lists every field of /api/status with its type, and no other", () => {
    const known = rowsOf("/api/status").map(([field, type]) => `${namesIn(field)[0]}: ${type}`);
    const shown = fieldsOf(JSON.parse(JSON.stringify(sampleReport())));
    expect([...new Set(known)].sort()).toEqual([...new Set(shown)].sort());
    expect(new Set(known).size).toBe(known.length);
  });
});

/** Fields whose names are no words of ours, but of users, reasons or codes. */
const NAMED_BY_OTHERS =
  /^(figures\.connections\.(ended|masked|refused|badHeaders)|figures\.routes\[\]\.failures|figures\.users|users\[\]\.refused)$/;

/** `path: type` of every field that is no object or list itself. */
function fieldsOf(value: unknown, path = ""): string[] {
  if (path === "routes") return ["routes: any"];
  if (path === "workers[].process") return ["workers[].process: object"];
  if (Array.isArray(value)) return value.flatMap((one) => fieldsOf(one, `${path}[]`));
  if (typeof value !== "object" || value === null) return [`${path}: ${typeof value}`];
  return Object.entries(value).flatMap(([key, inner]) => {
    const name = NAMED_BY_OTHERS.test(path) ? "*" : key;
    return fieldsOf(inner, path === "" ? name : `${path}.${name}`);
  });
}
