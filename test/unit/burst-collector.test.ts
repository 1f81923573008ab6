import { afterEach, beforeEach, describe, expect, jest, spyOn, test } from "bun:test";
import { BurstCollector } from "../../src/net/burst-collector.ts";

const BURST = 100;
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

function note(collector: BurstCollector, times: number): void {
  for (let noted = 0; noted < times; noted += 1) collector.note();
}

describe("BurstCollector", () => {
  test("does nothing for a few connections", () => {
    const collector = new BurstCollector();
    note(collector, BURST - 1);
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(60_000);
    expect(collections).not.toHaveBeenCalled();
  });

  test("collects once, when a burst is over", () => {
    const collector = new BurstCollector();
    note(collector, BURST);
    jest.advanceTimersByTime(QUIET_MS);
    expect(collections).not.toHaveBeenCalled();
    jest.advanceTimersByTime(QUIET_MS);
    expect(collections).toHaveBeenCalledTimes(1);
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(60_000);
    expect(collections).toHaveBeenCalledTimes(1);
  });

  test("waits while connections still come", () => {
    const collector = new BurstCollector();
    note(collector, BURST);
    for (let looks = 0; looks < 20; looks += 1) {
      jest.advanceTimersByTime(QUIET_MS / 2);
      collector.note();
    }
    expect(collections).not.toHaveBeenCalled();
    jest.advanceTimersByTime(2 * QUIET_MS);
    expect(collections).toHaveBeenCalledTimes(1);
  });

  test("begins to count anew after that", () => {
    const collector = new BurstCollector();
    note(collector, 10 * BURST);
    jest.advanceTimersByTime(2 * QUIET_MS);
    note(collector, BURST - 1);
    jest.advanceTimersByTime(60_000);
    expect(collections).toHaveBeenCalledTimes(1);
    note(collector, 1);
    jest.advanceTimersByTime(2 * QUIET_MS);
    expect(collections).toHaveBeenCalledTimes(2);
  });

  test("collects no more when it is stopped", () => {
    const collector = new BurstCollector();
    collector.stop();
    note(collector, BURST - 1);
    note(collector, 1);
    collector.stop();
    jest.advanceTimersByTime(60_000);
    expect(collections).not.toHaveBeenCalled();
    expect(jest.getTimerCount()).toBe(0);
  });
});
