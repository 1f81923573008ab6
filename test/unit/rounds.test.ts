import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { Rounds } from "../../src/net/rounds.ts";

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** What was looked at, and when, in milliseconds since it was made. */
class Record {
  readonly looks: string[] = [];
  readonly #from = performance.now();

  of(name: string): () => void {
    return () => this.looks.push(`${name} ${performance.now() - this.#from}`);
  }
}

describe("Rounds", () => {
  test("does what is due at the same moments with one timer, whenever it was begun", () => {
    const rounds = new Rounds();
    const record = new Record();
    rounds.every(1_000, record.of("second"));
    jest.advanceTimersByTime(300);
    rounds.every(500, record.of("half"));
    rounds.every(2_500, record.of("long"));
    expect(jest.getTimerCount()).toBe(1);
    jest.advanceTimersByTime(2_200);
    expect(record.looks).toEqual([
      "half 500",
      "second 1000",
      "half 1000",
      "half 1500",
      "second 2000",
      "half 2000",
      "half 2500",
      "long 2500",
    ]);
    expect(jest.getTimerCount()).toBe(1);
  });

  test("does not wake up when nothing is due", () => {
    const rounds = new Rounds();
    const record = new Record();
    rounds.every(4_000, record.of("rare"));
    const wakes = jest.spyOn(globalThis, "setTimeout");
    jest.advanceTimersByTime(12_000);
    expect(record.looks).toEqual(["rare 4000", "rare 8000", "rare 12000"]);
    expect(wakes).toHaveBeenCalledTimes(3);
    wakes.mockRestore();
  });

  test("takes another pace, also while it looks", () => {
    const rounds = new Rounds();
    const record = new Record();
    const looks = record.looks;
    const round = rounds.every(1_000, () => {
      record.of("look")();
      round.pace(looks.length < 2 || looks.length > 4 ? 1_000 : 100);
    });
    jest.advanceTimersByTime(4_000);
    expect(looks).toEqual([
      "look 1000",
      "look 2000",
      "look 2100",
      "look 2200",
      "look 2300",
      "look 3000",
      "look 4000",
    ]);
    round.pace(250);
    jest.advanceTimersByTime(250);
    expect(looks.at(-1)).toBe("look 4250");
  });

  test("leaves no timer when all have stopped, and stays stopped", () => {
    const rounds = new Rounds();
    const record = new Record();
    const own = rounds.every(500, () => {
      record.of("own")();
      own.stop();
    });
    const other = rounds.every(1_000, record.of("other"));
    jest.advanceTimersByTime(1_000);
    own.pace(100);
    other.stop();
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(5_000);
    expect(record.looks).toEqual(["own 500", "other 1000"]);
    rounds.every(1_000, record.of("again"));
    jest.advanceTimersByTime(1_000);
    expect(record.looks.at(-1)).toBe("again 7000");
  });

  test("says what was missed once, after a sleep", () => {
    const rounds = new Rounds();
    let looks = 0;
    rounds.every(1_000, () => {
      looks += 1;
    });
    const now = jest.spyOn(performance, "now").mockReturnValue(performance.now() + 3_600_000);
    jest.advanceTimersByTime(1_000);
    expect(looks).toBe(1);
    now.mockRestore();
  });
});
