import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { type NetworkChange, type NetworkSenses, NetworkWatch } from "../../src/net/network-watch.ts";

const LOOK_MS = 4_000;
const SLEEP_MS = 8_000;

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** A watch whose senses the test has in its hands. */
class Fixture {
  wall = 1_800_000_000_000;
  steady = 50_000;
  addresses: string[] = ["192.0.2.1", "2001:db8::1"];
  /** Looks at the clocks so far, by the addresses that were asked for. */
  looks = -1;
  readonly changes: NetworkChange[] = [];
  readonly watch: NetworkWatch;

  constructor() {
    const senses: NetworkSenses = {
      wallClock: () => this.wall,
      steadyClock: () => this.steady,
      addresses: () => {
        this.looks += 1;
        return this.addresses;
      },
    };
    this.watch = new NetworkWatch((change) => this.changes.push(change), senses);
  }

  /** Passes the time between two looks, by each clock, and lets the watch look. */
  look({ wall = LOOK_MS, steady = LOOK_MS } = {}): void {
    this.wall += wall;
    this.steady += steady;
    jest.advanceTimersByTime(LOOK_MS);
  }
}

describe("NetworkWatch", () => {
  test("says nothing while nothing changes, and looks every four seconds", () => {
    const fixture = new Fixture();
    for (let look = 0; look < 10; look += 1) fixture.look();
    expect(fixture.looks).toBe(10);
    jest.advanceTimersByTime(LOOK_MS - 1);
    expect(fixture.looks).toBe(10);
    expect(fixture.changes).toEqual([]);
    fixture.watch.stop();
  });

  test("notices sleep by the wall clock, where the steady one stands still meanwhile", () => {
    const fixture = new Fixture();
    fixture.look({ wall: LOOK_MS + 3_600_000 });
    expect(fixture.changes).toEqual([{ sleptMs: 3_600_000, added: [], removed: [] }]);
    fixture.watch.stop();
  });

  test("notices sleep by the steady clock, although the wall clock was set back", () => {
    const fixture = new Fixture();
    fixture.look({ wall: -3_600_000, steady: LOOK_MS + 60_000 });
    expect(fixture.changes).toEqual([{ sleptMs: 60_000, added: [], removed: [] }]);
    fixture.watch.stop();
  });

  test("tells it once, and notices the next time", () => {
    const fixture = new Fixture();
    fixture.look({ wall: LOOK_MS + 60_000 });
    fixture.look();
    fixture.look();
    expect(fixture.changes).toHaveLength(1);
    fixture.look({ wall: LOOK_MS + 30_000 });
    expect(fixture.changes.map(({ sleptMs }) => sleptMs)).toEqual([60_000, 30_000]);
    fixture.watch.stop();
  });

  test.each([
    [
      "a look that is late by less than eight seconds",
      { wall: LOOK_MS + SLEEP_MS - 1, steady: LOOK_MS + 5_000 },
      [],
    ],
    ["a look that is late by eight seconds", { wall: LOOK_MS + SLEEP_MS }, [SLEEP_MS]],
    ["a look that is early", { wall: 1, steady: 1 }, []],
    ["a wall clock that was set back", { wall: -86_400_000 }, []],
  ])("handles %s", (_, passed, slept) => {
    const fixture = new Fixture();
    fixture.look(passed);
    expect(fixture.changes.map(({ sleptMs }) => sleptMs)).toEqual(slept);
    fixture.watch.stop();
  });

  test("does not add the lateness of several looks up", () => {
    const fixture = new Fixture();
    for (let look = 0; look < 10; look += 1) fixture.look({ wall: LOOK_MS + 5_000, steady: LOOK_MS + 5_000 });
    expect(fixture.changes).toEqual([]);
    fixture.watch.stop();
  });

  test("tells which addresses are new, and which are gone", () => {
    const fixture = new Fixture();
    fixture.addresses = ["2001:db8::1", "198.51.100.7", "198.51.100.8"];
    fixture.look();
    fixture.look();
    fixture.addresses = [];
    fixture.look();
    fixture.addresses = ["192.0.2.1"];
    fixture.look();
    expect(fixture.changes).toEqual([
      { sleptMs: 0, added: ["198.51.100.7", "198.51.100.8"], removed: ["192.0.2.1"] },
      { sleptMs: 0, added: [], removed: ["2001:db8::1", "198.51.100.7", "198.51.100.8"] },
      { sleptMs: 0, added: ["192.0.2.1"], removed: [] },
    ]);
    fixture.watch.stop();
  });

  test("takes neither another order nor an address that comes twice for a change", () => {
    const fixture = new Fixture();
    fixture.addresses = ["2001:db8::1", "192.0.2.1", "2001:db8::1"];
    fixture.look();
    expect(fixture.changes).toEqual([]);
    fixture.watch.stop();
  });

  test("tells sleep and another network as one change", () => {
    const fixture = new Fixture();
    fixture.addresses = ["192.0.2.2"];
    fixture.look({ wall: LOOK_MS + 60_000 });
    expect(fixture.changes).toEqual([
      { sleptMs: 60_000, added: ["192.0.2.2"], removed: ["192.0.2.1", "2001:db8::1"] },
    ]);
    fixture.watch.stop();
  });

  test("takes it for no change when the addresses cannot be read", () => {
    const fixture = new Fixture();
    const { addresses } = fixture;
    Object.defineProperty(fixture, "addresses", {
      configurable: true,
      get: () => {
        throw new Error("getifaddrs returned an error");
      },
    });
    fixture.look();
    Object.defineProperty(fixture, "addresses", { value: addresses });
    fixture.look();
    expect(fixture.changes).toEqual([]);
    fixture.watch.stop();
  });

  test("looks no more after stop", () => {
    const fixture = new Fixture();
    fixture.watch.stop();
    fixture.addresses = [];
    fixture.look({ wall: 3_600_000 });
    expect(fixture.looks).toBe(0);
    expect(fixture.changes).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("has senses of its own, which see no change on a quiet machine", () => {
    const changes: NetworkChange[] = [];
    const watch = new NetworkWatch((change) => changes.push(change));
    jest.advanceTimersByTime(LOOK_MS);
    watch.stop();
    expect(changes).toEqual([]);
  });
});
