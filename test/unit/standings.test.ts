import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ROUTE_ERROR_CODES, type RouteErrorCode } from "../../src/core/errors.ts";
import type { RouteId, Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const START = 1_800_000_000_000;
const DC2 = "DC 2";
const DC4 = "DC 4 media";
const DC5 = "DC 5";

/** In a group of its own, unless given. */
const newWay = (endpoint: string, route: RouteId = "direct-ws", group = endpoint): Way => ({
  route,
  endpoint,
  group,
  address: { host: endpoint, port: 443, webSocket: undefined },
  open: () => Promise.reject(new Error("nobody opens it here")),
});

const namesOf = (ways: readonly Way[]): string[] => ways.map(({ endpoint }) => endpoint);

/** Standings with a clock that the test sets. */
class Clocked {
  now = START;
  readonly standings = new Standings(() => this.now);

  pass(ms: number): void {
    this.now += ms;
  }

  cools(target: string, way: Way): boolean {
    return this.standings.failureOf(target, way)?.cooling === true;
  }

  /** Whether `way` cools for exactly `ms` from now; the clock stands at the end of it then. */
  coolsFor(target: string, way: Way, ms: number): boolean {
    this.pass(ms - 1);
    const before = this.cools(target, way);
    this.pass(1);
    return before && !this.cools(target, way);
  }
}

/** Each code with its first and its longest time. */
const COOLDOWNS: readonly [RouteErrorCode, number, number][] = [
  ["REDIRECT", 10 * MINUTE, HOUR],
  ["STATUS", MINUTE, 30 * MINUTE],
  ["PROTOCOL", MINUTE, 30 * MINUTE],
  ["TLS", MINUTE, 30 * MINUTE],
  ["REFUSED", 30 * SECOND, 10 * MINUTE],
  ["UNREACHABLE", 10 * SECOND, 5 * MINUTE],
  ["TIMEOUT", 30 * SECOND, 10 * MINUTE],
  ["DNS", 10 * SECOND, 5 * MINUTE],
  ["CLOSED", 30 * SECOND, 10 * MINUTE],
  ["PROXY", 10 * SECOND, MINUTE],
  ["SILENT", MINUTE, 30 * MINUTE],
  ["STALLED", MINUTE, 2 * HOUR],
  ["UNKNOWN", 30 * SECOND, 10 * MINUTE],
];

describe("Standings.order()", () => {
  test("leaves ways that nothing is known of as they are", () => {
    const ways = ["c", "a", "b"].map((name) => newWay(name));
    const ordered = new Standings().order(DC2, ways);
    expect(ordered).toEqual(ways);
    expect(ordered).not.toBe(ways);
    expect(new Standings().order(DC2, [])).toEqual([]);
  });

  test("puts good ways first, then untried ones, then those that failed, then those that cool", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const [cooling, failed, untried, good] = ["cooling", "failed", "untried", "good"].map((name) =>
      newWay(name),
    ) as [Way, Way, Way, Way];
    standings.proved(DC2, good);
    standings.failedToOpen(failed, "TIMEOUT");
    clocked.pass(30 * SECOND);
    standings.failedToOpen(cooling, "TIMEOUT");
    expect(namesOf(standings.order(DC2, [cooling, failed, untried, good]))).toEqual([
      "good",
      "untried",
      "failed",
      "cooling",
    ]);
  });

  test("puts of those that cool first the one whose time is over first", () => {
    const { standings } = new Clocked();
    const ways = ["long", "short", "middle"].map((name) => newWay(name)) as [Way, Way, Way];
    standings.failedToOpen(ways[0], "REDIRECT");
    standings.failedToOpen(ways[1], "DNS");
    standings.failedToOpen(ways[2], "TLS");
    expect(namesOf(standings.order(DC2, ways))).toEqual(["short", "middle", "long"]);
  });

  test("keeps the order within each class", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const ways = ["f1", "g1", "u1", "c1", "f2", "g2", "u2", "c2"].map((name) => newWay(name));
    const each = (letter: string, work: (way: Way) => void): void =>
      ways.filter(({ endpoint }) => endpoint.startsWith(letter)).forEach(work);
    // The later of two is better by every other measure: by its last win, and by when it failed.
    each("f", (way) => {
      standings.failedToOpen(way, way.endpoint === "f1" ? "TIMEOUT" : "DNS");
    });
    clocked.pass(MINUTE);
    each("g", (way) => {
      clocked.pass(SECOND);
      standings.opened(DC2, way, way.endpoint === "g1" ? 900 : 10);
      standings.proved(DC2, way);
    });
    each("c", (way) => standings.failedToOpen(way, "TIMEOUT"));
    expect(namesOf(standings.order(DC2, ways))).toEqual(["g1", "g2", "u1", "u2", "f1", "f2", "c1", "c2"]);
  });

  test("takes eight ways of a route, and those are the best of it", () => {
    const { standings } = new Clocked();
    const domains = Array.from({ length: 12 }, (_, number) => newWay(`cf${number}`, "cf-domain"));
    const other = newWay("tcp", "direct-tcp");
    standings.proved(DC2, domains[11] as Way);
    standings.failedToOpen(domains[0] as Way, "DNS");
    expect(namesOf(standings.order(DC2, [...domains, other]))).toEqual([
      "cf11",
      "cf1",
      "cf2",
      "cf3",
      "cf4",
      "cf5",
      "cf6",
      "cf7",
      "tcp",
    ]);
  });

  test("tells equal endpoints of two routes apart", () => {
    const { standings } = new Clocked();
    const [direct, fronted] = [newWay("one"), newWay("one", "fronted-ws")];
    standings.failedToOpen(direct, "TIMEOUT");
    expect(standings.order(DC2, [direct, fronted])).toEqual([fronted, direct]);
  });
});

