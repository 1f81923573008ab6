import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import fc from "fast-check";
import { Splice } from "../../src/channel/splice.ts";
import {
  CipherTransform,
  joinLinks,
  type Link,
  type StreamCipher,
  type Transform,
} from "../../src/channel/transform.ts";
import type { Cancel } from "../../src/core/cancel.ts";
import { NoRouteError, type RouteAttempt, RouteError, type RouteErrorCode } from "../../src/core/errors.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { type Opened, Opening, type OpeningListener } from "../../src/proxy/opening.ts";
import { ReplayBudget } from "../../src/proxy/replay.ts";
import type { RouteId, Upstream, Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";
import {
  type MemoryChannel,
  memoryChannelPair,
  plainLink,
  RecordingSink,
  settle,
  unchanged,
} from "../support/memory-channel.ts";

const TARGET: Target = { dc: 2, media: false, test: false, transport: "abridged" };
const NAME = "DC 2";
/** One whole abridged packet. */
const ASK = Uint8Array.of(0x01, 10, 20, 30, 40);
/** So long an open way may be silent before others are tried, when it opened at once. */
const DOUBT_MS = 800;
/** From the question until the waiting is over. */
const SILENT_MS = 4_200;

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** Adds a running number to every byte, or takes it away: the bytes tell whether all came, and in order. */
class Running implements StreamCipher {
  readonly #sign: 1 | -1;
  #next = 1;

  constructor(sign: 1 | -1 = 1) {
    this.#sign = sign;
  }

  update(bytes: Uint8Array): Uint8Array {
    return bytes.map((byte) => byte + this.#sign * this.#next++);
  }
}

/** One connection that a {@link ManualWay} has opened: both ends of it, and what Telegram hears. */
interface Connection {
  readonly telegram: MemoryChannel;
  readonly own: MemoryChannel;
  readonly hears: RecordingSink;
}

/** A way that opens, or fails, when the test says so; until then it hangs. */
class ManualWay implements Way {
  readonly address = { host: "192.0.2.1", port: 443, webSocket: undefined };
  readonly route: RouteId;
  readonly endpoint: string;
  readonly group: string;
  readonly connections: Connection[] = [];
  /** Times that it was started. */
  starts = 0;
  /** Times that it was told that it serves. */
  services = 0;
  /** Times that it was told that it does not carry. */
  faults = 0;
  /** It opens, or fails, as soon as it is started. */
  atOnce: "opens" | RouteErrorCode | undefined;
  /** Ends at once when it is given up. */
  heedsSignal = true;
  linkFor: () => Link = () => plainLink;
  readonly #waiting: { resolve: (upstream: Upstream) => void; reject: (error: unknown) => void }[] = [];

  constructor(endpoint: string, route: RouteId = "direct-ws") {
    this.endpoint = endpoint;
    this.group = endpoint;
    this.route = route;
  }

  /** Attempts that are neither open nor failed nor given up. */
  get pending(): number {
    return this.#waiting.length;
  }

  /** The only connection. */
  get only(): Connection {
    const [connection] = this.connections;
    if (connection === undefined || this.connections.length > 1)
      throw new Error(`${this.connections.length} connections of ${this.endpoint}`);
    return connection;
  }

  /** What Telegram has heard over the only connection. */
  get heard(): number[] {
    return [...this.only.hears.bytes];
  }

  open(_target: Target, signal: Cancel): Promise<Upstream> {
    this.starts += 1;
    const { promise, resolve, reject } = Promise.withResolvers<Upstream>();
    const attempt = { resolve, reject };
    this.#waiting.push(attempt);
    signal.addEventListener("abort", () => {
      const at = this.#waiting.indexOf(attempt);
      if (!this.heedsSignal || at < 0) return;
      this.#waiting.splice(at, 1);
      reject(new RouteError("ABORTED", "given up"));
    });
    if (this.atOnce === "opens") this.opens();
    else if (this.atOnce !== undefined) this.fails(this.atOnce);
    return promise;
  }

  served(): void {
    this.services += 1;
  }

  failed(): void {
    this.faults += 1;
  }

  opens({ warm = false } = {}): void {
    const [telegram, own] = memoryChannelPair(1024 * 1024);
    const hears = new RecordingSink();
    telegram.attach(hears);
    this.connections.push({ telegram, own, hears });
    this.#take().resolve({ channel: own, link: this.linkFor(), warm });
  }

  fails(code: RouteErrorCode): void {
    this.#take().reject(new RouteError(code, `it is ${code}`));
  }

  breaks(error: unknown): void {
    this.#take().reject(error);
  }

  #take(): { resolve: (upstream: Upstream) => void; reject: (error: unknown) => void } {
    const attempt = this.#waiting.shift();
    if (attempt === undefined) throw new Error(`${this.endpoint} was not started`);
    return attempt;
  }
}

interface Setup {
  readonly app: MemoryChannel;
  readonly appHears: RecordingSink;
  readonly client: MemoryChannel;
  readonly opening: Opening;
  readonly standings: Standings;
  readonly counts: { up: number; down: number };
  /** Endpoints, as they were started, as they became the first open one, and `endpoint CODE` as they failed. */
  readonly started: string[];
  readonly connected: string[];
  readonly failed: string[];
  /** What came of it. */
  readonly outcome: { opened?: Opened; error?: unknown };
}

function setUp(
  ways: readonly Way[],
  { link = plainLink, early = new Uint8Array(0), replays = new ReplayBudget() } = {},
): Setup {
  const [app, client] = memoryChannelPair(1024 * 1024);
  const appHears = new RecordingSink();
  app.attach(appHears);
  const started: string[] = [];
  const connected: string[] = [];
  const failed: string[] = [];
  const listener: OpeningListener = {
    onAttempt: ({ endpoint }) => started.push(endpoint),
    onAttemptFailed: ({ endpoint, error }: RouteAttempt) => failed.push(`${endpoint} ${error.code}`),
    onConnected: ({ endpoint }) => connected.push(endpoint),
  };
  const counts = { up: 0, down: 0 };
  const standings = new Standings();
  const parts = { client, link, target: TARGET, name: NAME, ways, standings, counts, replays, listener };
  const opening = new Opening(parts);
  const outcome: Setup["outcome"] = {};
  opening.done.then(
    (opened) => {
      outcome.opened = opened;
    },
    (error: unknown) => {
      outcome.error = error;
    },
  );
  opening.start(early);
  return { app, appHears, client, opening, standings, counts, started, connected, failed, outcome };
}

/** Lets `ms` pass, and everything happen that follows from it. */
async function pass(ms: number): Promise<void> {
  await settle();
  for (let left = ms; left > 0; left -= 10) {
    jest.advanceTimersByTime(Math.min(left, 10));
    await settle(3);
  }
  await settle();
}

const waysNamed = (...names: readonly string[]): ManualWay[] => names.map((name) => new ManualWay(name));
const isOver = ({ outcome }: Setup): boolean => Object.keys(outcome).length > 0;

/** The ways of which the first is open, and silent, while the client waits for an answer. */
async function setUpSilent<T extends readonly ManualWay[]>(...ways: T): Promise<Setup> {
  const setup = setUp(ways);
  ways[0]?.opens();
  setup.app.write(ASK);
  await settle();
  return setup;
}

function attemptsOf({ outcome }: Setup): string[] {
  if (!(outcome.error instanceof NoRouteError)) throw new Error("it did not end for lack of a route");
  return outcome.error.attempts.map(({ endpoint, error }) => `${endpoint} ${error.code}`);
}

describe("Opening, over a way that answers", () => {
  test("gives the way that opens what the client says, and ends with its answer", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way, new ManualWay("two")]);
    setup.app.write(ASK);
    await pass(100);
    way.opens();
    await settle();
    expect(way.heard).toEqual([...ASK]);
    expect(isOver(setup)).toBe(false);
    way.only.telegram.write(Uint8Array.of(7, 7));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way, proved: true });
    expect(setup.opening.takeAnswer()).toEqual([Uint8Array.of(7, 7)]);
    expect(setup.opening.takeAnswer()).toEqual([]);
    expect(setup).toMatchObject({ started: ["one"], connected: ["one"], failed: [] as string[] });
    expect(setup.standings.good(NAME, way)).toBe(true);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("sends what was read before first, decrypted and then encrypted for the way", async () => {
    const way = new ManualWay("one");
    way.linkFor = () => ({ up: new CipherTransform(new Running()), down: unchanged });
    const sealed = new Running().update(Uint8Array.of(1, 10, 20, 30, 40));
    const setup = setUp([way], {
      link: { up: new CipherTransform(new Running(-1)), down: unchanged },
      early: sealed.slice(0, 2),
    });
    setup.app.write(sealed.slice(2, 4));
    way.opens();
    await settle();
    setup.app.write(sealed.slice(4));
    await settle();
    expect(way.heard).toEqual([...sealed]);
    expect(setup.counts).toEqual({ up: 5, down: 0 });
  });

  test("waits for a client that says nothing, without a timer", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    await pass(60_000);
    expect(isOver(setup)).toBe(false);
    expect(setup.started).toEqual(["one"]);
    expect(jest.getTimerCount()).toBe(0);
    setup.app.write(ASK);
    await settle();
    one.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: true });
  });

  test("is over with an answer to a client that has not asked", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way]);
    way.opens();
    await settle();
    way.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way, proved: true });
  });

  test("keeps what comes in both directions until somebody joins the channels", async () => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    way.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(isOver(setup)).toBe(true);
    way.only.telegram.write(Uint8Array.of(2));
    setup.app.write(Uint8Array.of(9));
    await settle();
    expect(way.heard).toEqual([...ASK, 9]);
    expect(setup.counts).toEqual({ up: 6, down: 0 });
    expect(setup.opening.takeAnswer()).toEqual([Uint8Array.of(1), Uint8Array.of(2)]);
    expect(setup.counts).toEqual({ up: 6, down: 2 });
  });

  test("gives up what is still opening, and closes what opens all the same", async () => {
    const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
    two.heedsSignal = false;
    const setup = setUp([one, two, three]);
    await pass(650);
    expect(setup.started).toEqual(["one", "two", "three"]);
    one.opens();
    await settle();
    expect(three.pending).toBe(0);
    two.opens();
    await settle();
    expect(two.only.own.closed).toBe(true);
    setup.opening.stop();
  });
});

