import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import type { Cancel } from "../../src/core/cancel.ts";
import { NoRouteError, type RouteAttempt, RouteError, type RouteErrorCode } from "../../src/core/errors.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { openFirst } from "../../src/upstream/chain.ts";
import { Cooldowns } from "../../src/upstream/cooldowns.ts";
import type { Route, Upstream } from "../../src/upstream/route.ts";
import { type MemoryChannel, memoryChannelPair, plainLink, settle } from "../support/memory-channel.ts";

const TARGET: Target = { dc: 4, media: true, test: false, transport: "abridged" };
const HEAD_START_MS = 1_000;
const never = new AbortController().signal;

/** A route that opens, or fails, when the test says so. */
class ManualRoute implements Route {
  readonly id = "direct-ws";
  readonly name: string;
  /** Its ends of the connections that it has opened. */
  readonly opened: MemoryChannel[] = [];
  /** One for each call of `open`. */
  readonly #attempts: {
    readonly signal: Cancel;
    readonly promise: Promise<Upstream>;
    readonly resolve: (upstream: Upstream) => void;
    readonly reject: (error: unknown) => void;
  }[] = [];
  readonly #endpoint: string | undefined;

  constructor(name: string, options: { serves?: boolean } = {}) {
    this.name = name;
    this.#endpoint = options.serves === false ? undefined : name;
  }

  get started(): boolean {
    return this.#attempts.length > 0;
  }

  get givenUp(): boolean {
    return this.#attempts.every(({ signal }) => signal.aborted);
  }

  endpoint(): string | undefined {
    return this.#endpoint;
  }

  open(_: Target, signal: Cancel): Promise<Upstream> {
    const attempt = { signal, ...Promise.withResolvers<Upstream>() };
    this.#attempts.push(attempt);
    return attempt.promise;
  }

  succeed(): MemoryChannel {
    const [channel] = memoryChannelPair();
    this.opened.push(channel);
    this.#attempts.at(-1)?.resolve({ channel, link: plainLink, warm: false });
    return channel;
  }

  fail(error: unknown): void {
    this.#attempts.at(-1)?.reject(error);
  }
}

const refusal = (code: RouteErrorCode, text: string = code): RouteError => new RouteError(code, text);

interface Run {
  readonly result: ReturnType<typeof openFirst>;
  readonly failures: RouteAttempt[];
  readonly cooldowns: Cooldowns;
}

function start(routes: readonly Route[], options: { cooldowns?: Cooldowns; signal?: AbortSignal } = {}): Run {
  const failures: RouteAttempt[] = [];
  const { cooldowns = new Cooldowns(), signal = never } = options;
  const result = openFirst(routes, TARGET, cooldowns, signal, (attempt) => failures.push(attempt));
  result.catch(() => {}); // looked at later
  return { result, failures, cooldowns };
}