describe("Standings, cooling", () => {
  test("has a time for every code but ABORTED and LOCAL", () => {
    const known = COOLDOWNS.map(([code]) => code);
    expect(ROUTE_ERROR_CODES.filter((code) => !known.includes(code))).toEqual(["ABORTED", "LOCAL"]);
  });

  test.each(COOLDOWNS)("cools after %s for %d ms at first", (code, first) => {
    for (const report of ["failedToOpen", "failedToCarry"] as const) {
      const clocked = new Clocked();
      const one = newWay("one");
      if (report === "failedToOpen") clocked.standings.failedToOpen(one, code);
      else clocked.standings.failedToCarry(DC2, one, code);
      expect(clocked.standings.failureOf(DC2, one)).toEqual({ code, cooling: true });
      expect(clocked.coolsFor(DC2, one, first)).toBe(true);
      expect(clocked.standings.failureOf(DC2, one)).toEqual({ code, cooling: false });
    }
  });

  test.each(COOLDOWNS)(
    "doubles the time of %s (at first %d ms) with each strike, up to %d ms",
    (code, first, most) => {
      const clocked = new Clocked();
      const one = newWay("one");
      for (let expected = first, strikes = 0; strikes < 20; strikes += 1) {
        clocked.standings.failedToOpen(one, code);
        expect(clocked.coolsFor(DC2, one, expected)).toBe(true);
        expected = Math.min(2 * expected, most);
      }
    },
  );

  test("takes what fails while it cools for the same strike, which only begins anew", () => {
    const clocked = new Clocked();
    const one = newWay("one");
    for (let session = 0; session < 10; session += 1) {
      clocked.standings.failedToOpen(one, "TIMEOUT");
      clocked.pass(29 * SECOND);
    }
    clocked.pass(-29 * SECOND);
    expect(clocked.coolsFor(DC2, one, 30 * SECOND)).toBe(true);
    clocked.standings.failedToOpen(one, "TIMEOUT");
    expect(clocked.coolsFor(DC2, one, MINUTE)).toBe(true);
  });

  test.each([
    ["REDIRECT", "TIMEOUT"],
    ["TIMEOUT", "REDIRECT"],
  ] as const)("keeps the longer of two times when %s is followed by %s", (first, second) => {
    const clocked = new Clocked();
    const one = newWay("one");
    clocked.standings.failedToOpen(one, first);
    clocked.standings.failedToOpen(one, second);
    expect(clocked.standings.failureOf(DC2, one)?.code).toBe("REDIRECT");
    expect(clocked.coolsFor(DC2, one, 10 * MINUTE)).toBe(true);
  });

  test("takes no notice of what the caller gave up", () => {
    const { standings } = new Clocked();
    const [one, two] = [newWay("one"), newWay("two")];
    standings.failedToOpen(one, "ABORTED");
    standings.failedToCarry(DC2, one, "ABORTED");
    expect(standings.failureOf(DC2, one)).toBeUndefined();
    expect(standings.changed).toBe(false);
    standings.failedToOpen(two, "REDIRECT");
    standings.failedToOpen(two, "ABORTED");
    expect(standings.failureOf(DC2, two)).toEqual({ code: "REDIRECT", cooling: true });
  });

  test("ends a wait that a clock has made longer than any, and counts the next failure as one more", () => {
    const clocked = new Clocked();
    const one = newWay("one");
    clocked.standings.failedToOpen(one, "TIMEOUT");
    clocked.pass(-3 * HOUR);
    expect(clocked.cools(DC2, one)).toBe(false);
    expect(clocked.standings.report(DC2, [one])[0]).toMatchObject({ state: "failed", again: 0 });
    clocked.standings.failedToOpen(one, "TIMEOUT");
    expect(clocked.coolsFor(DC2, one, MINUTE)).toBe(true);
  });

  test("has a clock of its own", () => {
    const standings = new Standings();
    const one = newWay("one");
    standings.failedToOpen(one, "TIMEOUT");
    expect(standings.failureOf(DC2, one)?.cooling).toBe(true);
    standings.proved(DC2, one);
    const [report] = standings.report(DC2, [one]);
    expect(Math.abs((report?.wonAt ?? 0) - Date.now())).toBeLessThan(MINUTE);
  });
});

describe("Standings, endpoints and targets", () => {
  test("holds what does not open against all targets, as a Worker's 429", () => {
    const { standings } = new Clocked();
    const worker = newWay("worker.example", "cf-worker");
    standings.failedToOpen(worker, "STATUS");
    for (const target of [DC2, DC4]) expect(standings.failureOf(target, worker)?.code).toBe("STATUS");
  });

  test("holds what carries nothing against its target only", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.proved(DC2, one);
    standings.failedToCarry(DC4, one, "SILENT");
    expect(standings.failureOf(DC4, one)).toEqual({ code: "SILENT", cooling: true });
    expect(standings.failureOf(DC2, one)).toBeUndefined();
    expect([standings.good(DC2, one), standings.good(DC4, one)]).toEqual([true, false]);
  });

  test.each([
    ["TIMEOUT", "STALLED", "STALLED", MINUTE],
    ["REDIRECT", "SILENT", "REDIRECT", 10 * MINUTE],
  ] as const)(
    "waits for the longer of both: %s of the endpoint, %s for the target",
    (open, carry, code, ms) => {
      const clocked = new Clocked();
      const one = newWay("one");
      clocked.standings.failedToOpen(one, open);
      clocked.standings.failedToCarry(DC2, one, carry);
      expect(clocked.standings.failureOf(DC2, one)?.code).toBe(code);
      expect(clocked.coolsFor(DC2, one, ms)).toBe(true);
    },
  );

  test("counts strikes of the endpoint and of the target apart", () => {
    const clocked = new Clocked();
    const one = newWay("one");
    clocked.standings.failedToOpen(one, "CLOSED");
    clocked.pass(30 * SECOND);
    clocked.standings.failedToCarry(DC2, one, "CLOSED");
    expect(clocked.coolsFor(DC2, one, 30 * SECOND)).toBe(true);
  });

  test("is good only when it has carried data, not when it has only opened", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    expect(standings.good(DC2, one)).toBe(false);
    standings.opened(DC2, one, 100);
    expect(standings.good(DC2, one)).toBe(false);
    standings.proved(DC2, one);
    expect(standings.good(DC2, one)).toBe(true);
  });
});