describe("Opening, over a way that is silent", () => {
  test.each([
    { opensAfter: 0, patience: 800 },
    { opensAfter: 700, patience: 1_050 },
    { opensAfter: 2_000, patience: 3_000 },
    { opensAfter: 3_000, patience: 4_000 },
  ])("doubts one that opened in $opensAfter ms after $patience ms", async ({ opensAfter, patience }) => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    setup.app.write(ASK);
    await pass(opensAfter);
    one.opens();
    await settle();
    if (two.pending > 0) two.opens();
    else two.atOnce = "opens";
    await pass(patience - 10);
    expect(two.connections.map(({ hears }) => hears.length)).not.toContain(ASK.length);
    await pass(10);
    expect(two.heard).toEqual([...ASK]);
    expect(one.only.own.closed).toBe(false);
    setup.opening.stop();
  });

  test("counts from the end of the first packet when the way was open before", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    await pass(3_000);
    setup.app.write(ASK.subarray(0, 4));
    await pass(60_000);
    expect(two.starts).toBe(0);
    setup.app.write(ASK.subarray(4));
    await pass(DOUBT_MS - 10);
    expect(two.starts).toBe(0);
    await pass(10);
    expect(two.starts).toBe(1);
    setup.opening.stop();
  });

  test("does not wait for the end of a packet that cannot be one", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    setup.app.write(Uint8Array.of(0));
    await pass(DOUBT_MS);
    expect(two.starts).toBe(1);
    setup.opening.stop();
  });

  test("says the same again over the next way, encrypted for that one, and goes on over both", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    one.linkFor = () => ({ up: new CipherTransform(new Running()), down: unchanged });
    two.linkFor = () => ({ up: new CipherTransform(new Running(-1)), down: unchanged });
    const setup = setUp([one, two]);
    one.opens();
    setup.app.write(ASK.subarray(0, 3));
    await settle();
    setup.app.write(ASK.subarray(3));
    await pass(DOUBT_MS);
    two.opens();
    await settle();
    setup.app.write(Uint8Array.of(99));
    await settle();
    const plain = Uint8Array.of(...ASK, 99);
    expect(one.heard).toEqual([...new Running().update(plain)]);
    expect(two.heard).toEqual([...new Running(-1).update(plain)]);
    expect(setup.connected).toEqual(["one"]);
    expect(setup.counts.up).toBe(6);
    setup.opening.stop();
  });

  test("takes the next one that answers, closes the silent one, and blames it for this target only", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = await setUpSilent(one, two);
    await pass(DOUBT_MS);
    two.opens();
    await pass(200);
    two.only.telegram.write(Uint8Array.of(5));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: two, proved: true });
    expect(setup.opening.takeAnswer()).toEqual([Uint8Array.of(5)]);
    expect(one.only.own.closed).toBe(true);
    expect(two.only.own.closed).toBe(false);
    expect([one.services, two.services]).toEqual([0, 1]);
    expect([one.faults, two.faults]).toEqual([1, 0]);
    expect(setup.failed).toEqual(["one SILENT"]);
    expect(setup.standings.failureOf(NAME, one)).toEqual({ code: "SILENT", cooling: true });
    expect(setup.standings.failureOf("DC 4", one)).toBeUndefined();
    expect(setup.standings.failureOf(NAME, two)).toBeUndefined();
    expect(jest.getTimerCount()).toBe(0);
  });

  test("still takes the first when it answers late, and blames nobody who had less time", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = await setUpSilent(one, two);
    await pass(DOUBT_MS);
    two.opens();
    await pass(1_000);
    one.only.telegram.write(Uint8Array.of(5));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: true });
    expect(setup.opening.takeAnswer()).toEqual([Uint8Array.of(5)]);
    expect(two.only.own.closed).toBe(true);
    expect(one.only.own.closed).toBe(false);
    expect(setup.failed).toEqual([]);
  });

  test.each([
    { after: DOUBT_MS, failed: ["one SILENT"] as string[] },
    { after: DOUBT_MS + 10, failed: [] as string[] },
  ])(
    "blames only who had twice as long as the one that answers after $after ms",
    async ({ after, failed }) => {
      const [one, two] = [new ManualWay("one"), new ManualWay("two")];
      const setup = await setUpSilent(one, two);
      await pass(DOUBT_MS);
      two.opens();
      await pass(after);
      two.only.telegram.write(Uint8Array.of(5));
      await settle();
      expect(setup.outcome.opened).toMatchObject({ way: two, proved: true });
      expect(setup.failed).toEqual(failed);
    },
  );

  test.each([
    { opensAt: 850, failed: ["one SILENT"] as string[] },
    { opensAt: 840, failed: ["one SILENT", "two SILENT"] as string[] },
  ])(
    "blames nobody who had less than 200 ms: one open at $opensAt of 1,040 ms",
    async ({ opensAt, failed }) => {
      const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
      three.atOnce = "opens";
      const setup = await setUpSilent(one, two, three);
      await pass(opensAt);
      two.opens();
      await pass(1_040 - opensAt);
      three.only.telegram.write(Uint8Array.of(5));
      await settle();
      expect(setup.outcome.opened).toMatchObject({ way: three, proved: true });
      expect(setup.failed).toEqual(failed);
    },
  );

  test("tries other routes first, one more after each 0.3 of that time", async () => {
    const ways = [
      new ManualWay("one"),
      new ManualWay("two"),
      new ManualWay("three", "cf-domain"),
      new ManualWay("four", "direct-tcp"),
    ];
    const setup = await setUpSilent(...ways);
    await pass(DOUBT_MS);
    expect(setup.started).toEqual(["one", "three"]);
    await pass(230);
    expect(setup.started).toHaveLength(2);
    await pass(10);
    expect(setup.started).toHaveLength(3);
    await pass(240);
    expect(setup.started).toEqual(["one", "three", "four", "two"]);
    setup.opening.stop();
  });

  test("has at most 8 on trial", async () => {
    const ways = Array.from(
      { length: 12 },
      (_, at) => new ManualWay(`way ${at}`, at < 6 ? "direct-ws" : "cf-domain"),
    );
    for (const way of ways) way.atOnce = "opens";
    const setup = setUp(ways);
    setup.app.write(ASK);
    await pass(SILENT_MS - 50);
    expect(ways.flatMap(({ connections }) => connections)).toHaveLength(8);
    expect(isOver(setup)).toBe(false);
    setup.opening.stop();
  });

  test("has at most 8 that are still opening beside those on trial", async () => {
    const ways = Array.from(
      { length: 12 },
      (_, at) => new ManualWay(`way ${at}`, at < 6 ? "direct-ws" : "cf-domain"),
    );
    const setup = await setUpSilent(...ways);
    await pass(SILENT_MS - 50);
    expect(setup.started).toHaveLength(9);
    setup.opening.stop();
  });

  test("keeps the first, unproved, when nobody has answered for long, and blames nobody: it may be the network", async () => {
    const ways = waysNamed("one", "two", "three");
    for (const way of ways) way.atOnce = "opens";
    const setup = setUp(ways);
    setup.app.write(ASK);
    await pass(SILENT_MS - 20);
    expect(isOver(setup)).toBe(false);
    await pass(30);
    expect(setup.outcome.opened).toMatchObject({ way: ways[0], proved: false, judged: true });
    expect(ways.map(({ only }) => only.own.closed)).toEqual([false, true, true]);
    expect(setup.failed).toEqual([]);
    expect(setup.opening.takeAnswer()).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("blames all that are silent when another one is still opening", async () => {
    const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
    two.atOnce = "opens";
    const setup = await setUpSilent(one, two, three);
    await pass(SILENT_MS + 10);
    expect(setup.started).toEqual(["one", "two", "three"]);
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: false, judged: true });
    expect(setup.failed.slice(0, 2)).toEqual(["one SILENT", "two SILENT"]);
    expect([two.only.own.closed, three.pending]).toEqual([true, 0]);
  });

  test("judges no earlier than 1.5 s after doubt began", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way]);
    setup.app.write(ASK);
    await pass(3_000);
    way.opens();
    await pass(4_000 + 1_490);
    expect(isOver(setup)).toBe(false);
    await pass(20);
    expect(setup.outcome.opened).toMatchObject({ way, proved: false, judged: true });
  });

  test("does not doubt while an upload is under way, and looks again every 500 ms", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    one.only.telegram.pause();
    setup.app.write(ASK);
    await pass(DOUBT_MS + 1_000);
    expect(one.only.own.queuedBytes).toBe(5);
    expect(two.starts).toBe(0);
    one.only.telegram.resume();
    await pass(490);
    expect(two.starts).toBe(0);
    await pass(20);
    expect(two.starts).toBe(1);
    setup.opening.stop();
  });

  test("doubts in the end when an upload makes no progress", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    one.only.telegram.pause();
    setup.app.write(ASK);
    await pass(60_000);
    setup.opening.stop();
    expect(two.starts).toBeGreaterThan(0);
  });
});

