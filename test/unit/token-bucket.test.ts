import { describe, expect, test } from "bun:test";
import { TokenBucket } from "../../src/proxy/token-bucket.ts";
import { ManualClock } from "../support/manual-clock.ts";

const KB = 1_000;

describe("TokenBucket", () => {
  test("lets a tenth of a second's bytes pass at once, and no more until there are some again", () => {
    const clock = new ManualClock();
    const bucket = new TokenBucket(1_000 * KB, clock);
    expect(bucket.take(500 * KB)).toBe(100 * KB);
    expect(bucket.empty).toBe(true);
    expect(bucket.take(1)).toBe(0);
    clock.pass(20);
    expect(bucket.take(500 * KB)).toBe(20 * KB);
    clock.pass(60_000);
    expect(bucket.take(500 * KB)).toBe(100 * KB);
  });

  test("gives no less than it was asked for, or than a turn's bytes", () => {
    const clock = new ManualClock();
    const bucket = new TokenBucket(1_000 * KB, clock);
    bucket.take(100 * KB);
    clock.pass(10);
    expect(bucket.take(500 * KB)).toBe(0);
    expect(bucket.take(4 * KB)).toBe(4 * KB);
    clock.pass(14);
    expect(bucket.take(500 * KB)).toBe(20 * KB);
  });

  test("owes what was spent beyond it", () => {
    const clock = new ManualClock();
    const bucket = new TokenBucket(100 * KB, clock);
    bucket.spend(60 * KB);
    clock.pass(499);
    expect(bucket.empty).toBe(true);
    clock.pass(2);
    expect(bucket.empty).toBe(false);
  });

  test("takes back what was not used", () => {
    const bucket = new TokenBucket(100 * KB, new ManualClock());
    expect(bucket.take(10 * KB)).toBe(10 * KB);
    bucket.spend(-4 * KB);
    expect(bucket.take(10 * KB)).toBe(4 * KB);
  });

  test("serves those who wait in their order, and nobody else meanwhile", () => {
    const clock = new ManualClock();
    const bucket = new TokenBucket(100 * KB, clock);
    bucket.spend(10 * KB);
    const turns: string[] = [];
    const come = (name: string): void => {
      bucket.whenReady(() => {
        turns.push(name);
        while (!bucket.empty) bucket.spend(KB);
        if (turns.length < 9) come(name);
      });
    };
    for (const name of ["a", "b", "c"]) come(name);
    clock.pass(10);
    expect(bucket.empty).toBe(true);
    clock.pass(1_000);
    expect(turns.join("")).toBe("abcabcabcab".slice(0, turns.length));
    expect(turns.length).toBeGreaterThanOrEqual(9);
  });

  test("lends no turn to one who has taken it back, and leaves no timer", () => {
    const clock = new ManualClock();
    const bucket = new TokenBucket(100 * KB, clock);
    bucket.spend(10 * KB);
    let turns = 0;
    const takeBack = bucket.whenReady(() => {
      turns += 1;
    });
    takeBack();
    expect(clock.pending).toBe(0);
    clock.pass(1_000);
    expect(turns).toBe(0);
  });

  test("is true to its rate however it is asked", () => {
    for (const rate of [8 * KB, 64 * KB, 1_000 * KB, 50_000 * KB]) {
      const clock = new ManualClock();
      const bucket = new TokenBucket(rate, clock);
      let moved = 0;
      const come = (): void => {
        bucket.whenReady(() => {
          while (!bucket.empty) {
            bucket.spend(4_096);
            moved += 4_096;
          }
          come();
        });
      };
      come();
      clock.pass(10_000);
      expect(moved / 10 / rate).toBeGreaterThan(0.97);
      expect(moved / 10 / rate).toBeLessThan(1.02 + 8_192 / rate / 10);
    }
  });

  test("follows another rate at once", () => {
    const clock = new ManualClock();
    const bucket = new TokenBucket(10 * KB, clock);
    bucket.spend(1_000 * KB);
    let ready = false;
    bucket.whenReady(() => {
      ready = true;
    });
    bucket.rate = 10_000 * KB;
    clock.pass(150);
    expect(ready).toBe(true);
  });
});
