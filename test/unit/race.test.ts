import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import type { Cancel } from "../../src/core/cancel.ts";
import { type RouteAttempt, RouteError, type RouteErrorCode } from "../../src/core/errors.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { Race } from "../../src/upstream/race.ts";
import type { RouteId, Upstream, Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";
import { type MemoryChannel, memoryChannelPair, plainLink, settle } from "../support/memory-channel.ts";

const TARGET: Target = { dc: 4, media: true, test: false, transport: "abridged" };
const NAME = "DC 4 media";
/** What a way gets that nothing is known of. */
const HEAD_START_MS = 300;
const ROUTE_IDS: readonly RouteId[] = ["direct-ws", "fronted-ws", "cf-worker", "cf-domain", "direct-tcp"];

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** A way that opens, or fails, when the test says so. */
class ManualWay implements Way {
  readonly route: RouteId;
  readonly endpoint: string;
  readonly group: string;
  /** One for each call of `open`. */
  readonly attempts: {
    readonly target: Target;
    readonly signal: Cancel;
    readonly outcome: PromiseWithResolvers<Upstream>;
  }[] = [];
  /** How often it was asked how long to wait, and what it says. */
  asked = 0;
  retryAfter: Promise<number | undefined> = Promise.resolve(undefined);

  constructor(endpoint: string, route: RouteId = "direct-ws") {
    this.endpoint = endpoint;
    this.group = endpoint;
    this.route = route;
  }

  get address(): never {
    throw new Error("nobody asks");
  }

  get started(): boolean {
    return this.attempts.length > 0;
  }

  get givenUp(): boolean {
    return this.attempts.every(({ signal }) => signal.aborted);
  }

  open(target: Target, signal: Cancel): Promise<Upstream> {
    const outcome = Promise.withResolvers<Upstream>();
    this.attempts.push({ target, signal, outcome });
    return outcome.promise;
  }

  readRetryAfter(): Promise<number | undefined> {
    this.asked += 1;
    return this.retryAfter;
  }

  /** Opens: the last attempt, unless given. */
  async succeed({ warm = false, attempt = -1 } = {}): Promise<MemoryChannel> {
    const [channel] = memoryChannelPair();
    this.attempts.at(attempt)?.outcome.resolve({ channel, link: plainLink, warm });
    await settle(2);
    return channel;
  }

  async fail(error: unknown, attempt = -1): Promise<void> {
    this.attempts.at(attempt)?.outcome.reject(error);
    await settle(2);
  }
}

const refusal = (code: RouteErrorCode, status?: number): RouteError =>
  new RouteError(code, code, status === undefined ? {} : { status });

/** A race, and what it has told its owner. */
class Fixture {
  readonly standings = new Standings();
  /** `started one`, `opened one`, `failed one REFUSED`, `exhausted`, `fault ...`, as they came. */
  readonly heard: string[] = [];
  readonly attempts: RouteAttempt[] = [];
  readonly opened: { readonly way: Way; readonly upstream: Upstream; readonly openMs: number }[] = [];
  readonly ways: ManualWay[];
  race: Race;

  constructor(...ways: (string | ManualWay)[]) {
    this.ways = ways.map((way) => (typeof way === "string" ? new ManualWay(way) : way));
    this.race = this.#newRace();
  }

  /** For when standings have changed. */
  again(): void {
    this.race = this.#newRace();
  }

  #newRace(): Race {
    return new Race(this.ways, TARGET, NAME, this.standings, {
      onStarted: ({ endpoint }) => this.heard.push(`started ${endpoint}`),
      onOpened: (way, upstream, openMs) => {
        this.heard.push(`opened ${way.endpoint}`);
        this.opened.push({ way, upstream, openMs });
      },
      onFailed: (attempt) => {
        this.heard.push(`failed ${attempt.endpoint} ${attempt.error.code}`);
        this.attempts.push(attempt);
      },
      onExhausted: () => this.heard.push("exhausted"),
      onFault: (error) => this.heard.push(`fault ${error}`),
    });
  }

  /** The names of the ways that were started, in order; once for each time. */
  get started(): string[] {
    return this.heard.filter((event) => event.startsWith("started ")).map((event) => event.slice(8));
  }

  cooling(way: Way): boolean {
    return this.standings.failureOf(NAME, way)?.cooling === true;
  }
}