describe("Opening, with a client that sends much", () => {
  /** `count` KiB of whole packets. */
  const kibibytes = (count: number): Uint8Array[] =>
    Array.from({ length: count }, (_, at) => new Uint8Array(1_024).fill(at + 1));

  test("keeps the open way as soon as there is more than can be sent again", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    for (const piece of kibibytes(768)) setup.app.write(piece);
    await settle(2_000);
    expect(isOver(setup)).toBe(false);
    setup.app.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: false, judged: false });
    expect(setup.failed).toEqual([]);
    expect(one.only.hears.length).toBe(768 * 1_024 + 1);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("keeps it as well when all sessions together have sent too much", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two], { replays: new ReplayBudget(100) });
    one.opens();
    await settle();
    setup.app.write(ASK);
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: false, judged: false });
    expect(one.heard).toEqual([...ASK]);
  });

  test("gives back what it took of the budget, however it ends", async () => {
    for (const how of ["answered", "stopped"] as const) {
      const replays = new ReplayBudget(4_096);
      const way = new ManualWay("one");
      const setup = setUp([way], { replays });
      setup.app.write(ASK);
      way.opens();
      await settle();
      expect(replays.take(1)).toBe(false);
      if (how === "answered") way.only.telegram.write(Uint8Array.of(1));
      else setup.opening.stop();
      await settle();
      expect(isOver(setup)).toBe(true);
      expect(replays.take(4_096)).toBe(true);
    }
  });

  test("stops reading at 64 KiB before a way is open, and goes on when one is", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    for (const piece of kibibytes(100)) setup.app.write(piece);
    await settle(300);
    expect(setup.client.paused).toBe(true);
    expect(setup.counts.up).toBe(64 * 1_024);
    one.opens();
    await settle(300);
    expect(isOver(setup)).toBe(false);
    expect(one.only.hears.length).toBe(100 * 1_024);
    setup.opening.stop();
  });

  // start() resumes the client after what was read before has paused it: one more read is held than should be.
  test("does not go on reading a client that had sent enough before", async () => {
    const early = new Uint8Array(64 * 1_024 + 1).fill(1);
    const setup = setUp([new ManualWay("one")], { early });
    setup.app.write(ASK);
    await settle();
    const { up } = setup.counts;
    setup.opening.stop();
    expect(up).toBe(64 * 1_024 + 1);
  });

  test("ends a client whose bytes cannot be kept before a way is open, rather than lose some", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way], { replays: new ReplayBudget(100) });
    setup.app.write(new Uint8Array(101));
    await settle();
    expect(setup.outcome.error).toBeInstanceOf(NoRouteError);
    expect(String(setup.outcome.error)).toContain("no memory for its first packets");
    expect(way.pending).toBe(0);
  });

  test("goes on reading one that was paused before with less than that", async () => {
    const way = new ManualWay("one");
    const [app, client] = memoryChannelPair();
    client.pause();
    app.write(ASK);
    const listener = { onAttempt: () => {}, onAttemptFailed: () => {}, onConnected: () => {} };
    const opening = new Opening({
      client,
      link: plainLink,
      target: TARGET,
      name: NAME,
      ways: [way],
      standings: new Standings(),
      counts: { up: 0, down: 0 },
      replays: new ReplayBudget(),
      listener,
    });
    opening.start(new Uint8Array(64 * 1_024 - 1));
    way.opens();
    await settle();
    way.only.telegram.write(Uint8Array.of(1));
    await settle();
    await expect(opening.done).resolves.toMatchObject({ way });
    expect(way.heard).toHaveLength(64 * 1_024 + 4);
  });
});

