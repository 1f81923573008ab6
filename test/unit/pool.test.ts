import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import type { Cancel } from "../../src/core/cancel.ts";
import { RouteError } from "../../src/core/errors.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketChannel } from "../../src/net/websocket-channel.ts";
import { type DcTarget, describeTarget, type Target } from "../../src/protocol/mtproto/dc.ts";
import {
  POOL_AGES,
  PooledRoute,
  type PoolOptions,
  type WarmableRoute,
  type WarmableWay,
} from "../../src/upstream/pool.ts";
import type { Upstream, Way, WayAddress } from "../../src/upstream/route.ts";
import { plainLink, settle } from "../support/memory-channel.ts";
import { eventually, type FrameConnection, FrameServer } from "./frame-server.ts";

const TARGET: Target = { dc: 2, media: false, test: false, transport: "abridged" };
const REFILL_GAP_MS = 150;
const UPKEEP_MS = 15_000;
const never = new AbortController().signal;

let server: FrameServer;
let pool: PooledRoute | undefined;

beforeEach(async () => {
  server = await FrameServer.start();
  jest.useFakeTimers();
});
afterEach(() => {
  pool?.close();
  pool = undefined;
  jest.useRealTimers();
  server[Symbol.dispose]();
});

/** One way of a {@link LoopbackRoute}. */
class LoopbackWay implements WarmableWay {
  readonly route = "direct-ws";
  readonly endpoint: string;
  readonly group = "direct-ws";
  readonly key: string;
  readonly #owner: LoopbackRoute;

  constructor(owner: LoopbackRoute, { dc, media, test }: DcTarget) {
    this.#owner = owner;
    this.endpoint = `DC ${dc}${media ? " media" : ""}${test ? " (test)" : ""}`;
    this.key = `kws${dc === 203 ? 2 : dc}${media ? "-1" : ""}${test ? " (test)" : ""}`;
  }

  get address(): WayAddress {
    return { host: this.key, port: 443, webSocket: undefined };
  }

  readRetryAfter(): Promise<number | undefined> {
    return Promise.resolve(7_000);
  }

  dial(): Promise<WebSocketChannel> {
    return this.#owner.dial();
  }

  start(channel: WebSocketChannel, target: Target, { warm }: { readonly warm: boolean }): Upstream {
    channel.write(Uint8Array.of(target.dc));
    return { channel, link: plainLink, warm };
  }

  async open(target: Target): Promise<Upstream> {
    this.#owner.opens += 1;
    if (this.#owner.refuseToOpen !== undefined) throw this.#owner.refuseToOpen;
    const { socket } = await server.open();
    return this.start(new WebSocketChannel(socket, new DrainPoller(), 64 * 1024), target, { warm: false });
  }
}

/** Opens real WebSockets to the frame server, and does as the test says. */
class LoopbackRoute implements WarmableRoute {
  readonly id = "direct-ws";
  /** Attempts to open a connection ahead of time. */
  dials = 0;
  /** Connections opened for a client that waited. */
  opens = 0;
  readonly dialled: WebSocketChannel[] = [];
  /** Pongs that have come, over all connections. */
  pongs = 0;
  /** What a dial ahead of time throws, and what an opening for a client throws. */
  refuse: RouteError | undefined;
  refuseToOpen: RouteError | undefined;
  /** While set, a dial waits for it. */
  gate: Promise<void> | undefined;
  readonly #ways = new Map<string, readonly LoopbackWay[]>();

  ways(target: DcTarget): readonly LoopbackWay[] {
    const name = describeTarget(target);
    const ways = this.#ways.get(name) ?? [new LoopbackWay(this, target)];
    this.#ways.set(name, ways);
    return ways;
  }

  async dial(): Promise<WebSocketChannel> {
    this.dials += 1;
    await this.gate;
    if (this.refuse !== undefined) throw this.refuse;
    const { socket } = await server.open().catch((cause: unknown) => {
      throw new RouteError("CLOSED", "the test is over", { cause });
    });
    socket.addEventListener("pong", () => {
      this.pongs += 1;
    });
    const channel = new WebSocketChannel(socket, new DrainPoller(), 64 * 1024);
    this.dialled.push(channel);
    return channel;
  }
}

/** A pool, with its only way to a target. */
class TestPool extends PooledRoute {
  way(target: DcTarget): Way {
    const [way] = this.ways(target);
    if (way === undefined) throw new Error("There is no way");
    return way;
  }

  open(target: Target, signal: Cancel): Promise<Upstream> {
    return this.way(target).open(target, signal);
  }

