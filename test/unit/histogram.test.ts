import { describe, expect, test } from "bun:test";
import {
  addHistograms,
  averageMs,
  BUCKET_ENDS_MS,
  countOf,
  countTime,
  newHistogram,
} from "../../src/observe/histogram.ts";

describe("countTime()", () => {
  test("counts a time in the first bucket that ends at it or later", () => {
    for (const [bucket, end] of BUCKET_ENDS_MS.entries()) {
      const histogram = newHistogram();
      countTime(histogram, end);
      expect(histogram.counts.indexOf(1)).toBe(bucket);
      countTime(histogram, end + 0.001);
      expect(histogram.counts.lastIndexOf(1)).toBe(bucket + 1);
      expect(countOf(histogram)).toBe(2);
    }
  });

  test("has a bucket for what takes longer than all", () => {
    const histogram = newHistogram();
    countTime(histogram, 1e9);
    expect(histogram.counts.at(-1)).toBe(1);
  });

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])("counts %p as no time", (ms) => {
    const histogram = newHistogram();
    countTime(histogram, ms);
    expect(histogram.counts[0]).toBe(1);
    expect(histogram.sumMicros).toBe(0);
  });

  test("adds up whole microseconds", () => {
    const histogram = newHistogram();
    for (const ms of [0.1, 0.2, 12.3456]) countTime(histogram, ms);
    expect(histogram.sumMicros).toBe(100 + 200 + 12_346);
  });
});

describe("averageMs()", () => {
  test("is the sum over the number", () => {
    const histogram = newHistogram();
    for (const ms of [100, 151]) countTime(histogram, ms);
    expect(averageMs(histogram)).toBe(125.5);
  });

  test("is undefined when there is nothing", () => {
    expect(averageMs(newHistogram())).toBeUndefined();
  });
});

describe("addHistograms()", () => {
  test("adds bucket by bucket, and changes neither", () => {
    const [a, b] = [newHistogram(), newHistogram()];
    for (const ms of [1, 30]) countTime(a, ms);
    for (const ms of [1, 20_000]) countTime(b, ms);
    const sum = addHistograms(a, b);
    expect(sum.counts[0]).toBe(2);
    expect(countOf(sum)).toBe(4);
    expect(sum.sumMicros).toBe(20_032_000);
    expect(countOf(a)).toBe(2);
  });
});
