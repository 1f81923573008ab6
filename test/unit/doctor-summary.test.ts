import { describe, expect, test } from "bun:test";
import { formatSummary } from "../../src/cli/doctor-summary.ts";
import { DC2, diagnosis, MIXED, way } from "./doctor-diagnoses.ts";

describe("formatSummary()", () => {
  test("names the fastest way of each data centre", () => {
    const fast = way(DC2, "cf-worker", { openMs: 9, rttMs: 20.4, bytes: 104 });
    const targets = [diagnosis(DC2, way(DC2, "direct-ws", "ok"), fast), ...MIXED.slice(1)];
    expect(formatSummary(targets)).toEqual([
      "DC 2  messages cf-worker 20 ms, media direct-ws 61 ms",
      "DC 5  no working route",
    ]);
  });
});
