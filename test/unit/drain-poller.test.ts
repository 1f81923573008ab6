import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { type Drainable, DrainPoller } from "../../src/net/drain-poller.ts";

/** A queue that is as long as the test says; keeps the times at which it was looked at. */
class Queue implements Drainable {
  long = true;
  readonly lookedAt: number[] = [];

  checkDrained(): boolean {
    this.lookedAt.push(performance.now());
    return !this.long;
  }
}

const gaps = (times: readonly number[]): number[] =>
  times.slice(1).map((time, at) => time - (times[at] ?? 0));

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe("DrainPoller", () => {
  test("looks at a queue until it is short, and then no more", () => {
    const poller = new DrainPoller();
    const queue = new Queue();
    poller.watch(queue);
    jest.advanceTimersByTime(50);
    expect(queue.lookedAt.length).toBeGreaterThan(3);
    queue.long = false;
    jest.advanceTimersByTime(16);
    const looks = queue.lookedAt.length;
    jest.advanceTimersByTime(10_000);
    expect(queue.lookedAt.length).toBe(looks);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("looks after 1 ms first, then more and more slowly, but at least every 16 ms", () => {
    const poller = new DrainPoller();
    const queue = new Queue();
    const start = performance.now();
    poller.watch(queue);
    jest.advanceTimersByTime(200);
    expect(gaps([start, ...queue.lookedAt]).slice(0, 8)).toEqual([1, 2, 4, 8, 16, 16, 16, 16]);
  });

  test("is quick again when something has moved", () => {
    const poller = new DrainPoller();
    const [moving, stuck] = [new Queue(), new Queue()];
    poller.watch(moving);
    poller.watch(stuck);
    jest.advanceTimersByTime(100);
    moving.long = false;
    jest.advanceTimersByTime(16);
    const looks = stuck.lookedAt.length;
    jest.advanceTimersByTime(3);
    expect(stuck.lookedAt.length).toBeGreaterThanOrEqual(looks + 1);
    expect(moving.lookedAt.at(-1)).toBeLessThanOrEqual(stuck.lookedAt.at(-1) ?? 0);
  });

  test("no longer looks at what it should forget", () => {
    const poller = new DrainPoller();
    const [one, other] = [new Queue(), new Queue()];
    poller.watch(one);
    poller.watch(other);
    poller.forget(one);
    jest.advanceTimersByTime(100);
    expect(one.lookedAt).toEqual([]);
    expect(other.lookedAt.length).toBeGreaterThan(0);
  });

  test("begins again for a queue that has become long again", () => {
    const poller = new DrainPoller();
    const queue = new Queue();
    queue.long = false;
    poller.watch(queue);
    jest.advanceTimersByTime(100);
    expect(queue.lookedAt.length).toBe(1);
    poller.watch(queue);
    jest.advanceTimersByTime(100);
    expect(queue.lookedAt.length).toBe(2);
  });

  test("goes on looking at a queue that becomes long again while it is looked at", () => {
    const poller = new DrainPoller();
    let looks = 0;
    const queue: Drainable = {
      checkDrained() {
        looks += 1;
        if (looks === 1) poller.watch(queue);
        return true;
      },
    };
    poller.watch(queue);
    jest.advanceTimersByTime(100);
    expect(looks).toBe(2);
  });
});