describe("Standings, groups", () => {
  const [one, beside, elsewhere] = [
    newWay("kws2", "direct-ws", "direct"),
    newWay("kws2-1", "direct-ws", "direct"),
    newWay("worker", "cf-worker", "direct"),
  ];
  const ways = [one, beside, elsewhere];

  test("put the ways beside one that carried nothing after all others, but before the ones that failed", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    standings.failedToOpen(elsewhere, "DNS");
    clocked.pass(HOUR);
    standings.failedToCarry(DC2, one, "SILENT");
    expect(namesOf(standings.order(DC2, ways))).toEqual(["worker", "kws2-1", "kws2"]);
    expect(namesOf(standings.order(DC4, ways))).toEqual(["kws2", "kws2-1", "worker"]);
    standings.failedToOpen(elsewhere, "DNS");
    expect(namesOf(standings.order(DC2, ways))).toEqual(["kws2-1", "worker", "kws2"]);
  });

  test("hold what carried nothing against the ways beside it for as long, and no longer than that", () => {
    const clocked = new Clocked();
    clocked.standings.failedToCarry(DC2, one, "STALLED");
    expect(clocked.standings.failureOf(DC2, beside)).toEqual({ code: "STALLED", cooling: true });
    expect(clocked.standings.failureOf(DC4, beside)).toBeUndefined();
    expect(clocked.standings.failureOf(DC2, elsewhere)).toBeUndefined();
    expect(clocked.standings.report(DC2, [beside])[0]).toMatchObject({
      state: "failed",
      reason: "STALLED",
      again: MINUTE,
    });
    expect(clocked.coolsFor(DC2, beside, MINUTE)).toBe(true);
  });

  test("do not share what does not open", () => {
    const { standings } = new Clocked();
    standings.failedToOpen(one, "REDIRECT");
    expect(standings.failureOf(DC2, beside)).toBeUndefined();
    expect(namesOf(standings.order(DC2, ways))).toEqual(["kws2-1", "worker", "kws2"]);
  });

  test("are good again with the first of their ways that carries data, but for the one that failed", () => {
    const { standings } = new Clocked();
    const third = newWay("kws2-2", "direct-ws", "direct");
    standings.failedToCarry(DC2, one, "SILENT");
    standings.failedToCarry(DC4, one, "SILENT");
    standings.proved(DC2, beside);
    expect(standings.failureOf(DC2, third)).toBeUndefined();
    expect(standings.failureOf(DC2, one)?.cooling).toBe(true);
    expect(standings.failureOf(DC4, beside)?.cooling).toBe(true);
    expect(standings.order(DC2, [one, third, beside])).toEqual([beside, third, one]);
  });

  test("are forgiven and kept with everything else", () => {
    const before = new Clocked();
    before.standings.failedToCarry(DC2, one, "SILENT");
    const after = new Clocked();
    after.standings.load(before.standings.save());
    expect(after.standings.failureOf(DC2, beside)).toEqual({ code: "SILENT", cooling: true });
    after.standings.forgive();
    expect(after.standings.failureOf(DC2, beside)).toBeUndefined();
  });

  // A background probe that finds the neighbour still silent must not send clients away from a way that works.
  test("leave a way good that carried data after its neighbour had failed, when that fails again", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    standings.failedToCarry(DC2, one, "SILENT");
    standings.proved(DC2, beside);
    clocked.pass(MINUTE);
    standings.failedToCarry(DC2, one, "SILENT");
    expect(standings.good(DC2, beside)).toBe(true);
  });

  test.each([
    ["less than ten minutes ago", 10 * MINUTE - 1, true],
    ["ten minutes ago", 10 * MINUTE, false],
  ])("judge a failure by a neighbour that carried data %s", (_, ms, good) => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const third = newWay("kws2-2", "direct-ws", "direct");
    standings.proved(DC2, beside);
    clocked.pass(ms);
    standings.failedToCarry(DC2, one, "SILENT");
    expect(standings.failureOf(DC2, one)?.cooling).toBe(true);
    expect(standings.good(DC2, beside)).toBe(good);
    expect(standings.failureOf(DC2, third)?.cooling).toBe(good ? undefined : true);
  });

  test("do not judge by themselves, by others that failed, nor by what carries for another target", () => {
    const { standings } = new Clocked();
    const third = newWay("kws2-2", "direct-ws", "direct");
    standings.proved(DC2, one); // the one that fails now
    standings.proved(DC2, beside);
    standings.failedToCarry(DC2, beside, "CLOSED"); // saved by `one`
    expect(standings.failureOf(DC2, third)).toBeUndefined();
    standings.proved(DC4, third);
    standings.proved(DC2, elsewhere); // a group of another route, with the same name
    standings.failedToCarry(DC2, one, "SILENT");
    expect(standings.failureOf(DC2, third)).toEqual({ code: "SILENT", cooling: true });
  });

  test("are known again after a restart", () => {
    const before = new Clocked();
    before.standings.proved(DC2, beside);
    const after = new Clocked();
    after.standings.load(before.standings.save());
    after.standings.failedToCarry(DC2, one, "SILENT");
    expect(after.standings.good(DC2, beside)).toBe(true);
  });
});

describe("Standings.best()", () => {
  test("is the good way that order puts first, and nothing where none is good", () => {
    const { standings } = new Clocked();
    const [untried, failed, good, better] = ["u", "f", "g", "b"].map((name) => newWay(name)) as [
      Way,
      Way,
      Way,
      Way,
    ];
    expect(standings.best(DC2, [untried, failed, good])).toBeUndefined();
    for (const way of [failed, good, better]) standings.proved(DC2, way);
    standings.failedToOpen(failed, "TIMEOUT");
    const ways = [untried, failed, better, good];
    expect(standings.best(DC2, ways)).toBe(better);
    expect(standings.order(DC2, ways)[0]).toBe(better);
    expect(standings.best(DC4, ways)).toBeUndefined();
  });
});