async function noRoute({ result }: Run): Promise<NoRouteError> {
  const error: unknown = await result.catch((caught: unknown) => caught);
  if (error instanceof NoRouteError) return error;
  throw new Error("no NoRouteError", { cause: error });
}

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe("openFirst()", () => {
  test("opens the first route, and leaves the others alone", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const run = start([one, two]);
    const channel = one.succeed();
    const { route, upstream } = await run.result;
    expect(route).toBe(one);
    expect(upstream.channel).toBe(channel);
    jest.advanceTimersByTime(10 * HEAD_START_MS);
    await settle();
    expect(two.started).toBe(false);
    expect(channel.closed).toBe(false);
    expect(run.failures).toEqual([]);
  });

  test("goes on to the next as soon as one has failed", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    const run = start([one, two, three]);
    const error = refusal("REFUSED");
    one.fail(error);
    await settle();
    expect(two.started).toBe(true);
    expect(three.started).toBe(false);
    two.succeed();
    expect((await run.result).route).toBe(two);
    expect(run.failures).toEqual([{ route: "direct-ws", endpoint: "one", error }]);
  });

  test("passes over routes that cannot serve the target", async () => {
    const [other, one] = [new ManualRoute("other", { serves: false }), new ManualRoute("one")];
    const run = start([other, one]);
    one.succeed();
    expect((await run.result).route).toBe(one);
    expect(other.started).toBe(false);
  });

  test("keeps every refusal, in the order in which they came", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    const run = start([one, two, three]);
    jest.advanceTimersByTime(HEAD_START_MS); // one is slow: two joins it
    two.fail(refusal("REDIRECT", "HTTP 302"));
    await settle();
    expect(three.started).toBe(true);
    three.fail(refusal("TLS", "bad certificate"));
    await settle();
    one.fail(refusal("TIMEOUT", "too late"));
    const error = await noRoute(run);
    expect(error.attempts.map(({ endpoint, error: { code } }) => `${endpoint} ${code}`)).toEqual([
      "two REDIRECT",
      "three TLS",
      "one TIMEOUT",
    ]);
    expect(error.message).toBe(
      "Cannot reach DC 4 media: direct-ws two: HTTP 302; direct-ws three: bad certificate; direct-ws one: too late",
    );
    expect(run.failures).toEqual([...error.attempts]);
  });

  test("fails at once when no route serves the target", async () => {
    expect((await noRoute(start([]))).attempts).toEqual([]);
    expect((await noRoute(start([new ManualRoute("other", { serves: false })]))).attempts).toEqual([]);
  });

  test("passes an error that is no refusal on, and gives the others up", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    const run = start([one, two, three]);
    jest.advanceTimersByTime(HEAD_START_MS);
    const bug = new TypeError("a bug");
    two.fail(bug);
    await expect(run.result).rejects.toBe(bug);
    await settle();
    expect(one.givenUp).toBe(true);
    jest.advanceTimersByTime(10 * HEAD_START_MS);
    expect(three.started).toBe(false);
  });
});

describe("openFirst(), staggered", () => {
  test("starts the next when the first has not answered within its head start", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    start([one, two, three]);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    expect(two.started).toBe(false);
    jest.advanceTimersByTime(1);
    expect(two.started).toBe(true);
    expect(one.givenUp).toBe(false);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    expect(three.started).toBe(false);
    jest.advanceTimersByTime(1);
    expect(three.started).toBe(true);
  });

  test("gives the next a head start of its own when one fails", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    start([one, two, three]);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    one.fail(refusal("REFUSED"));
    await settle();
    expect(two.started).toBe(true);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    expect(three.started).toBe(false);
    jest.advanceTimersByTime(1);
    expect(three.started).toBe(true);
  });

  test("takes the first that opens, gives the other up, and closes it when it opens all the same", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const run = start([one, two]);
    jest.advanceTimersByTime(HEAD_START_MS);
    const winner = two.succeed();
    expect((await run.result).route).toBe(two);
    expect(one.givenUp).toBe(true);
    const loser = one.succeed();
    await settle();
    expect(loser.closed).toBe(true);
    expect(winner.closed).toBe(false);
  });

  test("takes the slow first one when it still opens first", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const run = start([one, two]);
    jest.advanceTimersByTime(HEAD_START_MS);
    one.succeed();
    expect((await run.result).route).toBe(one);
    expect(two.givenUp).toBe(true);
    two.fail(refusal("ABORTED"));
    await settle();
    expect(run.failures).toEqual([]);
    expect(run.cooldowns.cooling("two")).toBe(false);
  });

  test("waits for the slow one when the other has failed", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const run = start([one, two]);
    jest.advanceTimersByTime(HEAD_START_MS);
    two.fail(refusal("REFUSED"));
    await settle();
    one.succeed();
    expect((await run.result).route).toBe(one);
  });
});

