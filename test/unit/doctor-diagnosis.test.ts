import { describe, expect, test } from "bun:test";
import { allReachable } from "../../src/cli/doctor-diagnosis.ts";
import { MIXED } from "./doctor-diagnoses.ts";

describe("allReachable()", () => {
  test("wants a working way for every target", () => {
    expect(allReachable(MIXED.slice(0, 2))).toBe(true);
    expect(allReachable(MIXED)).toBe(false);
  });
});