describe("Standings, doubts", () => {
  const [failing, doubtful, plain] = [
    newWay("kws2", "direct-ws", "direct"),
    newWay("kws4", "direct-ws", "direct"),
    newWay("worker", "cf-worker", "direct"),
  ];
  const ways = [doubtful, plain];

  /** Whether `doubtful` goes after `plain`, although it comes before it. */
  const doubts = ({ standings }: Clocked, target = DC4): boolean =>
    standings.order(target, ways)[0] === plain;

  test("put what was never tried after the others when its like failed on the way to another target", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const [good, failed] = [newWay("good"), newWay("failed")];
    standings.proved(DC4, good);
    standings.failedToCarry(DC4, failed, "DNS");
    clocked.pass(MINUTE);
    expect(doubts(clocked)).toBe(false);
    standings.failedToOpen(failing, "TIMEOUT");
    expect(doubts(clocked)).toBe(true);
    expect(namesOf(standings.order(DC4, [failed, doubtful, plain, good]))).toEqual([
      "good",
      "worker",
      "kws4",
      "failed",
    ]);
  });

  test("are no failure, and leave what has carried data good", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    standings.proved(DC5, doubtful);
    standings.failedToOpen(failing, "TIMEOUT");
    expect(standings.failureOf(DC4, doubtful)).toBeUndefined();
    expect(standings.report(DC4, [doubtful])[0]).toMatchObject({ state: "untried", again: undefined });
    expect(standings.good(DC5, doubtful)).toBe(true);
    expect(doubts(clocked, DC5)).toBe(false);
  });

  test.each(COOLDOWNS)(
    "are raised by %s for %d ms, but by REDIRECT and STATUS of one endpoint",
    (code, ms) => {
      const clocked = new Clocked();
      clocked.standings.failedToOpen(failing, code);
      const expected = code !== "REDIRECT" && code !== "STATUS";
      for (const target of [DC2, DC4]) expect(doubts(clocked, target)).toBe(expected);
      clocked.pass(ms - 1);
      expect(doubts(clocked)).toBe(expected);
      clocked.pass(1);
      expect(doubts(clocked)).toBe(false);
    },
  );

  test("are not raised by what the caller gave up", () => {
    const clocked = new Clocked();
    clocked.standings.failedToOpen(failing, "ABORTED");
    clocked.standings.failedToOpen(failing, "ABORTED");
    expect(doubts(clocked)).toBe(false);
  });

  test("are not raised beside a way that carries", () => {
    const clocked = new Clocked();
    clocked.standings.proved(DC2, newWay("kws2-1", "direct-ws", "direct"));
    clocked.standings.failedToOpen(failing, "TIMEOUT");
    expect(doubts(clocked)).toBe(false);
  });

  test("are over when one of them carries, for whatever target, but not when it only opens", () => {
    const clocked = new Clocked();
    clocked.standings.failedToOpen(failing, "TIMEOUT");
    clocked.standings.opened(DC5, doubtful, 100);
    expect(doubts(clocked)).toBe(true);
    clocked.standings.proved(DC5, plain); // another route
    expect(doubts(clocked)).toBe(true);
    clocked.standings.proved(DC5, failing);
    expect(doubts(clocked)).toBe(false);
  });

  test("are forgotten with everything else when the network has changed", () => {
    const clocked = new Clocked();
    clocked.standings.failedToOpen(failing, "TIMEOUT");
    expect(doubts(clocked)).toBe(true);
    clocked.standings.forgive();
    expect(doubts(clocked)).toBe(false);
  });

  test("are not raised by what opened and did not carry: media may starve alone", () => {
    const clocked = new Clocked();
    clocked.standings.failedToCarry(DC2, failing, "SILENT");
    clocked.standings.failedToCarry(DC2, failing, "STALLED");
    expect(doubts(clocked)).toBe(false);
  });

  test("are not kept", () => {
    const before = new Clocked();
    before.standings.failedToCarry(DC2, failing, "STALLED");
    const after = new Clocked();
    after.standings.load(before.standings.save());
    expect(doubts(after)).toBe(false);
    expect(after.standings.failureOf(DC2, doubtful)?.cooling).toBe(true);
  });

  // The later failure takes the place of the earlier one, however short it is.
  test("last as long as the longest failure that raised them", () => {
    const clocked = new Clocked();
    clocked.standings.failedToOpen(failing, "STALLED");
    clocked.standings.failedToOpen(newWay("kws5", "direct-ws", "direct"), "DNS");
    clocked.pass(10 * SECOND);
    expect(doubts(clocked)).toBe(true);
  });

  test("are about the latest 128 groups", () => {
    const clocked = new Clocked();
    for (let number = 0; number < 129; number += 1) {
      clocked.standings.failedToOpen(newWay(`${number}`, "cf-domain", `group ${number}`), "REFUSED");
      clocked.pass(1);
    }
    const first = (number: number): Way | undefined =>
      clocked.standings.order(DC4, [newWay("new", "cf-domain", `group ${number}`), plain])[0];
    expect(first(0)).not.toBe(plain);
    for (const number of [1, 128]) expect(first(number)).toBe(plain);
  });
});

