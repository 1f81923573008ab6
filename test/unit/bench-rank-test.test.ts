import { describe, expect, test } from "bun:test";
import { rankTest } from "../../scripts/bench/rank-test.ts";

describe("rankTest()", () => {
  test("says what was worked out by hand", () => {
    const first = [1.1, 2.2, 3.3, 4.4, 5.5, 6.6, 7.7, 8.8];
    const second = [3, 4, 6, 7, 9, 10, 11, 12];
    // 16 of 64 pairs have the larger value first: (16 - 32) / sqrt(64 * 17 / 12), and erfc of that by sqrt(2)
    const { z, p } = rankTest(first, second);
    expect(z).toBeCloseTo(-1.6803, 4);
    expect(p).toBeCloseTo(0.0929, 4);
  });

  test("gives equal values the middle of their ranks", () => {
    // Ranks 1.5 and 4 against 1.5, 4, 4: U = 2.5 of 6
    const { z } = rankTest([1, 2], [1, 2, 2]);
    const variance = (6 / 12) * (6 - (6 + 24) / 20);
    expect(z).toBeCloseTo(-0.5 / Math.sqrt(variance), 6);
  });

  test("finds no difference between a sample and itself", () => {
    const sample = Array.from({ length: 100 }, (_, at) => at % 37);
    expect(rankTest(sample, sample)).toEqual({ z: 0, p: expect.closeTo(1, 5) });
  });

  test("finds no difference where all values are equal", () => {
    expect(rankTest([5, 5, 5], [5, 5])).toEqual({ z: 0, p: 1 });
  });

  test("turns the sign when the samples change places", () => {
    const low = Array.from({ length: 50 }, (_, at) => at);
    const high = low.map((value) => value + 20.5);
    const up = rankTest(high, low);
    const down = rankTest(low, high);
    expect(up.z).toBeGreaterThan(4);
    expect(down.z).toBeCloseTo(-up.z, 6);
    expect(up.p).toBeLessThan(0.0001);
  });
});
