import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import type { Cancel } from "../../src/core/cancel.ts";
import { RouteError, type RouteErrorCode } from "../../src/core/errors.ts";
import { type DcTarget, describeTarget } from "../../src/protocol/mtproto/dc.ts";
import { type ProbeReport, Restorer } from "../../src/upstream/restorer.ts";
import type { RouteId, Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";
import { settle } from "../support/memory-channel.ts";

const DELAY_MS = 1_000;
const MINUTE = 60_000;

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

const dc = (number: number): DcTarget => ({ dc: number, media: false, test: false });
const DC2 = dc(2);
const NAME = describeTarget(DC2);

const newWay = (endpoint: string, route: RouteId): Way => ({
  route,
  endpoint,
  group: endpoint,
  address: { host: endpoint, port: 443, webSocket: undefined },
  open: () => Promise.reject(new Error("only probes open it")),
});

interface ProbeCall {
  readonly way: Way;
  readonly target: DcTarget;
  readonly deep: boolean;
  readonly signal: Cancel;
  readonly answer: PromiseWithResolvers<{ readonly openMs: number }>;
}

/** A restorer whose probes the test answers. */
class Fixture {
  now = 1_800_000_000_000;
  readonly standings = new Standings(() => this.now);
  readonly probes: ProbeCall[] = [];
  readonly reports: ProbeReport[] = [];
  readonly best = newWay("kws2", "direct-ws");
  readonly middle = newWay("worker", "cf-worker");
  readonly last = newWay("tcp", "direct-tcp");
  readonly ways = [this.best, this.middle, this.last];
  readonly restorer = new Restorer(
    this.standings,
    (way, target, { deep, signal }) => {
      const answer = Promise.withResolvers<{ readonly openMs: number }>();
      this.probes.push({ way, target, deep, signal, answer });
      return answer.promise;
    },
    (report) => this.reports.push(report),
  );

  /** A client was served; then the delay passes. */
  served(by: Way, target: DcTarget = DC2): void {
    this.restorer.consider(target, this.ways, by);
    jest.advanceTimersByTime(DELAY_MS);
  }

  get probed(): string[] {
    return this.probes.map(({ way }) => way.endpoint);
  }

  async answer(openMs = 90): Promise<void> {
    this.probes.at(-1)?.answer.resolve({ openMs });
    await settle(2);
  }

  async refuse(code: RouteErrorCode): Promise<void> {
    this.probes.at(-1)?.answer.reject(new RouteError(code, code));
    await settle(2);
  }
}

describe("Restorer.consider()", () => {
  test("probes nothing when the best way has served", () => {
    const fixture = new Fixture();
    fixture.served(fixture.best);
    expect(fixture.probes).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("probes the best way, one second after another one has served", () => {
    const fixture = new Fixture();
    fixture.restorer.consider(DC2, fixture.ways, fixture.last);
    jest.advanceTimersByTime(DELAY_MS - 1);
    expect(fixture.probes).toEqual([]);
    jest.advanceTimersByTime(1);
    expect(fixture.probed).toEqual(["kws2"]);
    expect(fixture.probes[0]).toMatchObject({ target: DC2, deep: false });
    expect(fixture.probes[0]?.signal.aborted).toBe(false);
  });

  test("probes no way that is still cooling, but the next better one", () => {
    const fixture = new Fixture();
    fixture.standings.failedToOpen(fixture.best, "TIMEOUT");
    fixture.served(fixture.last);
    expect(fixture.probed).toEqual(["worker"]);
  });

  test("probes a way whose time is over", () => {
    const fixture = new Fixture();
    fixture.standings.failedToOpen(fixture.best, "TIMEOUT");
    fixture.now += 30_000;
    fixture.served(fixture.last);
    expect(fixture.probed).toEqual(["kws2"]);
  });

  test("probes nothing behind the way that has served", () => {
    const fixture = new Fixture();
    fixture.standings.failedToOpen(fixture.best, "TIMEOUT");
    fixture.served(fixture.middle);
    expect(fixture.probes).toEqual([]);
  });

  test("probes nothing when a better way is known to be good: clients try it anyway", () => {
    const fixture = new Fixture();
    fixture.standings.proved(NAME, fixture.best);
    fixture.served(fixture.last);
    expect(fixture.probes).toEqual([]);
  });

  test("probes nothing behind a good way, although the best one is cooling", () => {
    const fixture = new Fixture();
    fixture.standings.failedToOpen(fixture.best, "TIMEOUT");
    fixture.standings.proved(NAME, fixture.middle);
    fixture.served(fixture.last);
    expect(fixture.probes).toEqual([]);
  });

  test.each([
    ["STALLED", true],
    ["SILENT", true],
    ["CLOSED", false],
  ] as const)("probes a way that failed with %s: deep is %p", (code, deep) => {
    const fixture = new Fixture();
    fixture.standings.failedToCarry(NAME, fixture.best, code);
    fixture.now += 10 * MINUTE;
    fixture.served(fixture.last);
    expect(fixture.probes[0]?.deep).toBe(deep);
  });
});

describe("Restorer, what it probes", () => {
  test("is the way without connections that were opened ahead, and what is learned is about the way", async () => {
    const fixture = new Fixture();
    const cold = newWay("kws2", "direct-ws");
    const warm: Way = { ...newWay("kws2", "direct-ws"), cold };
    fixture.ways[0] = warm;
    fixture.served(fixture.last);
    expect(fixture.probes[0]?.way).toBe(cold);
    await fixture.answer(90);
    expect(fixture.standings.good(NAME, warm)).toBe(true);
    expect(fixture.reports).toEqual([{ target: "DC 2", way: warm, code: undefined }]);
    expect(fixture.reports[0]?.way).toBe(warm);
  });

  test("is nothing when a client has found the way good during the delay", async () => {
    const fixture = new Fixture();
    fixture.restorer.consider(DC2, fixture.ways, fixture.last);
    fixture.standings.proved(NAME, fixture.best);
    jest.advanceTimersByTime(DELAY_MS);
    await settle(2);
    expect(fixture.probes).toEqual([]);
    expect(fixture.reports).toEqual([]);
    fixture.served(fixture.last, dc(4)); // and leaves the place to others
    fixture.served(fixture.last, dc(5));
    expect(fixture.probes.map(({ target }) => target.dc)).toEqual([4, 5]);
  });

  test("is the way deeply when it has stalled during the delay", () => {
    const fixture = new Fixture();
    fixture.restorer.consider(DC2, fixture.ways, fixture.last);
    fixture.standings.failedToCarry(NAME, fixture.best, "STALLED");
    jest.advanceTimersByTime(DELAY_MS);
    expect(fixture.probes[0]?.deep).toBe(true);
  });
});

describe("Restorer, limits", () => {
  test("has one probe for a target at a time, from its plan to its end", async () => {
    const fixture = new Fixture();
    fixture.restorer.consider(DC2, fixture.ways, fixture.last);
    fixture.served(fixture.last);
    fixture.served(fixture.last);
    expect(fixture.probed).toEqual(["kws2"]);
    await fixture.refuse("TIMEOUT");
    fixture.served(fixture.last);
    expect(fixture.probed).toEqual(["kws2", "worker"]);
  });

  test("has two probes at a time over all targets, planned ones included", async () => {
    const fixture = new Fixture();
    for (const number of [1, 2, 3, 4]) fixture.restorer.consider(dc(number), fixture.ways, fixture.last);
    jest.advanceTimersByTime(DELAY_MS);
    expect(fixture.probes.map(({ target }) => target.dc)).toEqual([1, 2]);
    await fixture.answer();
    fixture.served(fixture.last, dc(3));
    fixture.served(fixture.last, dc(4));
    expect(fixture.probes.map(({ target }) => target.dc)).toEqual([1, 2, 3]);
  });

  test("tells media and the test environment apart", () => {
    const fixture = new Fixture();
    fixture.served(fixture.last, DC2);
    fixture.served(fixture.last, { ...DC2, media: true });
    expect(fixture.probes.map(({ target }) => target.media)).toEqual([false, true]);
  });
});

describe("Restorer, results", () => {
  test("makes a way good that answers, and learns its time", async () => {
    const fixture = new Fixture();
    fixture.standings.failedToOpen(fixture.best, "TIMEOUT");
    fixture.standings.failedToCarry(NAME, fixture.best, "SILENT");
    fixture.standings.proved(NAME, fixture.last);
    fixture.now += 10 * MINUTE;
    fixture.served(fixture.last);
    expect(fixture.standings.good(NAME, fixture.best)).toBe(false);
    await fixture.answer(90);
    expect(fixture.standings.good(NAME, fixture.best)).toBe(true);
    expect(fixture.standings.openMs(NAME, fixture.best)).toBe(90);
    expect(fixture.standings.order(NAME, fixture.ways)[0]).toBe(fixture.best);
    expect(fixture.reports).toEqual([{ target: "DC 2", way: fixture.best, code: undefined }]);
  });

  test.each(["SILENT", "STALLED", "CLOSED"] as const)(
    "holds %s against the way for this target",
    async (code) => {
      const fixture = new Fixture();
      fixture.served(fixture.last);
      await fixture.refuse(code);
      expect(fixture.standings.failureOf(NAME, fixture.best)).toEqual({ code, cooling: true });
      expect(fixture.standings.failureOf("DC 4", fixture.best)).toBeUndefined();
      expect(fixture.reports).toEqual([{ target: "DC 2", way: fixture.best, code }]);
    },
  );

  test.each(["TIMEOUT", "STATUS", "REFUSED", "TLS"] as const)(
    "holds %s against the endpoint",
    async (code) => {
      const fixture = new Fixture();
      fixture.served(fixture.last);
      await fixture.refuse(code);
      for (const name of [NAME, "DC 4"]) {
        expect(fixture.standings.failureOf(name, fixture.best)).toEqual({ code, cooling: true });
      }
      expect(fixture.reports).toEqual([{ target: "DC 2", way: fixture.best, code }]);
    },
  );

  test("waits longer from failure to failure", async () => {
    const fixture = new Fixture();
    fixture.ways.splice(1, 1);
    const waits = [0, 30_000, 60_000, 120_000];
    for (const wait of waits) {
      if (wait > 0) {
        fixture.now += wait - 1;
        fixture.served(fixture.last);
        fixture.now += 1;
      }
      const { length } = fixture.probes;
      fixture.served(fixture.last);
      expect(fixture.probes).toHaveLength(length + 1);
      await fixture.refuse("TIMEOUT");
    }
    expect(fixture.probes).toHaveLength(waits.length);
  });
});

describe("Restorer.close()", () => {
  test("gives probes up, holds that against nobody, and starts no more", async () => {
    const fixture = new Fixture();
    fixture.served(fixture.last);
    fixture.restorer.close();
    expect(fixture.probes[0]?.signal.aborted).toBe(true);
    await fixture.refuse("ABORTED");
    expect(fixture.standings.failureOf(NAME, fixture.best)).toBeUndefined();
    fixture.served(fixture.last);
    expect(fixture.probes).toHaveLength(1);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("ends what is only planned", () => {
    const fixture = new Fixture();
    fixture.restorer.consider(DC2, fixture.ways, fixture.last);
    fixture.restorer.close();
    jest.advanceTimersByTime(DELAY_MS);
    expect(fixture.probes).toEqual([]);
    expect(fixture.reports).toEqual([]);
  });

  test("reports nothing about the probes that it gives up", async () => {
    const fixture = new Fixture();
    fixture.served(fixture.last);
    fixture.restorer.close();
    await fixture.refuse("ABORTED");
    expect(fixture.reports).toEqual([]);
  });

  test.each(["TIMEOUT", "SILENT"] as const)("holds %s against nobody that comes afterwards", async (code) => {
    const fixture = new Fixture();
    fixture.served(fixture.last);
    fixture.restorer.close();
    await fixture.refuse(code);
    expect(fixture.standings.failureOf(NAME, fixture.best)).toBeUndefined();
    expect(fixture.reports).toEqual([]);
  });

  // Only what fails is kept back: an answer that is there when the program ends gets its line in the log.
  test("reports nothing about a probe that is answered in the same moment", async () => {
    const fixture = new Fixture();
    fixture.served(fixture.last);
    const answered = fixture.answer();
    fixture.restorer.close();
    await answered;
    expect(fixture.reports).toEqual([]);
  });
});