  /** Opens, and a client gets its answer: from then on, the place is kept warm. */
  async serve(target: Target, signal: Cancel): Promise<Upstream> {
    const upstream = await this.open(target, signal);
    this.way(target).served?.();
    return upstream;
  }
}

interface Setup {
  readonly pool: TestPool;
  readonly route: LoopbackRoute;
  readonly counts: { hits: number; misses: number };
}

function setUp(options: Partial<PoolOptions> = {}): Setup {
  const route = new LoopbackRoute();
  const counts = { hits: 0, misses: 0 };
  const made = new TestPool(route, { size: 2, ...POOL_AGES, ...options }, counts);
  pool?.close();
  pool = made;
  return { pool: made, route, counts };
}

/** Waits until `count` connections have been opened ahead of time and put in their place. */
async function refilled(route: LoopbackRoute, count: number): Promise<void> {
  await eventually(() => route.dialled.length === count);
  await settle(2);
}

/** Lets refills come one after the other until `count` connections are warm. */
async function warmUp(
  { pool, route }: Setup,
  count: number,
  target: Target = TARGET,
): Promise<FrameConnection[]> {
  (await pool.serve(target, never)).channel.destroy();
  const already = server.connections.length;
  for (let warm = 1; warm <= count; warm += 1) {
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(route, warm);
  }
  return server.connections.slice(already);
}

describe("PooledRoute.ways()", () => {
  test("gives the same way each time, with the names of the way behind it", async () => {
    const { pool, route } = setUp();
    expect(pool.id).toBe("direct-ws");
    const [way] = pool.ways(TARGET);
    const [behind] = route.ways(TARGET);
    expect(pool.ways({ dc: 2, media: false, test: false })[0]).toBe(way as Way);
    expect(pool.ways({ ...TARGET, media: true })[0]).not.toBe(way as Way);
    expect(way).toMatchObject({ route: "direct-ws", endpoint: "DC 2", group: "direct-ws" });
    expect(way?.address).toEqual(behind?.address as WayAddress);
    expect(await way?.readRetryAfter?.()).toBe(7_000);
  });

  test("gives the way without the pool as well, for those who want to know how it is now", async () => {
    const setup = setUp();
    await warmUp(setup, 1);
    const { cold } = setup.pool.way(TARGET);
    expect(cold).toBe(setup.route.ways(TARGET)[0] as Way);
    const { dials, opens } = setup.route;
    expect((await cold?.open(TARGET, never))?.warm).toBe(false);
    expect(setup.route).toMatchObject({ dials, opens: opens + 1 });
    expect(setup.counts).toEqual({ hits: 0, misses: 1 });
    expect((await setup.pool.open(TARGET, never)).warm).toBe(true);
  });

  test("gives none where the route has none", () => {
    const { pool, route } = setUp();
    route.ways = () => [];
    expect(pool.ways(TARGET)).toEqual([]);
  });
});

describe("PooledRoute.open()", () => {
  test("opens a connection for the first client, and counts a miss", async () => {
    const { pool, route, counts } = setUp();
    const { warm } = await pool.open(TARGET, never);
    expect(warm).toBe(false);
    expect(route.opens).toBe(1);
    expect(counts).toEqual({ hits: 0, misses: 1 });
  });

  test("hands the next client a connection that is open already, and counts a hit", async () => {
    const setup = setUp();
    await warmUp(setup, 1);
    const { channel, warm } = await setup.pool.open(TARGET, never);
    expect(warm).toBe(true);
    expect(channel).toBe(setup.route.dialled[0] as WebSocketChannel);
    expect(setup.route.opens).toBe(1);
    expect(setup.counts).toEqual({ hits: 1, misses: 1 });
  });

  test("hands out the oldest first, each once", async () => {
    const setup = setUp();
    await warmUp(setup, 2);
    const first = await setup.pool.open(TARGET, never);
    const second = await setup.pool.open(TARGET, never);
    const third = await setup.pool.open(TARGET, never);
    expect([first.channel, second.channel]).toEqual(setup.route.dialled);
    expect(third.warm).toBe(false);
    expect(setup.counts).toEqual({ hits: 2, misses: 2 });
  });

  test("sends nothing on a connection before it is handed out", async () => {
    const setup = setUp();
    const [connection] = await warmUp(setup, 1);
    await settle(50);
    expect(connection?.messages).toEqual([]);
    await setup.pool.open({ ...TARGET, dc: 203 }, never);
    await eventually(() => connection?.messages.length === 1);
    expect(connection?.messages).toEqual([Buffer.of(203)]);
  });

  test("keeps data centres, media and the test environment apart", async () => {
    const setup = setUp();
    await warmUp(setup, 1);
    for (const other of [{ dc: 4 }, { media: true }, { test: true }]) {
      expect((await setup.pool.open({ ...TARGET, ...other }, never)).warm).toBe(false);
    }
    expect((await setup.pool.open({ ...TARGET, transport: "padded" }, never)).warm).toBe(true);
  });

  test("shares what is warm between ways of the same key, such as those of DC 2 and DC 203", async () => {
    const setup = setUp();
    const [connection] = await warmUp(setup, 1);
    expect(setup.route.ways(TARGET)[0]).not.toBe(setup.route.ways({ ...TARGET, dc: 203 })[0]);
    const { channel, warm } = await setup.pool.open({ ...TARGET, dc: 203 }, never);
    expect(warm).toBe(true);
    expect(channel).toBe(setup.route.dialled[0] as WebSocketChannel);
    await eventually(() => connection?.messages.length === 1);
    expect(setup.counts).toEqual({ hits: 1, misses: 1 });
  });

  test("counts apart for each pool", async () => {
    const one = setUp();
    const two = { hits: 0, misses: 0 };
    const cf = new TestPool(new LoopbackRoute(), { size: 1, ...POOL_AGES }, two);
    await warmUp(one, 1);
    await one.pool.open(TARGET, never);
    await cf.open(TARGET, never);
    await cf.open(TARGET, never);
    cf.close();
    expect(one.counts).toEqual({ hits: 1, misses: 1 });
    expect(two).toEqual({ hits: 0, misses: 2 });
  });

  test("rejects with the route's refusal on a miss", async () => {
    const { pool, route } = setUp();
    const refusal = new RouteError("REDIRECT", "HTTP 302");
    route.refuseToOpen = refusal;
    await expect(pool.open(TARGET, never)).rejects.toBe(refusal);
  });
});

describe("PooledRoute, refilling", () => {
  test("opens connections one after the other, up to its size", async () => {
    const setup = setUp({ size: 2 });
    await setup.pool.serve(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS - 1);
    expect(setup.route.dials).toBe(0);
    jest.advanceTimersByTime(1);
    expect(setup.route.dials).toBe(1);
    await refilled(setup.route, 1);
    expect(setup.route.dials).toBe(1);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    expect(setup.route.dials).toBe(2);
    await refilled(setup.route, 2);
    jest.advanceTimersByTime(10 * REFILL_GAP_MS);
    await settle();
    expect(setup.route.dials).toBe(2);
  });

  test("replaces what it has handed out", async () => {
    const setup = setUp({ size: 1 });
    await warmUp(setup, 1);
    await setup.pool.open(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(setup.route, 2);
    expect((await setup.pool.open(TARGET, never)).warm).toBe(true);
  });

  test("does not dial twice at a time for the same place", async () => {
    const { pool, route } = setUp();
    const gate = Promise.withResolvers<void>();
    route.gate = gate.promise;
    await pool.serve(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    for (let client = 0; client < 5; client += 1) {
      await pool.serve(TARGET, never);
      jest.advanceTimersByTime(REFILL_GAP_MS);
    }
    expect(route.dials).toBe(1);
    gate.resolve();
  });

  test("keeps nothing with a size of 0", async () => {
    const { pool, route } = setUp({ size: 0 });
    await pool.serve(TARGET, never);
    jest.advanceTimersByTime(2 * UPKEEP_MS);
    expect(route.dials).toBe(0);
  });

  test("opens nothing before a client has asked", () => {
    const { route } = setUp();
    jest.advanceTimersByTime(4 * UPKEEP_MS);
    expect(route.dials).toBe(0);
  });

  test("opens nothing because a way was opened: what merely opens may carry nothing", async () => {
    const { pool, route } = setUp();
    for (let client = 0; client < 3; client += 1) {
      await pool.open(TARGET, never);
      jest.advanceTimersByTime(UPKEEP_MS);
      await settle();
    }
    expect(route.dials).toBe(0);
  });

  test("begins when a client has been served, for this place only", async () => {
    const { pool, route } = setUp();
    const other = { ...TARGET, dc: 4 };
    await pool.open(TARGET, never);
    await pool.open(other, never);
    pool.way(TARGET).served?.();
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(route, 1);
    expect((await pool.open(other, never)).warm).toBe(false);
    expect((await pool.open(TARGET, never)).warm).toBe(true);
  });

  test("waits longer after every failure, up to two minutes, and no longer after success", async () => {
    const { pool, route } = setUp({ wantedForMs: 10 * 3_600_000, size: 1 });
    route.refuse = new RouteError("REFUSED", "connection refused");
    await pool.serve(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await settle();
    expect(route.dials).toBe(1);
    for (const backOff of [5_000, 10_000, 20_000, 40_000, 80_000, 120_000, 120_000]) {
      const { dials } = route;
      jest.advanceTimersByTime(backOff - 1);
      await settle();
      expect(route.dials).toBe(dials);
      jest.advanceTimersByTime(1);
      await settle();
      expect(route.dials).toBe(dials + 1);
    }
    route.refuse = undefined;
    jest.advanceTimersByTime(120_000);
    await refilled(route, 1);
    await pool.open(TARGET, never);
    const { dials } = route;
    jest.advanceTimersByTime(REFILL_GAP_MS);
    expect(route.dials).toBe(dials + 1);
  });

  test("does not hurry for clients while it waits after a failure", async () => {
    const { pool, route } = setUp();
    route.refuse = new RouteError("TIMEOUT", "nothing came");
    await pool.serve(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await settle();
    for (let client = 0; client < 5; client += 1) {
      await pool.serve(TARGET, never);
      jest.advanceTimersByTime(REFILL_GAP_MS);
    }
    expect(route.dials).toBe(1);
  });

  test("lets go of a data centre that nobody has wanted for a time", async () => {
    const setup = setUp({ wantedForMs: 40_000 });
    const connections = await warmUp(setup, 2);
    await eventually(() => setup.route.pongs === 2); // both were asked when they were stored
    for (const pongs of [4, 6]) {
      jest.advanceTimersByTime(UPKEEP_MS);
      await eventually(() => setup.route.pongs === pongs);
    }
    expect(connections.map(({ closed }) => closed)).toEqual([false, false]);
    jest.advanceTimersByTime(UPKEEP_MS);
    await eventually(() => connections.every(({ closed }) => closed));
    const { dials } = setup.route;
    jest.advanceTimersByTime(10 * UPKEEP_MS);
    expect(setup.route.dials).toBe(dials);
    expect((await setup.pool.open(TARGET, never)).warm).toBe(false);
  });

  test.each([
    ["does not keep a data centre for longer because it was opened", "open", 3],
    ["keeps a data centre for longer when it has served again", "serve", 5],
  ] as const)("%s", async (_, use, rounds) => {
    const setup = setUp({ wantedForMs: 40_000 });
    const connections = await warmUp(setup, 2);
    let passed = 0;
    const round = async (): Promise<void> => {
      jest.advanceTimersByTime(UPKEEP_MS);
      await settle();
      passed += 1;
    };
    await round();
    await round();
    (await setup.pool[use](TARGET, never)).channel.destroy();
    while (!connections.every(({ closed }) => closed) && passed < 10) await round();
    expect(passed).toBe(rounds);
  });
});

describe("PooledRoute, a way that failed", () => {
  test("loses its warm connections, and gets no new ones", async () => {
    const setup = setUp();
    const connections = await warmUp(setup, 2);
    setup.pool.way(TARGET).failed?.();
    await eventually(() => connections.every(({ closed }) => closed));
    expect((await setup.pool.open(TARGET, never)).warm).toBe(false);
    jest.advanceTimersByTime(4 * UPKEEP_MS);
    await settle();
    expect(setup.route.dials).toBe(2);
  });

  test("takes those of the same key with it, and no others", async () => {
    const setup = setUp({ size: 1 });
    await warmUp(setup, 1);
    const other = { ...TARGET, dc: 4 };
    await setup.pool.serve(other, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(setup.route, 2);
    setup.pool.way({ ...TARGET, dc: 203 }).failed?.();
    expect((await setup.pool.open(TARGET, never)).warm).toBe(false);
    expect((await setup.pool.open(other, never)).warm).toBe(true);
  });

  test("drops the connection that was being opened", async () => {
    const { pool, route } = setUp({ size: 1 });
    await pool.serve(TARGET, never);
    const gate = Promise.withResolvers<void>();
    route.gate = gate.promise;
    jest.advanceTimersByTime(REFILL_GAP_MS);
    expect(route.dials).toBe(1);
    pool.way(TARGET).failed?.();
    gate.resolve();
    await refilled(route, 1);
    await eventually(() => route.dialled[0]?.open === false);
    jest.advanceTimersByTime(4 * UPKEEP_MS);
    expect(route.dials).toBe(1);
  });

  test("is kept warm again as soon as it has served again", async () => {
    const setup = setUp({ size: 1 });
    await warmUp(setup, 1);
    setup.pool.way(TARGET).failed?.();
    await setup.pool.serve(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(setup.route, 2);
    expect((await setup.pool.open(TARGET, never)).channel).toBe(setup.route.dialled[1] as WebSocketChannel);
  });

  test("does no harm where nothing is warm", () => {
    const { pool, route } = setUp();
    pool.way(TARGET).failed?.();
    jest.advanceTimersByTime(4 * UPKEEP_MS);
    expect(route.dials).toBe(0);
  });
});

describe("PooledRoute, unfit connections", () => {
  test("does not hand out one that the server has closed", async () => {
    const setup = setUp();
    const [connection] = await warmUp(setup, 1);
    connection?.close(1000);
    await eventually(() => setup.route.dialled[0]?.open === false);
    expect((await setup.pool.open(TARGET, never)).warm).toBe(false);
  });

  test("does not hand out one that has dropped, and replaces it by and by", async () => {
    const setup = setUp({ size: 1 });
    const [connection] = await warmUp(setup, 1);
    connection?.destroy();
    await eventually(() => setup.route.dialled[0]?.open === false);
    await settle();
    jest.advanceTimersByTime(UPKEEP_MS + REFILL_GAP_MS);
    await refilled(setup.route, 2);
    expect((await setup.pool.open(TARGET, never)).channel).toBe(setup.route.dialled[1] as WebSocketChannel);
  });

  test.each([
    ["older than its age", POOL_AGES.maxAgeMs + 1, false],
    ["exactly as old as it may be", POOL_AGES.maxAgeMs, true],
    ["from the future, as after the clock was set back", -1, false],
  ])("handles one that is %s", async (_, age, warm) => {
    const setup = setUp();
    const [connection] = await warmUp(setup, 1);
    const openedAt = setup.route.dialled[0]?.openedAt ?? 0;
    jest.setSystemTime(openedAt + age);
    expect((await setup.pool.open(TARGET, never)).warm).toBe(warm);
    if (!warm) await eventually(() => connection?.closed === true);
    expect(setup.counts).toEqual(warm ? { hits: 1, misses: 1 } : { hits: 0, misses: 2 });
  });

  test("drops old ones by itself, and opens new ones", async () => {
    const setup = setUp({ size: 1, maxAgeMs: 20_000 });
    const [connection] = await warmUp(setup, 1);
    jest.advanceTimersByTime(UPKEEP_MS);
    await eventually(() => setup.route.pongs === 1);
    expect(connection?.closed).toBe(false);
    jest.advanceTimersByTime(UPKEEP_MS);
    await eventually(() => connection?.closed === true);
    await settle();
    jest.advanceTimersByTime(UPKEEP_MS);
    await eventually(() => setup.route.dials === 2);
  });

  test("does not hand out one whose server no longer answers pings", async () => {
    const setup = setUp();
    const [connection] = await warmUp(setup, 1);
    if (connection === undefined) throw new Error("unreachable");
    jest.advanceTimersByTime(UPKEEP_MS);
    await eventually(() => setup.route.pongs === 1);
    connection.answerPings = false;
    jest.advanceTimersByTime(UPKEEP_MS);
    await eventually(() => connection.count("ping") === 2);
    jest.advanceTimersByTime(5_001);
    expect(setup.route.dialled[0]?.open).toBe(false);
    const { channel } = await setup.pool.open(TARGET, never);
    expect(channel).not.toBe(setup.route.dialled[0] as WebSocketChannel);
    await eventually(() => connection.closed);
  });

  test("drops one on which the server speaks first", async () => {
    const setup = setUp({ size: 1 });
    const [connection] = await warmUp(setup, 1);
    connection?.send(Uint8Array.of(1, 2, 3));
    await eventually(() => connection?.closed === true);
    expect((await setup.pool.open(TARGET, never)).warm).toBe(false);
  });
});

describe("PooledRoute.relieve()", () => {
  test("drops every warm connection, and opens new ones only after 5 s", async () => {
    const setup = setUp();
    const connections = await warmUp(setup, 2);
    setup.pool.relieve();
    await eventually(() => connections.every(({ closed }) => closed));
    jest.advanceTimersByTime(4_900);
    await settle();
    expect(setup.route.dials).toBe(2);
    jest.advanceTimersByTime(200);
    await refilled(setup.route, 3);
    expect((await setup.pool.open(TARGET, never)).warm).toBe(true);
  });
});

describe("PooledRoute.drop()", () => {
  test("drops every warm connection, and opens new ones at once", async () => {
    const setup = setUp();
    const connections = await warmUp(setup, 2);
    setup.pool.drop();
    await eventually(() => connections.every(({ closed }) => closed));
    await settle();
    expect(setup.route.dials).toBe(2);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(setup.route, 3);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(setup.route, 4);
    const { channel, warm } = await setup.pool.open(TARGET, never);
    expect(warm).toBe(true);
    expect(channel).toBe(setup.route.dialled[2] as WebSocketChannel);
  });

  test("hands out nothing of what it has dropped, also when a client comes in the same moment", async () => {
    const setup = setUp();
    await warmUp(setup, 2);
    setup.pool.drop();
    expect((await setup.pool.open(TARGET, never)).warm).toBe(false);
  });

  test("keeps what it has handed out", async () => {
    const setup = setUp();
    await warmUp(setup, 1);
    const { channel } = await setup.pool.open(TARGET, never);
    setup.pool.drop();
    await settle(50);
    expect(channel).toMatchObject({ open: true });
    channel.destroy();
  });

  test("ends the wait after a failure, which says nothing about the new network", async () => {
    const { pool, route } = setUp();
    route.refuse = new RouteError("UNREACHABLE", "no network");
    await pool.serve(TARGET, never);
    for (const backOff of [REFILL_GAP_MS, 5_000, 10_000]) {
      jest.advanceTimersByTime(backOff);
      await settle();
    }
    expect(route.dials).toBe(3);
    pool.drop();
    jest.advanceTimersByTime(REFILL_GAP_MS);
    expect(route.dials).toBe(4);
    await settle();
    jest.advanceTimersByTime(4_999);
    expect(route.dials).toBe(4);
    jest.advanceTimersByTime(1);
    expect(route.dials).toBe(5);
  });

  test("does not refill what nobody wants any more, and nothing after close", async () => {
    const { pool, route } = setUp({ wantedForMs: 1_000 });
    await pool.serve(TARGET, never);
    jest.setSystemTime(Date.now() + 1_001);
    pool.drop();
    jest.advanceTimersByTime(REFILL_GAP_MS);
    pool.close();
    pool.drop();
    jest.advanceTimersByTime(UPKEEP_MS);
    expect(route.dials).toBe(0);
    expect(jest.getTimerCount()).toBe(0);
  });
});

describe("PooledRoute.close()", () => {
  test("drops every warm connection, and opens no more", async () => {
    const setup = setUp();
    const connections = await warmUp(setup, 2);
    setup.pool.close();
    await eventually(() => connections.every(({ closed }) => closed));
    const { dials } = setup.route;
    await setup.pool.serve(TARGET, never);
    jest.advanceTimersByTime(4 * UPKEEP_MS);
    expect(setup.route.dials).toBe(dials);
  });

  test("keeps what it has handed out", async () => {
    const setup = setUp();
    await warmUp(setup, 1);
    const { channel } = await setup.pool.open(TARGET, never);
    setup.pool.close();
    await settle(50);
    expect(channel).toMatchObject({ open: true });
    channel.destroy();
  });

  test("drops one that opens afterwards", async () => {
    const { pool, route } = setUp();
    const gate = Promise.withResolvers<void>();
    route.gate = gate.promise;
    await pool.serve(TARGET, never);
    const clients = server.connections.length;
    jest.advanceTimersByTime(REFILL_GAP_MS);
    pool.close();
    gate.resolve();
    await eventually(() => server.connections.length > clients && server.connections.at(-1)?.closed === true);
  });
});

describe("PooledRoute, a refill that outlives its place", () => {
  test("drops a connection that opens when its data centre is no longer wanted", async () => {
    const { pool, route } = setUp({ wantedForMs: 20_000 });
    await pool.serve(TARGET, never);
    const gate = Promise.withResolvers<void>();
    route.gate = gate.promise;
    jest.advanceTimersByTime(REFILL_GAP_MS);
    jest.advanceTimersByTime(2 * UPKEEP_MS); // the place is given up while the dial is under way
    gate.resolve();
    await refilled(route, 1);
    jest.advanceTimersByTime(20 * UPKEEP_MS);
    await settle(50);
    expect(route.dialled[0]?.open).toBe(false);
  });
});