function three(): { fixture: Fixture; one: ManualWay; two: ManualWay; three: ManualWay } {
  const ways = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")] as const;
  return { fixture: new Fixture(...ways), one: ways[0], two: ways[1], three: ways[2] };
}

/** Three ways of one route, with two others between them. */
function mixed(): ManualWay[] {
  return [
    new ManualWay("d1"),
    new ManualWay("d2"),
    new ManualWay("w1", "cf-worker"),
    new ManualWay("d3"),
    new ManualWay("t1", "direct-tcp"),
  ];
}

describe("Race", () => {
  test("starts nothing before go", () => {
    const { fixture } = three();
    jest.advanceTimersByTime(60_000);
    expect(fixture.heard).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("opens the first way, and leaves the others alone", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    expect(one.attempts[0]?.target).toBe(TARGET);
    jest.advanceTimersByTime(120);
    const channel = await one.succeed();
    expect(fixture.opened[0]?.way).toBe(one);
    expect(fixture.opened[0]?.upstream.channel).toBe(channel);
    expect(fixture.opened[0]?.openMs).toBe(120);
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(60_000);
    await settle();
    expect(fixture.heard).toEqual(["started one", "opened one"]);
    expect(channel.closed).toBe(false);
    expect(fixture.race.failed).toEqual([]);
    expect(fixture.race.running).toBe(0);
  });

  test("goes on to the next as soon as one has failed", async () => {
    const { fixture, one, two } = three();
    fixture.race.go();
    const error = refusal("REFUSED");
    await one.fail(error);
    expect(fixture.heard).toEqual(["started one", "failed one REFUSED", "started two"]);
    await two.succeed();
    expect(fixture.heard.slice(3)).toEqual(["opened two"]);
    expect(fixture.race.failed).toEqual([{ route: "direct-ws", endpoint: "one", error }]);
    expect(fixture.attempts).toEqual(fixture.race.failed);
  });

  test("starts them in the order of their standings", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.standings.failedToOpen(one, "REDIRECT");
    fixture.standings.failedToOpen(two, "TIMEOUT");
    fixture.again();
    fixture.race.go();
    await last.fail(refusal("TLS"));
    await two.fail(refusal("TLS"));
    expect(fixture.started).toEqual(["three", "two", "one"]);
  });

  test("learns how long opening takes, and that what kept it from opening is over", async () => {
    const { fixture, one, two } = three();
    fixture.race.go();
    fixture.standings.failedToOpen(one, "REDIRECT"); // another session, meanwhile
    jest.advanceTimersByTime(200);
    await one.succeed();
    expect(fixture.standings.openMs(NAME, one)).toBe(200);
    expect(fixture.standings.failureOf(NAME, one)).toBeUndefined();
    expect(fixture.standings.good(NAME, one)).toBe(false); // that remains to be seen
    expect(fixture.standings.openMs(NAME, two)).toBeUndefined();
  });

  test("learns nothing from a connection that was opened ahead", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    await one.succeed({ warm: true });
    expect(fixture.opened[0]?.upstream.warm).toBe(true);
    expect(fixture.standings.openMs(NAME, one)).toBeUndefined();
  });

  test("is exhausted once, when the last one has failed", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two.fail(refusal("REDIRECT"));
    await last.fail(refusal("TLS"));
    expect(fixture.heard).not.toContain("exhausted");
    expect(fixture.race.running).toBe(1);
    await one.fail(refusal("TIMEOUT"));
    jest.advanceTimersByTime(60_000);
    await settle();
    expect(fixture.heard.filter((event) => event === "exhausted")).toHaveLength(1);
    expect(fixture.race.failed.map(({ endpoint, error: { code } }) => `${endpoint} ${code}`)).toEqual([
      "two REDIRECT",
      "three TLS",
      "one TIMEOUT",
    ]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("is exhausted at once without ways", () => {
    const fixture = new Fixture();
    fixture.race.go();
    expect(fixture.heard).toEqual(["exhausted"]);
  });

  test("passes what is no refusal on as a fault, and holds it against no way", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    await one.fail(new TypeError("a bug"));
    expect(fixture.heard).toEqual(["started one", "fault TypeError: a bug"]);
    expect(fixture.race.running).toBe(0);
    expect(fixture.race.failed).toEqual([]);
    expect(fixture.standings.failureOf(NAME, one)).toBeUndefined();
  });

  test("takes a way that throws before it returns for a fault as well", async () => {
    const { fixture, one } = three();
    one.open = () => {
      throw new TypeError("a bug");
    };
    fixture.race.go();
    await settle(2);
    expect(fixture.heard).toEqual(["started one", "fault TypeError: a bug"]);
    fixture.race.stop();
  });
});

