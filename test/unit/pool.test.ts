import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import type { Cancel } from "../../src/core/cancel.ts";
import { RouteError } from "../../src/core/errors.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketChannel } from "../../src/net/websocket-channel.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { POOL_AGES, PooledRoute, type PoolOptions, type WarmableRoute } from "../../src/upstream/pool.ts";
import type { Upstream } from "../../src/upstream/route.ts";
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
  jest.useRealTimers();
  server[Symbol.dispose]();
});

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
  refuse: RouteError | undefined;
  /** While set, a dial waits for it. */
  gate: Promise<void> | undefined;

  endpoint({ dc, media, test }: Target): string {
    return `kws${dc === 203 ? 2 : dc}${media ? "-1" : ""}${test ? " (test)" : ""}`;
  }

  async dial(_: Target, __: Cancel): Promise<WebSocketChannel> {
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

  start(channel: WebSocketChannel, target: Target, { warm }: { readonly warm: boolean }): Upstream {
    channel.write(Uint8Array.of(target.dc));
    return { channel, link: plainLink, warm };
  }

  async open(target: Target): Promise<Upstream> {
    this.opens += 1;
    const { socket } = await server.open();
    return this.start(new WebSocketChannel(socket, new DrainPoller(), 64 * 1024), target, { warm: false });
  }
}

interface Setup {
  readonly pool: PooledRoute;
  readonly route: LoopbackRoute;
  readonly counts: { hits: number; misses: number };
}

function setUp(options: Partial<PoolOptions> = {}): Setup {
  const route = new LoopbackRoute();
  const counts = { hits: 0, misses: 0 };
  pool = new PooledRoute(route, { size: 2, ...POOL_AGES, ...options }, counts);
  return { pool, route, counts };
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
  (await pool.open(target, never)).channel.destroy();
  const already = server.connections.length;
  for (let warm = 1; warm <= count; warm += 1) {
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await refilled(route, warm);
  }
  return server.connections.slice(already);
}

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

  test("rejects with the route's refusal on a miss", async () => {
    const { pool, route } = setUp();
    const refusal = new RouteError("REDIRECT", "HTTP 302");
    route.open = () => Promise.reject(refusal);
    await expect(pool.open(TARGET, never)).rejects.toBe(refusal);
  });
});

describe("PooledRoute, refilling", () => {
  test("opens connections one after the other, up to its size", async () => {
    const setup = setUp({ size: 2 });
    await setup.pool.open(TARGET, never);
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
    await pool.open(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    for (let client = 0; client < 5; client += 1) {
      await pool.open(TARGET, never);
      jest.advanceTimersByTime(REFILL_GAP_MS);
    }
    expect(route.dials).toBe(1);
    gate.resolve();
  });

  test("keeps nothing with a size of 0", async () => {
    const { pool, route } = setUp({ size: 0 });
    await pool.open(TARGET, never);
    jest.advanceTimersByTime(2 * UPKEEP_MS);
    expect(route.dials).toBe(0);
  });

  test("opens nothing before a client has asked", () => {
    const { route } = setUp();
    jest.advanceTimersByTime(4 * UPKEEP_MS);
    expect(route.dials).toBe(0);
  });

  test("waits longer after every failure, up to two minutes, and no longer after success", async () => {
    const { pool, route } = setUp({ wantedForMs: 10 * 3_600_000, size: 1 });
    route.refuse = new RouteError("REFUSED", "connection refused");
    await pool.open(TARGET, never);
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
    await pool.open(TARGET, never);
    jest.advanceTimersByTime(REFILL_GAP_MS);
    await settle();
    for (let client = 0; client < 5; client += 1) {
      await pool.open(TARGET, never);
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

describe("PooledRoute.close()", () => {
  test("drops every warm connection, and opens no more", async () => {
    const setup = setUp();
    const connections = await warmUp(setup, 2);
    setup.pool.close();
    await eventually(() => connections.every(({ closed }) => closed));
    const { dials } = setup.route;
    await setup.pool.open(TARGET, never);
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
    await pool.open(TARGET, never);
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
    await pool.open(TARGET, never);
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
