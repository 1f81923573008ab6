import { describe, expect, test } from "bun:test";
import { unlimitedUser } from "../../src/core/users.ts";
import { LeasedBucket } from "../../src/proxy/leased-bucket.ts";
import { LocalGate, NO_LIMITS } from "../../src/proxy/local-gate.ts";
import { ManualClock } from "../support/manual-clock.ts";

const SLICE = 4_096;

/** Somebody who always has more to move through a bucket. */
function pour(bucket: LeasedBucket): { moved: number } {
  const flow = { moved: 0 };
  const come = (): void => {
    bucket.whenReady(() => {
      while (!bucket.empty) {
        bucket.spend(SLICE);
        flow.moved += SLICE;
      }
      come();
    });
  };
  come();
  return flow;
}

describe("LeasedBucket", () => {
  test("asks once, when somebody waits, and passes on what it was granted", () => {
    const asked: number[] = [];
    const bucket = new LeasedBucket((most) => asked.push(most));
    expect([bucket.empty, asked.length]).toEqual([true, 0]);
    const one = pour(bucket);
    const other = pour(bucket);
    expect(asked).toHaveLength(1);
    bucket.grant(SLICE);
    expect([one.moved, other.moved, asked.length]).toEqual([SLICE, 0, 2]);
    bucket.grant(SLICE);
    expect([one.moved, other.moved, asked.length]).toEqual([SLICE, SLICE, 3]);
  });

  test("asks for what it owes besides, and serves nobody before that is paid", () => {
    const asked: number[] = [];
    const bucket = new LeasedBucket((most) => asked.push(most));
    bucket.spend(10_000);
    let turns = 0;
    bucket.whenReady(() => {
      turns += 1;
    });
    expect(asked).toEqual([256 * 1024 + 10_000]);
    bucket.grant(10_000);
    expect(turns).toBe(0);
    bucket.grant(1);
    expect(turns).toBe(1);
  });

  test("gives a turn at once where something is left", async () => {
    const bucket = new LeasedBucket(() => {});
    bucket.grant(100);
    expect(bucket.empty).toBe(false);
    let turns = 0;
    const takeBack = bucket.whenReady(() => {
      turns += 10;
    });
    takeBack();
    bucket.whenReady(() => {
      turns += 1;
    });
    await Promise.resolve();
    expect(turns).toBe(1);
  });

  test("two of them share a user's rate, true to it", () => {
    const clock = new ManualClock();
    const gate = new LocalGate({ onRevoked: () => {}, now: clock.now, clock });
    const user = { ...unlimitedUser("slow", new Uint8Array(16)), rateBytes: 1_000_000 };
    gate.configure({ users: [user], limits: NO_LIMITS });
    const workers = [0, 1].map(() => {
      const bucket: LeasedBucket = new LeasedBucket((most) => {
        clock.after(1, () => {
          const lent = gate.lease("slow", most);
          if (lent > 0) bucket.grant(lent);
          else gate.whenLendable("slow", () => bucket.grant(gate.lease("slow", most)));
        });
      });
      return pour(bucket);
    });
    clock.pass(10_000);
    const [one = 0, other = 0] = workers.map(({ moved }) => moved / 10 / 1_000_000);
    expect(one + other).toBeGreaterThan(0.97);
    expect(one + other).toBeLessThan(1.03);
    expect(one / other).toBeGreaterThan(0.8);
    expect(one / other).toBeLessThan(1.25);
  });
});