describe("Race, head starts", () => {
  test("gives each way the field for 300 ms, and starts the next beside it", () => {
    const { fixture, one } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    expect(fixture.started).toEqual(["one"]);
    jest.advanceTimersByTime(1);
    expect(fixture.started).toEqual(["one", "two"]);
    expect(one.givenUp).toBe(false);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    expect(fixture.started).toEqual(["one", "two"]);
    jest.advanceTimersByTime(1);
    expect(fixture.started).toEqual(["one", "two", "three"]);
    expect(fixture.race.running).toBe(3);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("gives a way with a record twice the time that it takes to open", () => {
    const { fixture, one, two } = three();
    fixture.standings.opened(NAME, one, 350);
    fixture.standings.opened(NAME, two, 10);
    fixture.race.go();
    jest.advanceTimersByTime(699);
    expect(fixture.started).toEqual(["one"]);
    jest.advanceTimersByTime(1);
    expect(fixture.started).toEqual(["one", "two"]);
    jest.advanceTimersByTime(199);
    expect(fixture.started).toEqual(["one", "two"]);
    jest.advanceTimersByTime(1);
    expect(fixture.started).toEqual(["one", "two", "three"]);
  });

  test("gives the next a head start of its own when one fails", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    await one.fail(refusal("REFUSED"));
    expect(fixture.started).toEqual(["one", "two"]);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    expect(fixture.started).toEqual(["one", "two"]);
    jest.advanceTimersByTime(1);
    expect(fixture.started).toEqual(["one", "two", "three"]);
  });

  test("starts forty ways that all hang within 1.8 s, spread over that time", () => {
    const ways = ROUTE_IDS.flatMap((route) =>
      Array.from({ length: 8 }, (_, number) => new ManualWay(`${route} ${number}`, route)),
    );
    const fixture = new Fixture(...ways);
    fixture.race.go();
    expect(fixture.started).toHaveLength(1);
    for (const [ms, least, most] of [
      [450, 4, 8],
      [450, 15, 19],
      [450, 26, 30],
    ] as const) {
      jest.advanceTimersByTime(ms);
      expect(fixture.started.length).toBeGreaterThanOrEqual(least);
      expect(fixture.started.length).toBeLessThanOrEqual(most);
    }
    jest.advanceTimersByTime(450);
    // The first of each route, since all others hang; then the rest, as it is.
    const first = ways.filter(({ endpoint }) => endpoint.endsWith(" 0"));
    const rest = ways.filter((way) => !first.includes(way));
    expect(fixture.started).toEqual([...first, ...rest].map(({ endpoint }) => endpoint));
    expect(jest.getTimerCount()).toBe(0);
    fixture.race.stop();
  });

  test("starts ways of routes that do not hang before others of those that do", () => {
    const fixture = new Fixture(...mixed());
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "w1"]);
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "w1", "t1"]);
    jest.advanceTimersByTime(HEAD_START_MS);
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "w1", "t1", "d2", "d3"]);
    fixture.race.stop();
  });

  test("starts no way before its turn that failed lately itself", () => {
    const fixture = new Fixture(...mixed());
    fixture.standings.failedToOpen(fixture.ways[2] as Way, "TIMEOUT");
    fixture.again();
    fixture.race.go();
    for (const _ of [1, 2, 3, 4]) jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "t1", "d2", "d3", "w1"]);
    fixture.race.stop();
  });

  test("takes another way of the route that hangs when all others failed lately", () => {
    const fixture = new Fixture(...mixed());
    for (const other of [2, 4]) fixture.standings.failedToOpen(fixture.ways[other] as Way, "TIMEOUT");
    fixture.again();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "d2"]);
    fixture.race.stop();
  });

  test("keeps the order after a refusal, which cost no time, even while others hang", async () => {
    const fixture = new Fixture(...mixed());
    const [d1, d2] = fixture.ways as [ManualWay, ManualWay];
    fixture.race.go();
    await d1.fail(refusal("REDIRECT"));
    expect(fixture.started).toEqual(["d1", "d2"]);
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "d2", "w1"]);
    await fixture.ways[2]?.fail(refusal("REFUSED"));
    expect(fixture.started).toEqual(["d1", "d2", "w1", "d3"]); // and not t1
    expect(d2.givenUp).toBe(false);
    fixture.race.stop();
  });

  test("takes a route again whose way was refused and no longer hangs", async () => {
    const fixture = new Fixture(
      new ManualWay("d1"),
      new ManualWay("w1", "cf-worker"),
      new ManualWay("w2", "cf-worker"),
      new ManualWay("d2"),
    );
    fixture.race.go();
    await fixture.ways[0]?.fail(refusal("REDIRECT"));
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "w1", "d2"]);
    fixture.race.stop();
  });

  test("waits 30 ms from one to the next when it goes on after that time", async () => {
    const ways = Array.from({ length: 6 }, (_, number) => new ManualWay(`${number}`));
    const fixture = new Fixture(...ways);
    fixture.race.go();
    await ways[0]?.succeed();
    jest.advanceTimersByTime(10_000);
    fixture.race.go();
    expect(fixture.started).toEqual(["0", "1"]);
    jest.advanceTimersByTime(29);
    expect(fixture.started).toEqual(["0", "1"]);
    jest.advanceTimersByTime(1);
    expect(fixture.started).toEqual(["0", "1", "2"]);
    fixture.race.stop();
  });
});