describe("Standings.opened() and proved()", () => {
  test("end what kept the endpoint from opening, for all targets, and its strikes", () => {
    const clocked = new Clocked();
    const one = newWay("one");
    for (const _ of [1, 2, 3]) {
      clocked.standings.failedToOpen(one, "TIMEOUT");
      clocked.pass(10 * MINUTE);
    }
    clocked.standings.opened(DC4, one, 100);
    expect(clocked.standings.failureOf(DC2, one)).toBeUndefined();
    clocked.standings.failedToOpen(one, "TIMEOUT");
    expect(clocked.coolsFor(DC2, one, 30 * SECOND)).toBe(true);
  });

  test("leave a way bad that opens again, but did not carry, until it does", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const one = newWay("one");
    standings.failedToCarry(DC2, one, "SILENT");
    standings.failedToCarry(DC4, one, "SILENT");
    standings.opened(DC2, one, 100);
    expect(standings.failureOf(DC2, one)?.cooling).toBe(true);
    standings.proved(DC2, one);
    expect(standings.failureOf(DC2, one)).toBeUndefined();
    expect(standings.failureOf(DC4, one)?.cooling).toBe(true);
    standings.failedToCarry(DC2, one, "SILENT");
    expect(clocked.coolsFor(DC2, one, MINUTE)).toBe(true);
  });

  test("leave what has carried data before good again as soon as it opens", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.proved(DC2, one);
    standings.failedToOpen(one, "TIMEOUT");
    expect(standings.good(DC2, one)).toBe(false);
    standings.opened(DC2, one, 100);
    expect(standings.good(DC2, one)).toBe(true);
  });

  test("have something to keep when a way wins for the first time, or again, but not each time", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    const changedBy = (work: () => void): boolean => {
      standings.save();
      work();
      return standings.changed;
    };
    expect(changedBy(() => standings.opened(DC2, one, 100))).toBe(false);
    expect(changedBy(() => standings.proved(DC2, one))).toBe(true);
    expect(changedBy(() => standings.proved(DC2, one))).toBe(false);
    expect(changedBy(() => standings.failedToCarry(DC2, one, "SILENT"))).toBe(true);
    expect(changedBy(() => standings.proved(DC2, one))).toBe(true);
    expect(changedBy(() => standings.failedToOpen(one, "TLS"))).toBe(true);
    expect(changedBy(() => standings.postpone(one, HOUR))).toBe(true);
    expect(changedBy(() => standings.forgive())).toBe(true);
  });

  // Otherwise what is kept still says TIMEOUT: after a restart, a good way comes behind those never tried.
  test("have something to keep when a failure to open is over", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.proved(DC2, one);
    standings.failedToOpen(one, "TIMEOUT");
    standings.save();
    standings.opened(DC2, one, 100);
    expect(standings.changed).toBe(true);
  });

  test("end what kept the endpoint from opening also when data came over a connection from before", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const one = newWay("one");
    standings.failedToOpen(one, "TIMEOUT");
    standings.proved(DC2, one);
    expect(standings.good(DC2, one)).toBe(true);
    expect(standings.failureOf(DC4, one)).toBeUndefined();
    standings.failedToOpen(one, "TIMEOUT");
    expect(clocked.coolsFor(DC2, one, 30 * SECOND)).toBe(true); // the first strike
  });

  // As above, but a warm connection carried it, which does not say `opened`.
  test("have something to keep when data ends a failure to open", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.proved(DC2, one);
    standings.failedToOpen(one, "TIMEOUT");
    standings.save();
    standings.proved(DC2, one);
    expect(standings.failureOf(DC2, one)).toBeUndefined();
    expect(standings.changed).toBe(true);
  });

  // What is kept still holds it against the whole group.
  test("have something to keep when data ends the failure of a group", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const [one, beside] = [newWay("one", "direct-ws", "direct"), newWay("two", "direct-ws", "direct")];
    standings.proved(DC2, beside);
    clocked.pass(HOUR);
    standings.failedToCarry(DC2, one, "STALLED");
    expect(standings.good(DC2, beside)).toBe(false);
    standings.save();
    standings.proved(DC2, beside);
    expect(standings.good(DC2, beside)).toBe(true);
    expect(standings.changed).toBe(true);
  });
});

describe("Standings.postpone()", () => {
  test.each([
    ["longer", 10 * MINUTE],
    ["shorter", 5 * SECOND],
  ])("makes a wait %s, as the server said", (_, ms) => {
    const clocked = new Clocked();
    const worker = newWay("worker", "cf-worker");
    clocked.standings.failedToOpen(worker, "STATUS");
    clocked.standings.postpone(worker, ms);
    expect(clocked.cools(DC4, worker)).toBe(true);
    expect(clocked.coolsFor(DC2, worker, ms)).toBe(true);
    expect(clocked.standings.failureOf(DC2, worker)?.code).toBe("STATUS");
  });

  test("believes no server that wants to be left alone for more than two hours", () => {
    const clocked = new Clocked();
    const worker = newWay("worker", "cf-worker");
    clocked.standings.failedToOpen(worker, "STATUS");
    clocked.standings.postpone(worker, 365 * DAY);
    expect(clocked.coolsFor(DC2, worker, 2 * HOUR)).toBe(true);
  });

  test("is no strike, and is not cut short by the next one", () => {
    const clocked = new Clocked();
    const worker = newWay("worker", "cf-worker");
    clocked.standings.failedToOpen(worker, "STATUS");
    clocked.standings.postpone(worker, HOUR);
    clocked.standings.failedToOpen(worker, "STATUS");
    expect(clocked.coolsFor(DC2, worker, HOUR)).toBe(true);
    clocked.standings.failedToOpen(worker, "STATUS");
    expect(clocked.coolsFor(DC2, worker, 2 * MINUTE)).toBe(true);
  });

  test("does nothing to a way that has opened meanwhile", () => {
    const { standings } = new Clocked();
    const worker = newWay("worker", "cf-worker");
    standings.failedToOpen(worker, "STATUS");
    standings.opened(DC2, worker, 100);
    standings.postpone(worker, HOUR);
    expect(standings.failureOf(DC2, worker)).toBeUndefined();
  });
});

