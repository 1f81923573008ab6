import { afterEach, beforeEach, describe, expect, jest, spyOn, test } from "bun:test";
import { GrowthCollector } from "../../src/net/growth-collector.ts";

const QUIET_MS = 200;
let collections: ReturnType<typeof spyOn<typeof Bun, "gc">>;

beforeEach(() => {
  jest.useFakeTimers();
  collections = spyOn(Bun, "gc").mockImplementation(() => 0);
});
afterEach(() => {
  collections.mockRestore();
  jest.useRealTimers();
});

function grow(collector: GrowthCollector, from: number, to: number): void {
  for (let count = from; count <= to; count += 1) collector.note(count);
}

describe("GrowthCollector", () => {
  test("does nothing for a few connections", () => {
    grow(new GrowthCollector(), 1, 99);
    expect(jest.getTimerCount()).toBe(0);
    expect(collections).not.toHaveBeenCalled();
  });

  test("does nothing for connections that come and go, however many", () => {
    const collector = new GrowthCollector();
    for (let round = 0; round < 1_000; round += 1) {
      grow(collector, 1, 50);
      collector.note(0);
    }
    expect(collections).not.toHaveBeenCalled();
  });

  test("collects for each hundred at first, later for each quarter more", () => {
    const collector = new GrowthCollector();
    grow(collector, 1, 400);
    expect(collections).toHaveBeenCalledTimes(4);
    grow(collector, 401, 499);
    expect(collections).toHaveBeenCalledTimes(4);
    grow(collector, 500, 1_000);
    expect(collections).toHaveBeenCalledTimes(8); // 500, 625, 782, 978
    collector.stop();
  });

  test("collects once more when it has grown, and then leaves no timer", () => {
    const collector = new GrowthCollector();
    grow(collector, 1, 150);
    expect(collections).toHaveBeenCalledTimes(1);
    jest.advanceTimersByTime(2 * QUIET_MS);
    expect(collections).toHaveBeenCalledTimes(2);
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(60_000);
    expect(collections).toHaveBeenCalledTimes(2);
  });

  test("begins anew from where the number has fallen to", () => {
    const collector = new GrowthCollector();
    grow(collector, 1, 100);
    collector.note(20);
    grow(collector, 21, 119);
    expect(collections).toHaveBeenCalledTimes(1);
    collector.note(120);
    expect(collections).toHaveBeenCalledTimes(2);
    collector.stop();
  });

  test("leaves no timer after stop", () => {
    const collector = new GrowthCollector();
    grow(collector, 1, 100);
    collector.stop();
    expect(jest.getTimerCount()).toBe(0);
  });
});