describe("Race, when one opens", () => {
  test("starts no more, and lets go on what is under way", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two.succeed();
    expect(jest.getTimerCount()).toBe(0);
    expect([one.givenUp, fixture.race.running, fixture.race.left]).toEqual([false, 1, 1]);
    const channel = await one.succeed();
    expect(channel.closed).toBe(false);
    expect(fixture.opened.map(({ way }) => way)).toEqual([two, one]);
    expect(last.started).toBe(false);
  });

  test.each(["go", "goOn"] as const)("replaces what fails only after %s", async (how) => {
    const fixture = new Fixture("one", "two", "three", "four", "five");
    const [one, two, third, fourth] = fixture.ways;
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two?.succeed();
    await one?.fail(refusal("REFUSED"));
    expect(fixture.started).toEqual(["one", "two"]);
    expect(fixture.heard).not.toContain("exhausted");
    fixture.race[how](new Set());
    await third?.fail(refusal("REFUSED"));
    expect(fourth?.started).toBe(true);
    fixture.race.stop();
  });
});

describe("Race.won()", () => {
  /** Says that the one that opened last has carried something. */
  function won({ race, opened }: Fixture): void {
    race.won(performance.now() - (opened.at(-1)?.openMs ?? 0));
  }

  test("gives the others up, closes what opens all the same, and starts nothing more", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    const winner = await two.succeed();
    won(fixture);
    expect([one.givenUp, two.givenUp]).toEqual([true, false]);
    expect((await one.succeed()).closed).toBe(true);
    expect(winner.closed).toBe(false);
    fixture.race.go();
    fixture.race.goOn(new Set());
    expect([last.started, fixture.race.running, jest.getTimerCount()]).toEqual([false, 0, 0]);
    expect(fixture.opened.map(({ way }) => way)).toEqual([two]);
    expect(fixture.standings.openMs(NAME, one)).toBeUndefined();
  });

  test.each([
    { ms: 999, failed: [] as string[] },
    { ms: 1_000, failed: ["one"] as string[] },
  ])(
    "of one with a head start that is not open after $ms ms says failed: $failed",
    async ({ ms, failed }) => {
      const { fixture, one, two } = three();
      fixture.race.go();
      jest.advanceTimersByTime(HEAD_START_MS);
      await two.succeed();
      jest.advanceTimersByTime(ms - HEAD_START_MS);
      fixture.race.won(HEAD_START_MS + performance.now() - ms);
      expect(fixture.race.failed.map(({ endpoint }) => endpoint)).toEqual(failed);
      expect(fixture.cooling(one)).toBe(failed.length > 0);
      if (failed.length === 0) return;
      expect(fixture.attempts[0]?.error).toMatchObject({
        code: "TIMEOUT",
        message: "not open after 1.0 s, another way was faster",
      });
      await one.fail(refusal("TLS"));
      expect(fixture.race.failed).toHaveLength(1);
    },
  );

  test.each([
    { ms: 1_190, failed: [] as string[] },
    { ms: 1_200, failed: ["slow"] as string[] },
  ])("gives one with 1,200 ms of head start that: after $ms ms failed: $failed", async ({ ms, failed }) => {
    const fixture = new Fixture("slow", "other");
    const [slow, other] = fixture.ways as [ManualWay, ManualWay];
    fixture.standings.opened(NAME, slow, 600);
    fixture.standings.proved(NAME, slow);
    fixture.race.go();
    jest.advanceTimersByTime(1_100);
    expect(fixture.started).toEqual(["slow"]);
    fixture.race.go(); // what had opened before has closed
    jest.advanceTimersByTime(ms - 1_100);
    await other.succeed();
    won(fixture);
    expect(fixture.race.failed.map(({ endpoint }) => endpoint)).toEqual(failed);
  });

  test("does not blame those that began after the one that carries, however long they took", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(2 * HEAD_START_MS);
    jest.advanceTimersByTime(5_000);
    await one.succeed();
    won(fixture);
    expect([two.givenUp, last.givenUp]).toEqual([true, true]);
    expect(fixture.race.failed).toEqual([]);
    expect(fixture.standings.failureOf(NAME, two)).toBeUndefined();
  });
});