describe("Opening, over a way that closes before it answers", () => {
  test.each(["close", "destroy", "end"] as const)("moves on at once after %s", async (how) => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = await setUpSilent(one, two);
    one.only.telegram[how]();
    await settle();
    expect(setup.started).toEqual(["one", "two"]);
    expect(setup.failed).toEqual(["one CLOSED"]);
    expect(one.only.own.closed).toBe(true);
    expect(setup.standings.failureOf(NAME, one)).toEqual({ code: "CLOSED", cooling: true });
    expect(setup.standings.failureOf("DC 4", one)).toBeUndefined();
    two.opens();
    await settle();
    expect(two.heard).toEqual([...ASK]);
    two.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: two, proved: true });
    expect(jest.getTimerCount()).toBe(0);
  });

  test("keeps the others that are on trial", async () => {
    const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
    const setup = await setUpSilent(one, two, three);
    await pass(DOUBT_MS);
    two.opens();
    await settle();
    one.only.telegram.close();
    await settle();
    expect(setup.started).toEqual(["one", "two"]);
    expect(setup.failed).toEqual(["one CLOSED"]);
    expect(two.only.own.closed).toBe(false);
    await pass(250);
    expect(setup.started).toEqual(["one", "two", "three"]);
    two.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: two, proved: true });
  });

  test("gives the next one its own time before there is doubt", async () => {
    const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
    const setup = await setUpSilent(one, two, three);
    await pass(DOUBT_MS - 50);
    one.only.telegram.close();
    await settle();
    two.opens();
    await pass(DOUBT_MS - 10);
    expect(three.starts).toBe(0);
    await pass(10);
    expect(three.starts).toBe(1);
    setup.opening.stop();
  });

  test("throws when none is left, with what each one said", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = await setUpSilent(one, two);
    one.only.telegram.close();
    await settle();
    two.opens();
    await settle();
    two.only.telegram.destroy();
    await settle();
    expect(attemptsOf(setup)).toEqual(["one CLOSED", "two CLOSED"]);
    expect(setup.opening.abandoned).toBe(false);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("blames nobody for one that was open and unused for 5 s, and ends with it", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    await pass(5_000);
    one.only.telegram.close();
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: false });
    expect(setup).toMatchObject({ started: ["one"], failed: [] as string[] });
  });

  test("blames one that closed unused after less", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    await pass(4_900);
    one.only.telegram.close();
    await settle();
    expect(setup).toMatchObject({ started: ["one", "two"], failed: ["one CLOSED"] });
    setup.opening.stop();
  });

  test("says once that a way is open, also when the first one closes and another serves", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = await setUpSilent(one, two);
    one.only.telegram.close();
    await settle();
    two.opens();
    await settle();
    setup.opening.stop();
    expect(setup.connected).toEqual(["one"]);
  });
});