describe("openFirst() and cooldowns", () => {
  test("tries endpoints that failed lately last, in their order", async () => {
    const routes = ["one", "two", "three", "four"].map((name) => new ManualRoute(name));
    const cooldowns = new Cooldowns();
    cooldowns.failed("one", "REDIRECT");
    cooldowns.failed("three", "TIMEOUT");
    const run = start(routes, { cooldowns });
    const order: string[] = [];
    for (const _ of routes) {
      const current = routes.find((route) => route.started && !order.includes(route.name));
      order.push(current?.name ?? "none");
      current?.fail(refusal("REFUSED"));
      await settle();
    }
    expect(order).toEqual(["two", "four", "one", "three"]);
    expect((await noRoute(run)).attempts).toHaveLength(4);
  });

  test("cools an endpoint that failed, and no longer one that opened", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const cooldowns = new Cooldowns();
    cooldowns.failed("two", "TIMEOUT");
    const run = start([one, two], { cooldowns });
    one.fail(refusal("TLS"));
    await settle();
    two.succeed();
    await run.result;
    expect(cooldowns.cooling("one")).toBe(true);
    expect(cooldowns.cooling("two")).toBe(false);
  });

  test("cools one that was overtaken in spite of its head start, as a TIMEOUT", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const cooldowns = new Cooldowns(() => performance.now());
    const run = start([one, two], { cooldowns });
    jest.advanceTimersByTime(HEAD_START_MS);
    two.succeed();
    await run.result;
    one.fail(refusal("ABORTED"));
    await settle();
    expect(cooldowns.cooling("one")).toBe(true);
    expect(cooldowns.cooling("two")).toBe(false);
    expect(run.failures).toEqual([]);
    jest.advanceTimersByTime(29_999);
    expect(cooldowns.cooling("one")).toBe(true);
    jest.advanceTimersByTime(1);
    expect(cooldowns.cooling("one")).toBe(false);
  });

  test("does not cool one that had less than its head start", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    const run = start([one, two, three]);
    jest.advanceTimersByTime(HEAD_START_MS);
    one.fail(refusal("REFUSED"));
    await settle();
    expect(three.started).toBe(true);
    jest.advanceTimersByTime(HEAD_START_MS - 1);
    three.succeed();
    await run.result;
    expect(run.cooldowns.cooling("two")).toBe(false);
  });

  test("leaves the cooldown of a loser alone when the caller has left", async () => {
    const [one, two] = [new ManualRoute("one"), new ManualRoute("two")];
    const caller = new AbortController();
    const run = start([one, two], { signal: caller.signal });
    jest.advanceTimersByTime(HEAD_START_MS);
    caller.abort();
    two.succeed();
    await noRoute(run);
    await settle();
    expect(run.cooldowns.cooling("one")).toBe(false);
  });

  test("tries an only route although it is cooling", async () => {
    const one = new ManualRoute("one");
    const cooldowns = new Cooldowns();
    cooldowns.failed("one", "REDIRECT");
    const run = start([one], { cooldowns });
    one.succeed();
    expect((await run.result).route).toBe(one);
  });
});

describe("openFirst() with a caller who leaves", () => {
  test("gives every attempt up, starts no other, and rejects with what was refused so far", async () => {
    const [one, two, three] = [new ManualRoute("one"), new ManualRoute("two"), new ManualRoute("three")];
    const caller = new AbortController();
    const run = start([one, two, three], { signal: caller.signal });
    one.fail(refusal("REFUSED"));
    await settle();
    caller.abort();
    expect((await noRoute(run)).attempts.map(({ endpoint }) => endpoint)).toEqual(["one"]);
    expect(two.givenUp).toBe(true);
    two.fail(refusal("ABORTED"));
    jest.advanceTimersByTime(10 * HEAD_START_MS);
    await settle();
    expect(three.started).toBe(false);
    expect(run.failures).toHaveLength(1);
  });

  test("closes what opens after that", async () => {
    const one = new ManualRoute("one");
    const caller = new AbortController();
    const run = start([one], { signal: caller.signal });
    caller.abort();
    await noRoute(run);
    const late = one.succeed();
    await settle();
    expect(late.closed).toBe(true);
  });

  test("starts nothing for one who has left before", async () => {
    const one = new ManualRoute("one");
    const run = start([one], { signal: AbortSignal.abort() });
    await noRoute(run);
    expect(one.started).toBe(false);
  });

  test("does not close what it has handed out", async () => {
    const one = new ManualRoute("one");
    const caller = new AbortController();
    const run = start([one], { signal: caller.signal });
    const channel = one.succeed();
    await run.result;
    caller.abort();
    await settle();
    expect(channel.closed).toBe(false);
  });
});