describe("Race.retry()", () => {
  test("puts a way that has opened in front of those that wait", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    await one.succeed({ warm: true });
    fixture.race.retry(one);
    expect(fixture.race.left).toBe(3);
    fixture.race.goOn(new Set());
    expect(fixture.started).toEqual(["one", "one"]);
    fixture.race.stop();
  });

  test("does nothing for a way that is under way", () => {
    const { fixture, one } = three();
    fixture.race.go();
    fixture.race.retry(one);
    expect(fixture.race.left).toBe(2);
    fixture.race.stop();
  });
});

describe("Race.excusable", () => {
  test("has what failed of routes with at most eight ways", async () => {
    const many = Array.from({ length: 9 }, (_, at) => new ManualWay(`many ${at}`, "cf-domain"));
    const few = Array.from({ length: 8 }, (_, at) => new ManualWay(`few ${at}`, "direct-ws"));
    const fixture = new Fixture(...many, ...few);
    fixture.race.go();
    for (let at = 0; at < fixture.ways.length; at += 1) {
      for (const way of fixture.ways) if (way.started) await way.fail(refusal("REFUSED"));
    }
    expect(fixture.heard.at(-1)).toBe("exhausted");
    expect(fixture.race.excusable.map(({ endpoint }) => endpoint).toSorted()).toEqual(
      few.map(({ endpoint }) => endpoint),
    );
    expect(fixture.race.left).toBe(1); // too many for one race
  });
});

describe("Race.hold()", () => {
  test("gives up what is under way, starts nothing, and blames what had two seconds", async () => {
    const { fixture, one, two } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two.succeed();
    jest.advanceTimersByTime(2_000 - HEAD_START_MS);
    fixture.race.hold();
    expect([one.givenUp, fixture.race.running, jest.getTimerCount()]).toEqual([true, 0, 0]);
    expect(fixture.race.failed[0]?.error.message).toBe("not open after 2.0 s");
    expect((await one.succeed()).closed).toBe(true);
  });
});