describe("Opening, over a second way that opens without doubt", () => {
  async function setUpStandby(): Promise<{ setup: Setup; one: ManualWay; two: ManualWay }> {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two, new ManualWay("three")]);
    setup.app.write(ASK);
    await pass(310);
    one.opens();
    await settle();
    two.opens();
    await settle();
    return { setup, one, two };
  }

  test("sends it nothing, and closes it when the first one answers", async () => {
    const { setup, one, two } = await setUpStandby();
    expect([one.heard, two.heard]).toEqual([[...ASK], []]);
    expect(setup.connected).toEqual(["one"]);
    one.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: one, proved: true });
    expect(two.only.own.closed).toBe(true);
    expect(setup.failed).toEqual([]);
  });

  test("sends it everything at once when the first one closes", async () => {
    const { setup, one, two } = await setUpStandby();
    setup.app.write(ASK);
    one.only.telegram.close();
    await settle();
    expect(two.heard).toEqual([...ASK, ...ASK]);
    expect(setup).toMatchObject({ started: ["one", "two"], failed: ["one CLOSED"] });
    setup.opening.stop();
    await settle();
    expect(two.only.own.closed).toBe(true);
  });

  test("forgets it when it closes first, and blames it for nothing", async () => {
    const { setup, one, two } = await setUpStandby();
    two.only.telegram.close();
    await settle();
    expect(setup.failed).toEqual([]);
    one.only.telegram.close();
    await settle();
    expect(setup.started).toEqual(["one", "two", "three"]);
    setup.opening.stop();
  });

  // onTrialEnded() drops it from the list without destroying it: the connection stays half open for ever.
  test("closes it when it ends its side first", async () => {
    const { setup, two } = await setUpStandby();
    two.only.telegram.end();
    await settle();
    setup.opening.stop();
    await settle();
    expect(two.only.own.closed).toBe(true);
  });

  // onAnswered() takes it although it has got nothing: what the client has said is lost.
  test("does not lose what the client has said when it speaks without having been asked", async () => {
    const { setup, two } = await setUpStandby();
    two.only.telegram.write(Uint8Array.of(1));
    await settle();
    const { opened } = setup.outcome;
    const heard = two.heard;
    setup.opening.stop();
    if (opened?.way === two) expect(heard).toEqual([...ASK]);
  });

  test("blames one that is not open when another answers a second after it began", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    setup.app.write(ASK);
    await pass(310);
    two.opens();
    await pass(700);
    two.only.telegram.write(Uint8Array.of(1));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way: two, proved: true });
    expect([one.pending, setup.failed]).toEqual([0, ["one TIMEOUT"]]);
  });
});

describe("Opening, over a connection that was opened ahead", () => {
  test.each(["closes", "is silent"] as const)(
    "tries the same way afresh when it %s, and blames nobody",
    async (what) => {
      const [one, two] = [new ManualWay("one"), new ManualWay("two")];
      const setup = setUp([one, two]);
      setup.app.write(ASK);
      one.opens({ warm: true });
      await settle();
      if (what === "closes") one.only.telegram.close();
      await pass(what === "closes" ? 0 : DOUBT_MS);
      expect(setup.started).toEqual(["one", "one"]);
      expect(one.faults).toBe(1);
      one.opens();
      await pass(210);
      one.connections[1]?.telegram.write(Uint8Array.of(1));
      await settle();
      expect(setup.outcome.opened).toMatchObject({ way: one, proved: true });
      expect(setup.outcome.opened?.upstream.channel).toBe(one.connections[1]?.own as MemoryChannel);
      expect(setup.failed).toEqual(["one CLOSED"]);
      expect(setup.standings.failureOf(NAME, one)).toBeUndefined();
      expect(one.connections[0]?.own.closed).toBe(true);
      expect(two.starts).toBe(0);
    },
  );
});