describe("Standings.forgive()", () => {
  test("ends every failure with its strikes, and keeps what was good", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const [one, two] = [newWay("one"), newWay("two")];
    standings.opened(DC2, two, 250);
    standings.proved(DC2, two);
    for (const _ of [1, 2]) {
      standings.failedToOpen(one, "TIMEOUT");
      standings.failedToCarry(DC2, two, "STALLED");
      standings.failedToCarry(DC4, two, "STALLED");
      clocked.pass(HOUR);
    }
    standings.forgive();
    for (const target of [DC2, DC4]) {
      for (const way of [one, two]) expect(standings.failureOf(target, way)).toBeUndefined();
    }
    expect(standings.order(DC2, [one, two])).toEqual([two, one]);
    expect(standings.headStartMs(DC2, two)).toBe(500);
    standings.failedToOpen(one, "TIMEOUT");
    expect(clocked.coolsFor(DC2, one, 30 * SECOND)).toBe(true);
  });
});

describe("Standings.headStartMs()", () => {
  test.each([
    [0, 200],
    [99, 200],
    [101, 202],
    [600, 1_200],
    [601, 1_200],
    [5_000, 1_200],
  ])("is twice the time of opening, in bounds: %d ms -> %d ms", (openMs, expected) => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.opened(DC2, one, openMs);
    expect(standings.openMs(DC2, one)).toBe(openMs);
    expect(standings.headStartMs(DC2, one)).toBe(expected);
  });

  test("is 300 ms for a way that has not been opened for this target", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.opened(DC4, one, 400);
    standings.proved(DC2, one);
    expect(standings.openMs(DC2, one)).toBeUndefined();
    expect(standings.headStartMs(DC2, one)).toBe(300);
  });

  test("follows the time of opening slowly: one slow opening is a quarter of it", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.opened(DC2, one, 120);
    standings.opened(DC2, one, 200);
    expect(standings.openMs(DC2, one)).toBe(140);
  });
});

describe("Standings, with a clock that was set back", () => {
  test.each([
    { seconds: 5, cools: true },
    { seconds: 6, cools: false },
  ])("by $seconds s says that what failed before cools: $cools", ({ seconds, cools }) => {
    const clocked = new Clocked();
    const one = newWay("one");
    clocked.standings.failedToOpen(one, "REDIRECT");
    clocked.pass(-seconds * SECOND);
    expect(clocked.cools(DC2, one)).toBe(cools);
  });
});

describe("Standings.excuse()", () => {
  test("forgets that ways failed to open, and what that said of those beside them", () => {
    const { standings } = new Clocked();
    const [one, other] = [newWay("one"), newWay("other")];
    standings.failedToOpen(one, "TIMEOUT");
    standings.failedToOpen(other, "TIMEOUT");
    standings.changed = false;
    standings.excuse([one]);
    expect(standings.changed).toBe(true);
    expect(standings.failureOf(DC2, one)).toBeUndefined();
    expect(standings.failureOf(DC2, other)?.cooling).toBe(true);
  });

  test("leaves what did not carry alone, and ways that nothing is known of", () => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.failedToCarry(DC2, one, "SILENT");
    standings.changed = false;
    standings.excuse([one, newWay("unknown")]);
    expect(standings.changed).toBe(false);
    expect(standings.failureOf(DC2, one)).toEqual({ code: "SILENT", cooling: true });
  });
});

describe("Standings.report()", () => {
  test("says how each way stands, in the order of trying", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const [cooling, over, untried, good] = [
      newWay("cooling", "cf-worker"),
      newWay("over"),
      newWay("untried", "direct-tcp"),
      newWay("good"),
    ] as const;
    standings.failedToOpen(over, "DNS");
    standings.opened(DC2, good, 80);
    standings.proved(DC2, good);
    clocked.pass(HOUR);
    standings.proved(DC2, cooling);
    standings.failedToCarry(DC2, cooling, "REDIRECT");
    clocked.pass(MINUTE);
    const unknown = { openMs: undefined, reason: undefined, again: undefined, wonAt: undefined };
    expect(standings.report(DC2, [cooling, over, untried, good])).toEqual([
      { ...unknown, route: "direct-ws", endpoint: "good", state: "good", openMs: 80, wonAt: START },
      { ...unknown, route: "direct-tcp", endpoint: "untried", state: "untried" },
      { ...unknown, route: "direct-ws", endpoint: "over", state: "failed", reason: "DNS", again: 0 },
      {
        ...unknown,
        route: "cf-worker",
        endpoint: "cooling",
        state: "failed",
        reason: "REDIRECT",
        again: 9 * MINUTE,
        wonAt: START + HOUR,
      },
    ]);
  });
});

