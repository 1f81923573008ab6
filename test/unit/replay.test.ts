import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Replay, ReplayBudget } from "../../src/proxy/replay.ts";

const KIB = 1_024;
const MOST_BYTES = 768 * KIB;

describe("ReplayBudget", () => {
  test("gives what is left, or nothing", () => {
    const budget = new ReplayBudget(100);
    expect([budget.take(60), budget.take(41), budget.take(40), budget.take(1)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
    budget.give(1);
    expect([budget.take(1), budget.take(1)]).toEqual([true, false]);
  });

  test("has 32 MiB unless told otherwise", () => {
    const budget = new ReplayBudget();
    expect([budget.take(32 * KIB * KIB + 1), budget.take(32 * KIB * KIB)]).toEqual([false, true]);
  });
});

describe("Replay", () => {
  test("is empty until something comes", () => {
    const replay = new Replay(new ReplayBudget());
    expect([replay.empty, replay.overflowed, replay.bytes.length]).toEqual([true, false, 0]);
    replay.add(Uint8Array.of(1));
    expect([replay.empty, replay.overflowed, replay.bytes.length]).toEqual([false, false, 1]);
  });

  test("copies what it is given", () => {
    const replay = new Replay(new ReplayBudget());
    const piece = Uint8Array.of(1, 2);
    replay.add(piece);
    piece.fill(9);
    expect([...replay.bytes]).toEqual([1, 2]);
  });

  test.each([
    { bytes: 1, takes: 4 * KIB },
    { bytes: 4 * KIB + 1, takes: 8 * KIB },
    { bytes: 600 * KIB, takes: MOST_BYTES },
  ])("takes $takes of the budget for $bytes bytes", ({ bytes, takes }) => {
    for (const [budget, overflowed] of [
      [takes, false],
      [takes - 1, true],
    ] as const) {
      const replay = new Replay(new ReplayBudget(budget));
      replay.add(new Uint8Array(bytes));
      expect(replay.overflowed).toBe(overflowed);
    }
  });

  test("keeps 768 KiB, and nothing more once there was more", () => {
    const replay = new Replay(new ReplayBudget());
    replay.add(new Uint8Array(MOST_BYTES - 1).fill(1));
    replay.add(Uint8Array.of(2));
    expect([replay.overflowed, replay.bytes.length]).toEqual([false, MOST_BYTES]);
    replay.add(Uint8Array.of(3));
    expect([replay.overflowed, replay.bytes.length, replay.bytes.at(-1)]).toEqual([true, MOST_BYTES, 2]);
  });

  test("keeps nothing of what comes after a piece that did not fit", () => {
    const replay = new Replay(new ReplayBudget());
    replay.add(new Uint8Array(MOST_BYTES + 1));
    replay.add(Uint8Array.of(1));
    expect([replay.overflowed, replay.empty, replay.bytes.length]).toEqual([true, false, 0]);
  });

  test("gives everything back when it is cleared, and once only", () => {
    const budget = new ReplayBudget(MOST_BYTES);
    const replay = new Replay(budget);
    for (let kib = 0; kib < 700; kib += 1) replay.add(new Uint8Array(KIB));
    expect(budget.take(1)).toBe(false);
    replay.clear();
    replay.clear();
    expect(replay.bytes).toHaveLength(0);
    expect([budget.take(MOST_BYTES + 1), budget.take(MOST_BYTES)]).toEqual([false, true]);
  });

  test("has what was added, in order, however it was cut, and never takes more than the budget", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 9 * KIB }), { maxLength: 30 }),
        fc.integer({ min: 0, max: 64 * KIB }),
        (pieces, bytes) => {
          const budget = new ReplayBudget(bytes);
          const replay = new Replay(budget);
          const kept: Uint8Array[] = [];
          for (const piece of pieces) {
            replay.add(piece);
            if (!replay.overflowed) kept.push(piece);
          }
          expect(Buffer.concat(kept).equals(replay.bytes)).toBe(true);
          expect(replay.bytes.length).toBeLessThanOrEqual(bytes);
          replay.clear();
          expect(budget.take(bytes)).toBe(true);
        },
      ),
    );
  });
});