describe("Opening, over a way that says what is no packet", () => {
  test.each([
    { name: "300 ms", length: 1, ms: 300 },
    { name: "more than 1 KiB", length: 1_025, ms: 0 },
  ])("takes it for an answer after $name", async ({ length, ms }) => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    way.only.telegram.write(new Uint8Array(length));
    if (ms > 0) {
      await pass(ms - 10);
      expect(isOver(setup)).toBe(false);
    }
    await pass(ms === 0 ? 0 : 20);
    expect(setup.outcome.opened).toMatchObject({ way, proved: true });
    expect(setup.opening.takeAnswer()).toEqual([new Uint8Array(length)]);
    expect(setup.counts.down).toBe(length);
    expect(jest.getTimerCount()).toBe(0);
  });

  test.each(["close", "destroy", "end"] as const)(
    "takes it for none when it leaves by %s before",
    async (how) => {
      const [one, two] = [new ManualWay("one"), new ManualWay("two")];
      const setup = await setUpSilent(one, two);
      one.only.telegram.write(new Uint8Array(1_024));
      await pass(100);
      one.only.telegram[how]();
      await pass(400);
      expect(isOver(setup)).toBe(false);
      expect(setup.failed).toEqual(["one CLOSED"]);
      two.opens();
      await settle();
      expect(two.heard).toEqual([...ASK]);
      two.only.telegram.write(Uint8Array.of(1));
      await settle();
      expect(setup.outcome.opened).toMatchObject({ way: two, proved: true });
      expect(setup.counts.down).toBe(0);
      setup.opening.takeAnswer();
      expect(setup.counts.down).toBe(1);
    },
  );

  test("takes a quick-ack token for an answer when the client asked for one", async () => {
    for (const [ask, over] of [
      [Uint8Array.of(0x81, 10, 20, 30, 40), true],
      [ASK, false],
    ] as const) {
      const way = new ManualWay("one");
      const setup = setUp([way]);
      way.opens();
      setup.app.write(ask);
      await settle();
      way.only.telegram.write(Uint8Array.of(0x80, 0, 0, 0));
      await settle();
      expect(isOver(setup)).toBe(over);
      setup.opening.stop();
    }
  });

  test("puts a first header that comes byte by byte together", async () => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    for (const byte of [0x7f, 0x7f, 0]) way.only.telegram.write(Uint8Array.of(byte));
    await settle();
    expect(isOver(setup)).toBe(false);
    way.only.telegram.write(Uint8Array.of(0));
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way, proved: true });
  });
});

describe("Opening, with a client that leaves", () => {
  test.each(["close", "destroy"] as const)("gives up before a way is open, after %s", async (how) => {
    const way = new ManualWay("one");
    const setup = setUp([way]);
    setup.app.write(ASK);
    await settle();
    setup.app[how]();
    await settle();
    expect(setup.opening.abandoned).toBe(true);
    expect(attemptsOf(setup)).toEqual([]);
    expect(way.pending).toBe(0);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("counts what had a fair time to open as failed when the client has had enough", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    await pass(2_100);
    setup.app.destroy();
    await settle();
    expect(setup.opening.abandoned).toBe(true);
    expect(attemptsOf(setup)).toEqual(["one TIMEOUT"]);
  });

  test.each([
    { waited: 2_990, failed: [] as string[] },
    { waited: 3_000, failed: ["one SILENT"] as string[] },
  ])("after it has waited $waited ms for an answer says of the way: $failed", async ({ waited, failed }) => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    await pass(waited);
    setup.app.destroy();
    await settle();
    expect(setup.opening.abandoned).toBe(true);
    expect(setup.failed).toEqual(failed);
    expect(attemptsOf(setup)).toEqual(failed);
    expect(way.only.own.closed).toBe(true);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("blames nobody when it had asked nothing", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way]);
    way.opens();
    setup.app.write(ASK.subarray(0, 2));
    await pass(10_000);
    setup.app.destroy();
    await settle();
    expect(setup.opening.abandoned).toBe(true);
    expect(setup.failed).toEqual([]);
  });

  test("gives up when it ends its side without a word", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way]);
    way.opens();
    await settle();
    setup.app.end();
    await settle();
    expect(setup.opening.abandoned).toBe(true);
    expect(way.only.own.closed).toBe(true);
  });

  test("takes the open way at once when it ends its side after it has said something", async () => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    setup.app.end();
    await settle();
    expect(setup.opening.abandoned).toBe(false);
    expect(setup.outcome.opened).toMatchObject({ way, proved: false });
    expect(way.heard).toEqual([...ASK]);
    expect(way.only.own.closed).toBe(false);
  });

  test("says that the way was blamed when it ends its side after 3 s", async () => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    await pass(3_000);
    setup.app.end();
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way, proved: false, judged: true });
  });

  test.each([
    { waited: 2_990, failed: [] as string[] },
    { waited: 3_000, failed: ["one SILENT"] as string[] },
  ])("that ends its side after $waited ms says of the way: $failed", async ({ waited, failed }) => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    await pass(waited);
    setup.app.end();
    await settle();
    expect(setup.failed).toEqual(failed);
    expect(setup.outcome.opened).toMatchObject({ way, proved: false });
  });

  test("takes the first way to open when it has ended its side before", async () => {
    const way = new ManualWay("one");
    const setup = setUp([way]);
    setup.app.write(ASK);
    setup.app.end();
    await pass(1_000);
    expect(isOver(setup)).toBe(false);
    way.opens();
    await settle();
    expect(setup.outcome.opened).toMatchObject({ way, proved: false });
    expect(way.heard).toEqual([...ASK]);
  });
});