describe("Standings.save() and load()", () => {
  /** Something of everything that can be known. The last one is doubtful for other targets, which is not kept. */
  function fill(clocked: Clocked): Way[] {
    const { standings } = clocked;
    const ways = ["good", "slow", "refused", "new", "silent"].map((name) => newWay(name)) as [
      Way,
      Way,
      Way,
      Way,
      Way,
    ];
    const [good, slow, refused, , silent] = ways;
    standings.opened(DC2, good, 40);
    standings.proved(DC2, good);
    standings.opened(DC2, slow, 900.5);
    for (const _ of [1, 2, 3]) {
      standings.failedToOpen(refused, "REFUSED");
      clocked.pass(10 * MINUTE);
    }
    standings.proved(DC4, silent);
    standings.failedToCarry(DC4, silent, "SILENT");
    standings.failedToOpen(refused, "REFUSED");
    return ways;
  }

  test("bring everything back", () => {
    const before = new Clocked();
    const ways = fill(before);
    const after = new Clocked();
    after.now = before.now;
    const text = before.standings.save();
    expect(after.standings.load(text)).toBe(true);
    for (const target of [DC2, DC4, DC5]) {
      expect(after.standings.report(target, ways)).toEqual(before.standings.report(target, ways));
    }
    expect(after.standings.save()).toBe(text);
    // The fourth strike: strikes are kept as well.
    const refused = ways[2] as Way;
    expect(after.coolsFor(DC2, refused, 4 * MINUTE)).toBe(true);
    after.standings.failedToOpen(refused, "REFUSED");
    expect(after.coolsFor(DC2, refused, 8 * MINUTE)).toBe(true);
  });

  test("leave nothing to be saved", () => {
    const clocked = new Clocked();
    expect(clocked.standings.changed).toBe(false);
    fill(clocked);
    expect(clocked.standings.changed).toBe(true);
    const text = clocked.standings.save();
    expect(clocked.standings.changed).toBe(false);
    const other = new Standings();
    other.load(text);
    expect(other.changed).toBe(false);
  });

  test("write lines, so that the file can be read by people", () => {
    const text = new Standings().save();
    expect(text.endsWith("}\n")).toBe(true);
    expect(JSON.parse(text)).toEqual({ version: 1, endpoints: {}, groups: {}, targets: {} });
  });

  test("do not keep what nobody has touched for two weeks", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    const [old, fresh] = [newWay("old"), newWay("fresh")];
    standings.proved(DC2, old);
    standings.proved(DC4, old);
    clocked.pass(1);
    standings.proved(DC2, fresh);
    clocked.pass(14 * DAY - 1);
    expect(JSON.parse(standings.save()).targets).toEqual({
      [DC2]: { "direct-ws fresh": { group: "direct-ws fresh", touchedAt: START + 1, wonAt: START + 1 } },
    });
  });

  test.each([
    ["nothing", ""],
    ["no JSON", "{"],
    ["half a file", '{"version":1,"endpoints":{"direct-ws one":{"code":"TI'],
    ["much too deep", "[".repeat(200_000)],
    ["a number", "1"],
    ["null", "null"],
    ["a list", "[]"],
    ["another version", '{"version":2,"endpoints":{},"targets":{}}'],
    ["a version that is text", '{"version":"1","endpoints":{},"targets":{}}'],
  ])("do not understand %s", (_, text) => {
    const { standings } = new Clocked();
    const one = newWay("one");
    standings.proved(DC2, one);
    expect(standings.load(text)).toBe(false);
    expect(standings.good(DC2, one)).toBe(true);
  });

  const failure = { code: "TIMEOUT", until: START + 30 * SECOND, strikes: 1, at: START };

  test.each([
    ["a code that there is not", { ...failure, code: "NOPE" }],
    ["the name of an inherited property", { ...failure, code: "constructor" }],
    ["no code", { until: 1, strikes: 1, at: 1 }],
    ["a time that is text", { ...failure, until: "soon" }],
    ["a negative time", { ...failure, until: -1 }],
    ["no time", { ...failure, until: null }],
    ["no strikes", { ...failure, strikes: undefined }],
    ["no moment", { ...failure, at: undefined }],
    ["a list", [failure]],
    ["null", null],
  ])("pass over a failure with %s, and take its neighbour", (_, bad) => {
    const { standings } = new Clocked();
    const [one, two] = [newWay("one"), newWay("two")];
    const endpoints = { "direct-ws one": bad, "direct-ws two": failure };
    const targets = {
      [DC4]: {
        "direct-ws one": { group: "direct-ws one", touchedAt: START, wonAt: START, failure: bad },
        "direct-ws two": { group: "direct-ws two", touchedAt: START, wonAt: START, failure },
      },
    };
    expect(standings.load(JSON.stringify({ version: 1, endpoints, targets }))).toBe(true);
    expect(standings.failureOf(DC4, one)).toBeUndefined();
    expect(standings.good(DC4, one)).toBe(true);
    expect(standings.failureOf(DC2, two)).toEqual({ code: "TIMEOUT", cooling: true });
    expect(standings.failureOf(DC4, two)).toEqual({ code: "TIMEOUT", cooling: true });
  });

  const standing = { group: "direct-ws one", touchedAt: START, wonAt: START };

  test.each([
    ["no group", { ...standing, group: undefined }],
    ["a group that is no text", { ...standing, group: 1 }],
    ["no moment", { ...standing, touchedAt: undefined }],
    ["a list", [standing]],
    ["null", null],
  ])("pass over a way with %s, and take its neighbour", (_, bad) => {
    const { standings } = new Clocked();
    const targets = { [DC2]: { "direct-ws one": bad, "direct-ws two": standing } };
    expect(standings.load(JSON.stringify({ version: 1, targets }))).toBe(true);
    expect(standings.good(DC2, newWay("one"))).toBe(false);
    expect(standings.good(DC2, newWay("two"))).toBe(true);
  });

  test("wait no longer than two hours for a time that a file claims", () => {
    const { standings } = new Clocked();
    const [one, two] = [newWay("one"), newWay("two")];
    const endpoints = {
      "direct-ws one": { ...failure, until: START + 2 * HOUR },
      "direct-ws two": { ...failure, until: START + 2 * HOUR + 1 },
    };
    standings.load(JSON.stringify({ version: 1, endpoints }));
    expect(standings.failureOf(DC2, one)?.cooling).toBe(true);
    expect(standings.failureOf(DC2, two)?.cooling).toBe(false);
  });

  test.each([
    [0, MINUTE],
    [1.4, MINUTE],
    [1e300, 10 * MINUTE],
  ])("bring %d strikes into bounds", (strikes, next) => {
    const clocked = new Clocked();
    const one = newWay("one");
    const endpoints = { "direct-ws one": { ...failure, until: START, strikes } };
    clocked.standings.load(JSON.stringify({ version: 1, endpoints }));
    clocked.standings.failedToOpen(one, "TIMEOUT");
    expect(clocked.coolsFor(DC2, one, next)).toBe(true);
  });

  test("never throw, and leave something usable, whatever the file holds", () => {
    const names = ["direct-ws one", "direct-ws two", "DC 2 direct-ws one", "__proto__", "constructor", ""];
    const time = fc.oneof(fc.constantFrom(0, START, -1, 1e308, null, "1"), fc.double(), fc.integer());
    const aFailure = fc.oneof(
      fc.record(
        { code: fc.constantFrom(...ROUTE_ERROR_CODES, "NOPE", 7), until: time, strikes: time, at: time },
        { requiredKeys: [] },
      ),
      fc.jsonValue(),
    );
    const aStanding = fc.oneof(
      fc.record(
        {
          group: fc.constantFrom(...names, 7),
          openMs: time,
          wonAt: time,
          touchedAt: time,
          failure: aFailure,
        },
        { requiredKeys: [] },
      ),
      fc.jsonValue(),
    );
    const name = fc.oneof(fc.constantFrom(...names), fc.string());
    const file = fc.record(
      {
        version: fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.jsonValue() }),
        endpoints: fc.oneof(fc.dictionary(name, aFailure), fc.jsonValue()),
        groups: fc.oneof(fc.dictionary(name, aFailure), fc.jsonValue()),
        targets: fc.oneof(
          fc.dictionary(fc.oneof(fc.constantFrom(DC2, DC4), name), fc.dictionary(name, aStanding)),
          fc.jsonValue(),
        ),
      },
      { requiredKeys: ["version"] },
    );
    const text = fc.oneof(
      { weight: 8, arbitrary: file.map((value) => JSON.stringify(value)) },
      { weight: 1, arbitrary: fc.json() },
      { weight: 1, arbitrary: fc.string() },
    );
    const ways = [newWay("one"), newWay("two"), newWay("three")];
    fc.assert(
      fc.property(text, (hostile) => {
        const clocked = new Clocked();
        const { standings } = clocked;
        standings.load(hostile);
        for (const target of [DC2, DC4]) {
          expect(namesOf(standings.order(target, ways)).sort()).toEqual(["one", "three", "two"]);
          for (const way of ways) {
            const headStart = standings.headStartMs(target, way);
            expect(headStart >= 200 && headStart <= 1_200).toBe(true);
          }
          for (const { state, again = 0, openMs = 0 } of standings.report(target, ways)) {
            expect(["good", "untried", "failed"]).toContain(state);
            expect(again >= 0 && again <= 2 * HOUR).toBe(true);
            expect(openMs >= 0).toBe(true);
          }
        }
        const kept = standings.save();
        expect(new Standings().load(kept)).toBe(true);
        standings.failedToOpen(ways[0] as Way, "TIMEOUT");
        standings.proved(DC2, ways[1] as Way);
        standings.opened(DC2, ways[0] as Way, 100);
        standings.proved(DC2, ways[0] as Way);
        expect(standings.good(DC2, ways[0] as Way)).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("Standings, limits", () => {
  const MOST = 128;

  test("keep the latest 128 endpoints", () => {
    const clocked = new Clocked();
    for (let number = 0; number < 200; number += 1) {
      clocked.standings.failedToOpen(newWay(`${number}`), "STALLED");
      clocked.pass(1);
    }
    const { endpoints } = JSON.parse(clocked.standings.save());
    const expected = Array.from({ length: MOST }, (_, number) => `direct-ws ${number + 72}`);
    expect(Object.keys(endpoints).sort()).toEqual(expected.sort());
  });

  test("keep the latest 128 groups", () => {
    const clocked = new Clocked();
    for (let number = 0; number < 200; number += 1) {
      clocked.standings.failedToCarry(DC2, newWay(`${number}`), "STALLED");
      clocked.pass(1);
    }
    const { groups } = JSON.parse(clocked.standings.save());
    const expected = Array.from({ length: MOST }, (_, number) => `${DC2} direct-ws ${number + 72}`);
    expect(Object.keys(groups).sort()).toEqual(expected.sort());
  });

  test("keep the 128 ways of a target that were touched last", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    for (let number = 0; number < 200; number += 1) {
      standings.proved(DC2, newWay(`${number}`));
      clocked.pass(1);
      standings.opened(DC2, newWay("0"), 100); // stays in use
      clocked.pass(1);
    }
    standings.proved(DC4, newWay("other"));
    const { targets } = JSON.parse(standings.save());
    expect(Object.keys(targets[DC2])).toHaveLength(MOST);
    expect(standings.good(DC2, newWay("0"))).toBe(true);
    expect(standings.good(DC2, newWay("199"))).toBe(true);
    expect(standings.good(DC2, newWay("1"))).toBe(false);
    expect(standings.good(DC4, newWay("other"))).toBe(true);
  });

  test("take 128 records of each kind from a file", () => {
    const many = <T>(value: T): Record<string, T> =>
      Object.fromEntries(Array.from({ length: 1_000 }, (_, number) => [`direct-ws ${number}`, value]));
    const standing = { group: "direct-ws 0", touchedAt: START, wonAt: START };
    const failure = { code: "TIMEOUT", until: START, strikes: 1, at: START };
    const { standings } = new Clocked();
    standings.load(
      JSON.stringify({
        version: 1,
        endpoints: many(failure),
        groups: many(failure),
        targets: many(many(standing)),
      }),
    );
    const { endpoints, groups, targets } = JSON.parse(standings.save());
    expect(Object.keys(endpoints)).toHaveLength(MOST);
    expect(Object.keys(groups)).toHaveLength(MOST);
    expect(Object.keys(targets)).toHaveLength(MOST);
    expect(Object.keys(targets["direct-ws 0"])).toHaveLength(MOST);
  });

  // The new record is the oldest then, and must not be the first to go.
  test("learn something new when all records are from the future, as after a clock was set back", () => {
    const clocked = new Clocked();
    const { standings } = clocked;
    for (let number = 0; number < MOST; number += 1) {
      standings.failedToOpen(newWay(`${number}`), "TIMEOUT");
      standings.proved(DC2, newWay(`${number}`));
    }
    clocked.pass(-DAY);
    standings.failedToOpen(newWay("refused"), "TIMEOUT");
    standings.proved(DC2, newWay("good"));
    expect(standings.good(DC2, newWay("good"))).toBe(true);
    expect(standings.failureOf(DC2, newWay("refused"))?.cooling).toBe(true);
  });
});