describe("Race, what was given up by hold()", () => {
  test("comes again last, after those that were not started yet", async () => {
    const { fixture, two } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two.succeed();
    fixture.race.hold();
    fixture.race.go();
    expect(fixture.started).toEqual(["one", "two", "three"]);
    jest.advanceTimersByTime(2_000);
    expect(fixture.started).toEqual(["one", "two", "three", "one"]);
    expect(fixture.race.running).toBe(2);
    fixture.race.stop();
  });

  test("is closed when it opens beside a new attempt", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two.succeed();
    fixture.race.hold();
    fixture.race.go();
    await last.fail(refusal("REFUSED"));
    expect(one.attempts).toHaveLength(2);
    expect((await one.succeed({ attempt: 0 })).closed).toBe(true);
    const channel = await one.succeed({ attempt: 1 });
    expect(channel.closed).toBe(false);
    expect(fixture.opened.map(({ way }) => way)).toEqual([two, one]);
  });

  test("leaves a new attempt in the race when an old one ends in a fault", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    await two.succeed();
    fixture.race.hold();
    fixture.race.go();
    await last.fail(refusal("REFUSED"));
    await one.fail(new TypeError("a bug"), 0);
    fixture.race.stop();
    expect(one.givenUp).toBe(true);
  });
});

describe("Race.goOn()", () => {
  const DIRECT: ReadonlySet<RouteId> = new Set(["direct-ws"]);

  test("starts exactly one, of another route", async () => {
    const fixture = new Fixture(...mixed());
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    fixture.race.goOn(DIRECT);
    expect(fixture.started).toEqual(["d1", "w1"]);
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(60_000);
    expect(fixture.started).toEqual(["d1", "w1"]);
    fixture.race.goOn(new Set<RouteId>(["direct-ws", "cf-worker"]));
    expect(fixture.started).toEqual(["d1", "w1", "t1"]);
    expect(fixture.race.running).toBe(2);
  });

  test("takes another way of the same route when there is no other route", async () => {
    const fixture = new Fixture(...mixed());
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    for (const _ of [1, 2, 3, 4]) fixture.race.goOn(DIRECT);
    expect(fixture.started).toEqual(["d1", "w1", "t1", "d2", "d3"]);
  });

  test("replaces the one that fails, by the same preference", async () => {
    const fixture = new Fixture(...mixed());
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    fixture.race.goOn(DIRECT);
    await fixture.ways[2]?.fail(refusal("TLS"));
    expect(fixture.started).toEqual(["d1", "w1", "t1"]);
    await fixture.ways[4]?.fail(refusal("TLS"));
    expect(fixture.started).toEqual(["d1", "w1", "t1", "d2"]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("goes on with the others, and replaces those that fail, when that one opens", async () => {
    const fixture = new Fixture(...mixed());
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    fixture.race.goOn(DIRECT);
    fixture.race.goOn(DIRECT);
    await fixture.ways[4]?.succeed();
    expect(fixture.ways[2]?.givenUp).toBe(false);
    expect(fixture.opened.map(({ way }) => way.endpoint)).toEqual(["d1", "t1"]);
    await fixture.ways[2]?.fail(refusal("TLS"));
    expect(fixture.started).toEqual(["d1", "w1", "t1", "d2"]);
    expect(jest.getTimerCount()).toBe(0);
    fixture.race.stop();
  });

  test("avoids the routes of those that are under way, too", async () => {
    const fixture = new Fixture(
      new ManualWay("d1"),
      new ManualWay("w1", "cf-worker"),
      new ManualWay("w2", "cf-worker"),
      new ManualWay("t1", "direct-tcp"),
    );
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    for (const _ of [1, 2, 3]) fixture.race.goOn(DIRECT);
    expect(fixture.started).toEqual(["d1", "w1", "t1", "w2"]);
    fixture.race.stop();
  });

  test("is forgotten by go, which has head starts again", async () => {
    const fixture = new Fixture(...mixed());
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    fixture.race.goOn(DIRECT);
    fixture.race.go();
    expect(fixture.started).toEqual(["d1", "w1", "d2"]);
    jest.advanceTimersByTime(HEAD_START_MS);
    expect(fixture.started).toEqual(["d1", "w1", "d2", "t1"]);
    fixture.race.stop();
  });

  test("says that nothing is left only when nothing is under way", async () => {
    const fixture = new Fixture("one", "two");
    fixture.race.go();
    await fixture.ways[0]?.succeed();
    fixture.race.goOn(DIRECT);
    fixture.race.goOn(DIRECT);
    expect(fixture.heard).not.toContain("exhausted");
    await fixture.ways[1]?.fail(refusal("TLS"));
    expect(fixture.heard.slice(-2)).toEqual(["failed two TLS", "exhausted"]);
  });
});

describe("Race.stop()", () => {
  test("gives all attempts up, starts nothing more, and leaves no timer", async () => {
    const { fixture, one, two, three: last } = three();
    fixture.race.go();
    jest.advanceTimersByTime(HEAD_START_MS);
    fixture.race.stop();
    expect([one.givenUp, two.givenUp]).toEqual([true, true]);
    expect(fixture.race.running).toBe(0);
    expect(jest.getTimerCount()).toBe(0);
    await one.fail(refusal("REFUSED"));
    fixture.race.go();
    fixture.race.goOn(new Set());
    jest.advanceTimersByTime(60_000);
    expect(last.started).toBe(false);
    expect(fixture.heard).toEqual(["started one", "started two"]);
    expect(fixture.standings.failureOf(NAME, one)).toBeUndefined();
  });

  test("closes what opens afterwards, and says nothing of it", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    fixture.race.stop();
    expect((await one.succeed()).closed).toBe(true);
    expect(fixture.heard).toEqual(["started one"]);
  });

  test("leaves open what it has handed out", async () => {
    const { fixture, one } = three();
    fixture.race.go();
    const channel = await one.succeed();
    fixture.race.stop();
    await settle();
    expect(channel.closed).toBe(false);
  });

  test("blames what had two seconds, and nothing that had less", () => {
    const { fixture, one, two } = three();
    fixture.race.go();
    jest.advanceTimersByTime(2_000 + HEAD_START_MS - 1);
    fixture.race.stop();
    expect(fixture.race.failed.map(({ endpoint }) => endpoint)).toEqual(["one"]);
    expect(fixture.heard.slice(3)).toEqual(["failed one TIMEOUT"]);
    expect(fixture.race.failed[0]?.error.message).toBe("not open after 2.3 s");
    expect(fixture.cooling(one)).toBe(true);
    expect(fixture.standings.failureOf(NAME, two)).toBeUndefined();
  });

  test("blames nobody twice", () => {
    const { fixture } = three();
    fixture.race.go();
    jest.advanceTimersByTime(10_000);
    fixture.race.stop();
    fixture.race.stop();
    expect(fixture.race.failed).toHaveLength(3);
  });
});

describe("Race and Retry-After", () => {
  const busy = (status: number): RouteError => refusal("STATUS", status);

  test.each([429, 503])("asks after a %d for how long, and postpones the way", async (status) => {
    const { fixture, one } = three();
    one.retryAfter = Promise.resolve(120_000);
    fixture.race.go();
    await one.fail(busy(status));
    expect(one.asked).toBe(1);
    expect(fixture.started).toEqual(["one", "two"]);
    expect(fixture.standings.report(NAME, [one])[0]).toMatchObject({ reason: "STATUS", again: 120_000 });
    fixture.race.stop();
  });

  test("goes on to the next before the answer has come, and takes it after the end of the race", async () => {
    const { fixture, one } = three();
    const answer = Promise.withResolvers<number | undefined>();
    one.retryAfter = answer.promise;
    fixture.race.go();
    await one.fail(busy(429));
    expect(fixture.started).toEqual(["one", "two"]);
    fixture.race.stop();
    answer.resolve(5_000);
    await settle(2);
    expect(fixture.standings.report(NAME, [one])[0]?.again).toBe(5_000);
  });

  test("waits as after any other status when nobody says, or there is nobody to ask", async () => {
    const { fixture, one, two } = three();
    Object.defineProperty(two, "readRetryAfter", { value: undefined });
    fixture.race.go();
    await one.fail(busy(429));
    await two.fail(busy(429));
    expect(one.asked).toBe(1);
    expect(fixture.standings.report(NAME, [one, two]).map(({ again }) => again)).toEqual([60_000, 60_000]);
    fixture.race.stop();
  });

  test.each([
    ["another status", refusal("STATUS", 502)],
    ["a redirect", refusal("REDIRECT", 302)],
    ["anything else", refusal("TIMEOUT")],
  ])("does not ask after %s", async (_, error) => {
    const { fixture, one } = three();
    fixture.race.go();
    await one.fail(error);
    expect(one.asked).toBe(0);
    fixture.race.stop();
  });
});