describe("Opening, when nothing opens", () => {
  test("throws at once when everything fails, with all attempts in their order", async () => {
    const ways = waysNamed("one", "two", "three");
    for (const way of ways) way.atOnce = "REFUSED";
    const setup = setUp(ways);
    await settle();
    expect(attemptsOf(setup)).toEqual(["one REFUSED", "two REFUSED", "three REFUSED"]);
    expect(setup.failed).toEqual(attemptsOf(setup));
    expect(setup.outcome.error).toMatchObject({
      message: expect.stringContaining("Cannot reach DC 2: direct-ws one, two"),
    });
    expect(setup.opening.abandoned).toBe(false);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("holds it against no way of a route that has eight at most", async () => {
    const many = Array.from({ length: 9 }, (_, at) => new ManualWay(`many ${at}`, "cf-domain"));
    const few = new ManualWay("few");
    for (const way of [...many, few]) way.atOnce = "REFUSED";
    const setup = setUp([few, ...many]);
    await settle(60);
    expect(attemptsOf(setup)).toHaveLength(9);
    expect(setup.standings.failureOf(NAME, few)).toBeUndefined();
    expect(many.filter((way) => setup.standings.failureOf(NAME, way)?.code === "REFUSED")).toHaveLength(8);
  });

  test("holds it against those that did not open when one did", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    one.atOnce = "REFUSED";
    two.atOnce = "opens";
    const setup = setUp([one, two]);
    await settle();
    setup.opening.stop();
    expect(setup.standings.failureOf(NAME, one)).toEqual({ code: "REFUSED", cooling: true });
  });

  test("throws at once when there is no way", async () => {
    const setup = setUp([]);
    await settle();
    expect(attemptsOf(setup)).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("throws after 4.5 s when everything hangs", async () => {
    const ways = waysNamed("one", "two", "three", "four");
    const setup = setUp(ways);
    await pass(4_490);
    expect(isOver(setup)).toBe(false);
    expect(setup.started).toEqual(["one", "two", "three", "four"]);
    await pass(10);
    expect(attemptsOf(setup)).toEqual(["one TIMEOUT", "two TIMEOUT", "three TIMEOUT", "four TIMEOUT"]);
    expect(String(setup.outcome.error)).toContain("direct-ws one: not open after 4.5 s");
    expect(ways.map(({ pending }) => pending)).toEqual([0, 0, 0, 0]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("throws with both what failed and what hung", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    two.atOnce = "DNS";
    const setup = setUp([one, two]);
    await pass(4_500);
    expect(attemptsOf(setup)).toEqual(["two DNS", "one TIMEOUT"]);
  });

  test("does not throw after 4.5 s when a way is open that was not asked yet", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    one.opens();
    await pass(4_600);
    expect(isOver(setup)).toBe(false);
    setup.opening.stop();
  });

  test("throws in time also when the only way that opened closes after 4.5 s", async () => {
    const [one, two] = [new ManualWay("one"), new ManualWay("two")];
    const setup = setUp([one, two]);
    setup.app.write(ASK);
    await pass(4_400);
    one.opens();
    await pass(200);
    one.only.telegram.close();
    await pass(20_000);
    const over = isOver(setup);
    setup.opening.stop();
    expect(over).toBe(true);
  });
});

describe("Opening, with a bug", () => {
  test("rejects with what a way threw, and closes the others", async () => {
    const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
    const setup = await setUpSilent(one, two, three);
    await pass(DOUBT_MS + 250);
    const bug = new TypeError("a bug");
    two.breaks(bug);
    await settle();
    expect(setup.outcome.error).toBe(bug);
    expect(one.only.own.closed).toBe(true);
    expect(three.pending).toBe(0);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("rejects when a way's transform throws for what is said again", async () => {
    const way = new ManualWay("one");
    const bug = new RangeError("a bug");
    way.linkFor = () => ({
      up: {
        push() {
          throw bug;
        },
      },
      down: unchanged,
    });
    const setup = setUp([way], { early: ASK.slice() });
    way.opens();
    await settle();
    expect(setup.outcome.error).toBe(bug);
    expect(way.only.own.closed).toBe(true);
  });

  test.each(["the client's", "the way's"])(
    "rejects when %s transform throws for what the client says",
    async (whose) => {
      const broken: Transform = {
        push() {
          throw new RangeError("a bug");
        },
      };
      const link: Link = { up: broken, down: unchanged };
      const way = new ManualWay("one");
      if (whose === "the way's") way.linkFor = () => link;
      const setup = setUp([way], whose === "the way's" ? {} : { link });
      way.opens();
      await settle();
      try {
        // As its channel would do it, where nobody could catch what it throws.
        expect(() => setup.opening.onChunk(ASK.slice())).not.toThrow();
        await settle();
        expect(setup.outcome.error).toBeInstanceOf(RangeError);
      } finally {
        setup.opening.stop();
      }
    },
  );
});

describe("Opening.stop()", () => {
  test("closes everything that is open, and gives up what is opening", async () => {
    const [one, two, three] = [new ManualWay("one"), new ManualWay("two"), new ManualWay("three")];
    const setup = await setUpSilent(one, two, three);
    await pass(DOUBT_MS);
    two.opens();
    await pass(250);
    setup.opening.stop();
    setup.opening.stop();
    await settle();
    expect(setup.outcome.error).toBeInstanceOf(NoRouteError);
    expect(setup.opening.abandoned).toBe(false);
    expect([one, two].map(({ only }) => only.own.closed)).toEqual([true, true]);
    expect(three.pending).toBe(0);
    expect(setup.failed).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
    setup.app.destroy();
    await settle();
    expect(setup.opening.abandoned).toBe(false);
  });

  test("leaves alone what has been handed over", async () => {
    const way = new ManualWay("one");
    const setup = await setUpSilent(way);
    way.only.telegram.write(Uint8Array.of(1));
    await settle();
    setup.opening.stop();
    await settle();
    expect(way.only.own.closed).toBe(false);
    expect(setup.outcome.opened).toMatchObject({ way });
  });
});

type Step =
  | { readonly what: "pass"; readonly ms: number }
  | { readonly what: "opens" | "fails" | "answers" | "closes" | "resets" | "ends"; readonly way: number }
  | { readonly what: "says"; readonly packets: number }
  | { readonly what: "clientEnds" | "clientGoes" | "stop" };

describe("Opening, whatever happens", () => {
  const WAYS = 5;
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ what: fc.constant("pass" as const), ms: fc.integer({ min: 0, max: 900 }) }),
    },
    {
      weight: 12,
      arbitrary: fc.record({
        what: fc.constantFrom("opens", "opens", "answers", "answers", "fails", "closes", "resets", "ends"),
        way: fc.nat(WAYS - 1),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({ what: fc.constant("says" as const), packets: fc.constantFrom(1, 1, 3, 6_000) }),
    },
    { weight: 1, arbitrary: fc.record({ what: fc.constantFrom("clientEnds", "clientGoes", "stop") }) },
  ) as fc.Arbitrary<Step>;

  test("one way at most is left, with all that the client said, and nothing else stays behind", async () => {
    let served = 0;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 30 }), async (steps) => {
        const ways = Array.from({ length: WAYS }, (_, at) => {
          const way = new ManualWay(`way ${at}`, at % 2 === 0 ? "direct-ws" : "cf-domain");
          way.heedsSignal = at !== 3;
          way.linkFor = () => ({
            up: new CipherTransform(new Running()),
            down: new CipherTransform(new Running(-1)),
          });
          return way;
        });
        const clientCipher = new Running();
        const link: Link = { up: new CipherTransform(new Running(-1)), down: unchanged };
        const setup = setUp(ways, { link });
        const said: number[] = [];
        const answered = new Map<Connection, number>();
        const telegramCiphers = new Map<Connection, Running>();
        let clientIsThere = true;
        let clientReads = true;
        const say = (packets: number): void => {
          const plain = Array.from({ length: packets }, (_, at) => [1, at & 0xff, at >> 8, 3, 4]).flat();
          said.push(...plain);
          setup.app.write(clientCipher.update(Uint8Array.from(plain)));
        };
        const answer = (connection: Connection): void => {
          const cipher = telegramCiphers.get(connection) ?? new Running();
          telegramCiphers.set(connection, cipher);
          const count = (answered.get(connection) ?? 0) + 1;
          answered.set(connection, count);
          connection.telegram.write(cipher.update(Uint8Array.of(count)));
        };
        const broken = new Set<Connection>();
        for (const one of steps) {
          if (one.what === "pass") await pass(one.ms);
          else if (one.what === "says" && clientIsThere) say(one.packets);
          else if (one.what === "clientEnds" && clientIsThere) {
            clientIsThere = false;
            setup.app.end();
          } else if (one.what === "clientGoes") {
            clientIsThere = false;
            clientReads = false;
            setup.app.destroy();
          } else if (one.what === "stop") setup.opening.stop();
          else if (one.what === "opens" || one.what === "fails") {
            const pending = ways.filter(({ pending }) => pending > 0);
            const way = pending[one.way % pending.length];
            if (one.what === "opens") way?.opens();
            else way?.fails("REFUSED");
          } else if ("way" in one) {
            const alive = ways.flatMap(({ connections }) => connections).filter((each) => !broken.has(each));
            const connection = alive[one.way % alive.length];
            if (connection === undefined) continue;
            if (one.what === "answers") answer(connection);
            else {
              broken.add(connection);
              connection.telegram[({ closes: "close", resets: "destroy", ends: "end" } as const)[one.what]]();
            }
          }
          await settle(4);
        }
        await pass(100);
        for (const way of ways) while (!way.heedsSignal && way.pending > 0) way.opens();
        await settle();
        if (!isOver(setup)) {
          setup.opening.stop();
          await settle();
          expect(isOver(setup)).toBe(true);
        }
        expect(jest.getTimerCount()).toBe(0);
        const { opened } = setup.outcome;
        const connections = ways.flatMap(({ connections }) => connections);
        const others = connections.filter(({ own }) => own !== opened?.upstream.channel);
        expect(others.filter((other) => !other.own.closed)).toEqual([]);
        if (opened === undefined) {
          refused += 1;
          expect(setup.outcome.error).toBeInstanceOf(NoRouteError);
          return;
        }
        const chosen = connections.find(({ own }) => own === opened.upstream.channel);
        if (chosen === undefined) throw new Error("it has chosen what nobody opened");
        served += 1;
        if (opened.proved) expect(answered.get(chosen)).toBeGreaterThan(0);

        // As the session does it.
        for (const plain of setup.opening.takeAnswer()) link.down.push(plain, setup.client);
        const splice = new Splice({
          client: setup.client,
          upstream: opened.upstream.channel,
          link: joinLinks(link, opened.upstream.link),
          counts: setup.counts,
        });
        splice.ended.catch(() => {});
        if (clientIsThere && !broken.has(chosen)) say(2);
        await settle(60);
        if (clientReads && !broken.has(chosen) && !chosen.own.closed) {
          expect([...new Running(-1).update(chosen.hears.bytes)]).toEqual(said);
          expect([...setup.appHears.bytes]).toEqual(
            Array.from({ length: answered.get(chosen) ?? 0 }, (_, at) => at + 1),
          );
        }
        splice.destroy();
        await settle();
      }),
      { numRuns: 400 },
    );
    expect(served).toBeGreaterThan(20);
    expect(refused).toBeGreaterThan(20);
  }, 60_000);
});
