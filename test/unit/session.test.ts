import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { connect } from "node:net";
import type { Cancel } from "../../src/core/cancel.ts";
import { NoRouteError, RouteError } from "../../src/core/errors.ts";
import type { SessionEvent } from "../../src/core/events.ts";
import { IpNetwork } from "../../src/core/ip-network.ts";
import { listenTcp } from "../../src/net/tcp-listen.ts";
import { Stats } from "../../src/observe/stats.ts";
import { snapshotOf } from "../../src/observe/stats-text.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { defaultProfile } from "../../src/protocol/tls/cover-profile.ts";
import { Cover } from "../../src/proxy/cover.ts";
import { FakeTls } from "../../src/proxy/fake-tls.ts";
import { OPEN_GATE } from "../../src/proxy/gate.ts";
import { ANY_FORM } from "../../src/proxy/handshake.ts";
import { SiteUsers } from "../../src/proxy/mask.ts";
import { ReplayBudget } from "../../src/proxy/replay.ts";
import { SeenHellos } from "../../src/proxy/seen-hellos.ts";
import { type QuietLimits, Session, type SessionDeps } from "../../src/proxy/session.ts";
import type { Route, RouteId, Upstream, Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";
import { buildHello, type HelloOptions } from "../support/fake-tls-hello.ts";
import {
  type MemoryChannel,
  memoryChannelPair,
  plainLink,
  RecordingSink,
  settle,
} from "../support/memory-channel.ts";
import { makeInit } from "../support/obfuscated2.ts";
import { eventually } from "./frame-server.ts";

const SECRET = { name: "family", key: new Uint8Array(16).fill(9) };
const HANDSHAKE_TIMEOUT_MS = 10_000;
const LIMITS: QuietLimits = {
  idleMs: 60_000,
  closingMs: 20_000,
  pingMs: 30_000,
  stalledMs: 5_000,
  silentMs: 10_000,
};
/** One whole abridged packet: clients ask with one, and Telegram answers with one. */
const PACKET = Uint8Array.of(0x01, 1, 2, 3, 4);

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** A route of one way into memory; Telegram's end of every connection is kept. */
class MemoryRoute implements Route, Way {
  readonly id: RouteId;
  readonly route: RouteId;
  readonly endpoint: string;
  readonly group: string;
  readonly address = { host: "192.0.2.1", port: 443, webSocket: undefined };
  readonly opened: { telegram: MemoryChannel; hears: RecordingSink; own: MemoryChannel }[] = [];
  readonly targets: Target[] = [];
  failure: unknown;
  hang = false;
  givenUp = false;
  /** Times that it was told that it serves, and that it does not carry. */
  services = 0;
  faults = 0;
  /** Opening waits for it. */
  gate: Promise<void> | undefined;
  /** Its channels have no sign that Telegram is there. */
  unanswered = false;

  constructor(id: RouteId = "direct-ws") {
    this.id = id;
    this.route = id;
    this.endpoint = `memory of ${id}`;
    this.group = id;
  }

  ways(): readonly Way[] {
    return [this];
  }

  served(): void {
    this.services += 1;
  }

  failed(): void {
    this.faults += 1;
  }

  async open(target: Target, signal: Cancel): Promise<Upstream> {
    this.targets.push(target);
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    if (this.hang) {
      const { promise, reject } = Promise.withResolvers<Upstream>();
      signal.addEventListener("abort", () => {
        this.givenUp = true;
        reject(new RouteError("ABORTED", "given up"));
      });
      return promise;
    }
    const [telegram, own] = memoryChannelPair(1024 * 1024);
    own.unanswered = this.unanswered;
    const hears = new RecordingSink();
    telegram.attach(hears);
    this.opened.push({ telegram, hears, own });
    return { channel: own, link: plainLink, warm: false };
  }
}

interface Setup {
  readonly app: MemoryChannel;
  readonly appHears: RecordingSink;
  readonly route: MemoryRoute;
  readonly standings: Standings;
  /** Which way served which target, as the owner heard it. */
  readonly served: { readonly target: Target; readonly ways: readonly Way[]; readonly by: Way }[];
  readonly session: Session;
  readonly events: SessionEvent[];
  /** What the session's owner was told is over. */
  readonly gone: Session[];
  readonly done: Promise<void>;
}

function setUp(deps: Partial<SessionDeps> = {}): Setup {
  const [app, channel] = memoryChannelPair();
  const appHears = new RecordingSink();
  app.attach(appHears);
  const route = new MemoryRoute();
  const events: SessionEvent[] = [];
  const gone: Session[] = [];
  const standings = new Standings();
  const served: Setup["served"] = [];
  const session = new Session(
    7,
    "192.0.2.1",
    channel,
    {
      secrets: [SECRET],
      forms: ANY_FORM,
      disguise: undefined,
      trustedProxies: undefined,
      routes: [route],
      standings,
      replays: new ReplayBudget(),
      onServed: (target, ways, by) => served.push({ target, ways, by }),
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      gate: OPEN_GATE,
      addresses: undefined,
      adjustTarget: (target) => target,
      ...deps,
      observe: (event) => {
        events.push(event);
        deps.observe?.(event);
      },
    },
    (over) => gone.push(over),
  );
  return { app, appHears, route, standings, served, session, events, gone, done: session.run() };
}

const types = (events: readonly SessionEvent[]): string[] => events.map(({ type }) => type);

function ending({ events, gone, session }: Setup): Extract<SessionEvent, { type: "ended" }> {
  const ended = events.filter((event) => event.type === "ended");
  const [only] = ended;
  if (only === undefined || ended.length > 1) throw new Error(`it ended ${ended.length} times`);
  expect(events.at(-1)).toBe(only);
  expect(gone).toEqual([session]);
  return only;
}

/** A session whose client is through the handshake. */
interface Connected extends Setup {
  readonly client: ReturnType<typeof makeInit>;
  readonly telegram: MemoryChannel;
  readonly telegramHears: RecordingSink;
  readonly own: MemoryChannel;
}

/** One whose upstream is open, and has not been asked anything. */
async function setUpConnected(deps: Partial<SessionDeps> = {}): Promise<Connected> {
  const setup = setUp(deps);
  const client = makeInit({ transport: "abridged", dcId: 4 }, SECRET.key);
  setup.app.write(client.bytes);
  await eventually(() => setup.events.some(({ type }) => type === "connected"));
  const [route = setup.route] = (deps.routes ?? []).filter((route) => route instanceof MemoryRoute);
  const [upstream] = route.opened;
  if (upstream === undefined) throw new Error("unreachable");
  const { telegram, hears, own } = upstream;
  return { ...setup, client, telegram, telegramHears: hears, own };
}

/** One whose client has asked, and has got `answer`: 5 bytes have gone up, and those of `answer` down. */
async function setUpAnswered(answer: Uint8Array = PACKET): Promise<Connected> {
  const setup = await setUpConnected();
  setup.app.write(setup.client.up.update(PACKET));
  await setup.telegramHears.until(({ length }) => length === PACKET.length);
  setup.telegram.write(answer);
  await setup.appHears.until(({ length }) => length === answer.length);
  return setup;
}

/** One whose client has sent so much that nobody waited for the first answer, of which there is none. */
async function setUpUnproved(deps: Partial<SessionDeps> = {}): Promise<Connected> {
  const setup = await setUpConnected({ replays: new ReplayBudget(64 * 1_024), ...deps });
  for (let sent = 0; sent <= 64; sent += 1) setup.app.write(setup.client.up.update(new Uint8Array(1_024)));
  await setup.telegramHears.until(({ length }) => length === 65 * 1_024);
  await settle();
  return setup;
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

/** Codes of the `route-failed` events. */
const failures = (events: readonly SessionEvent[]): string[] =>
  events.flatMap((event) => (event.type === "route-failed" ? [event.attempt.error.code] : []));

describe("Session.run()", () => {
  test("joins a client to the route that opens, decrypted on the way up and encrypted on the way down", async () => {
    const setup = setUp();
    const { app, appHears, route, session, events, done } = setup;
    const client = makeInit({ transport: "intermediate", dcId: -203 }, SECRET.key);
    app.write(Buffer.concat([client.bytes, client.up.update(Buffer.from("early "))]));
    await eventually(() => route.opened.length === 1);
    app.write(client.up.update(Buffer.from("and late")));
    const [upstream] = route.opened;
    await upstream?.hears.until(({ length }) => length === 14);
    expect(Buffer.from(upstream?.hears.bytes ?? []).toString()).toBe("early and late");
    upstream?.telegram.write(Buffer.from("\x04\0\0\0fine"));
    await appHears.until(({ length }) => length === 8);
    expect(Buffer.from(client.down.update(appHears.bytes)).toString()).toBe("\x04\0\0\0fine");

    expect(route.targets).toEqual([{ dc: 203, media: true, test: false, transport: "intermediate" }]);
    expect(session).toMatchObject({
      id: 7,
      client: "192.0.2.1",
      secret: "family",
      target: "DC 203 media",
      dc: 203,
      route: "direct-ws",
      endpoint: "memory of direct-ws",
      counts: { up: 14, down: 8 },
    });
    app.end();
    upstream?.telegram.end();
    await done;
    expect(types(events)).toEqual(["started", "identified", "attempt", "connected", "ended"]);
    expect(events.slice(2, 4)).toMatchObject([
      { route: "direct-ws", endpoint: "memory of direct-ws" },
      { warm: false, openMs: 0 },
    ]);
    expect(ending(setup).error).toBeUndefined();
    expect(setup.served).toEqual([{ target: route.targets[0] as Target, ways: [route], by: route }]);
    expect(setup.standings.good("DC 203 media", route)).toBe(true);
  });

  test("lets the last look at the target change it", async () => {
    const { app, route, session } = setUp({ adjustTarget: (target) => ({ ...target, test: true }) });
    app.write(makeInit({ transport: "abridged", dcId: 2 }, SECRET.key).bytes);
    await eventually(() => route.opened.length === 1);
    expect(route.targets[0]?.test).toBe(true);
    expect(session.target).toBe("test DC 2");
  });

  test("serves a client that sends much before its route is open", async () => {
    const setup = setUp();
    const gate = Promise.withResolvers<void>();
    setup.route.gate = gate.promise;
    const client = makeInit({ transport: "abridged", dcId: 2 }, SECRET.key);
    setup.app.write(client.bytes);
    for (let sent = 0; sent < 100; sent += 1) setup.app.write(client.up.update(new Uint8Array(1_024)));
    await eventually(() => setup.route.targets.length === 1);
    await settle(200);
    gate.resolve();
    await settle(400);
    expect(setup.route.opened[0]?.hears.length).toBe(100 * 1_024);
  });
});

describe("Session.run() with strangers", () => {
  test("keeps one with a wrong secret, says nothing, and lets go at the deadline", async () => {
    const setup = setUp();
    const { app, appHears, route, done } = setup;
    app.write(makeInit({ transport: "abridged", dcId: 2 }, new Uint8Array(16)).bytes);
    app.write(new Uint8Array(1_000));
    await settle(50);
    jest.advanceTimersByTime(HANDSHAKE_TIMEOUT_MS - 1);
    await settle(50);
    expect(appHears.calls).toEqual([]);
    jest.advanceTimersByTime(1);
    await done;
    expect(ending(setup)).toMatchObject({ reason: "stranger", error: undefined });
    await appHears.until((sink) => sink.heard("close"));
    expect(appHears.chunks).toEqual([]);
    expect(route.targets).toEqual([]);
  });

  test("lets one with a wrong secret go when it leaves", async () => {
    const setup = setUp();
    setup.app.write(new Uint8Array(64));
    setup.app.end();
    await setup.done;
    expect(ending(setup).reason).toBe("stranger");
  });

  test("calls one who has not sent an init at the deadline a stranger", async () => {
    const setup = setUp();
    setup.app.write(new Uint8Array(63));
    await settle();
    jest.advanceTimersByTime(HANDSHAKE_TIMEOUT_MS);
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "stranger", error: { code: "TIMEOUT" } });
    await setup.appHears.until((sink) => sink.heard("close"));
  });

  test.each(["end", "destroy"] as const)(
    "says left-early of one whose connection ends by %s before its init",
    async (how) => {
      const setup = setUp();
      setup.app.write(new Uint8Array(10));
      await settle();
      setup.app[how]();
      await setup.done;
      expect(ending(setup)).toMatchObject({ reason: "left-early", error: { code: "CLOSED" } });
      expect(types(setup.events)).toEqual(["started", "ended"]);
    },
  );
});

describe("Session.run() without an upstream", () => {
  test("ends with no-route, and says which attempts failed", async () => {
    const setup = setUp();
    const error = new RouteError("REFUSED", "connection refused");
    setup.route.failure = error;
    setup.app.write(makeInit({ transport: "abridged", dcId: 2 }, SECRET.key).bytes);
    await setup.done;
    expect(types(setup.events)).toEqual(["started", "identified", "attempt", "route-failed", "ended"]);
    expect(setup.events[3]).toMatchObject({
      attempt: { route: "direct-ws", endpoint: "memory of direct-ws", error },
    });
    expect(setup.standings.failureOf("DC 2", setup.route)).toBeUndefined(); // nothing opened: it is not this one
    expect(setup.served).toEqual([]);
    expect(ending(setup).reason).toBe("no-route");
    expect(ending(setup).error).toBeInstanceOf(NoRouteError);
    await setup.appHears.until((sink) => sink.heard("close"));
  });

  test.each(["end", "destroy"] as const)("gives up opening when the client leaves by %s", async (how) => {
    const setup = setUp();
    setup.route.hang = true;
    setup.app.write(makeInit({ transport: "abridged", dcId: 2 }, SECRET.key).bytes);
    await eventually(() => setup.route.targets.length === 1);
    setup.app[how]();
    await setup.done;
    expect(setup.route.givenUp).toBe(true);
    expect(ending(setup).reason).toBe("left-early");
  });

  test("does not give up for a client that ended its side, but waits for an answer", async () => {
    const setup = setUp();
    setup.route.hang = true;
    const client = makeInit({ transport: "abridged", dcId: 2 }, SECRET.key);
    setup.app.write(Buffer.concat([client.bytes, client.up.update(Uint8Array.of(1, 2, 3, 4))]));
    setup.app.end();
    await eventually(() => setup.route.targets.length === 1);
    await settle(50);
    expect(setup.route.givenUp).toBe(false);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("ends with internal-error on a bug, with the error", async () => {
    const setup = setUp();
    setup.route.failure = new TypeError("a bug");
    setup.app.write(makeInit({ transport: "abridged", dcId: 2 }, SECRET.key).bytes);
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "internal-error", error: { message: "a bug" } });
    await setup.appHears.until((sink) => sink.heard("close"));
  });
});

describe("Session.run(), the end", () => {
  test("says client-closed when the client was the first to end", async () => {
    const setup = await setUpAnswered();
    setup.app.end();
    await setup.telegramHears.until((sink) => sink.heard("end"));
    setup.telegram.end();
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "client-closed", error: undefined });
  });

  test("says upstream-closed when the upstream was the first to end", async () => {
    const setup = await setUpAnswered();
    setup.telegram.end();
    await setup.appHears.until((sink) => sink.heard("end"));
    setup.app.end();
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "upstream-closed", error: undefined });
  });

  test("says client-error when the client's connection broke", async () => {
    const setup = await setUpAnswered();
    setup.app.destroy();
    await setup.done;
    await setup.telegramHears.until((sink) => sink.heard("close"));
    expect(setup.telegramHears.error).toBeUndefined();
    expect(ending(setup)).toMatchObject({ reason: "client-error", error: expect.any(Error) });
  });

  test("says upstream-error when the upstream's connection broke", async () => {
    const setup = await setUpAnswered();
    setup.telegram.destroy();
    await setup.done;
    await setup.appHears.until((sink) => sink.heard("close"));
    expect(setup.appHears.error).toBeUndefined();
    expect(ending(setup)).toMatchObject({ reason: "upstream-error", error: expect.any(Error) });
  });
});

describe("Session.stop()", () => {
  test("ends a session before its handshake", async () => {
    const setup = setUp();
    setup.session.stop("shutdown");
    await setup.done;
    expect(ending(setup).reason).toBe("shutdown");
  });

  test("ends a stranger", async () => {
    const setup = setUp();
    setup.app.write(new Uint8Array(64));
    await settle(50);
    setup.session.stop("shutdown");
    await setup.done;
    expect(ending(setup).reason).toBe("shutdown");
  });

  test("ends a session whose route is being opened", async () => {
    const setup = setUp();
    setup.route.hang = true;
    setup.app.write(makeInit({ transport: "abridged", dcId: 2 }, SECRET.key).bytes);
    await eventually(() => setup.route.targets.length === 1);
    setup.session.stop("shutdown");
    await setup.done;
    expect(setup.route.givenUp).toBe(true);
    expect(ending(setup).reason).toBe("shutdown");
  });

  test("ends a session under way, on both sides", async () => {
    const setup = await setUpConnected();
    setup.session.stop("shutdown");
    await setup.done;
    expect(ending(setup).reason).toBe("shutdown");
    await setup.appHears.until((sink) => sink.heard("close"));
    await setup.telegramHears.until((sink) => sink.heard("close"));
  });
});

describe("Session.look()", () => {
  test("leaves a session alone before it is connected", async () => {
    const setup = setUp();
    setup.session.look(10 * LIMITS.idleMs, LIMITS);
    await settle();
    expect(types(setup.events)).toEqual(["started"]);
    expect(setup.gone).toEqual([]);
  });

  test("pings the upstream of a quiet session, and ends it as idle at the limit", async () => {
    const setup = await setUpConnected();
    for (let quiet = 5_000; quiet < LIMITS.pingMs; quiet += 5_000) setup.session.look(5_000, LIMITS);
    expect(setup.own.pings).toBe(0);
    setup.session.look(5_000, LIMITS);
    expect(setup.own.pings).toBe(1);
    for (let quiet = LIMITS.pingMs + 5_000; quiet < LIMITS.idleMs; quiet += 5_000)
      setup.session.look(5_000, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.look(5_000, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("idle");
  });

  test.each(["up", "down"] as const)(
    "starts to count anew when something crosses on the way %s",
    async (way) => {
      const setup = await setUpAnswered();
      setup.session.look(LIMITS.idleMs - 1, LIMITS);
      const { pings } = setup.own;
      (way === "up" ? setup.app : setup.telegram).write(PACKET);
      await eventually(() => setup.session.counts[way] === 2 * PACKET.length);
      setup.session.look(5_000, LIMITS);
      setup.session.look(LIMITS.pingMs - 1, LIMITS);
      expect(setup.own.pings).toBe(pings);
      setup.session.look(LIMITS.idleMs - LIMITS.pingMs, LIMITS);
      await settle();
      expect(types(setup.events)).not.toContain("ended");
    },
  );

  test("is stricter with a session one of whose sides has ended", async () => {
    const setup = await setUpAnswered();
    setup.app.end();
    await setup.telegramHears.until((sink) => sink.heard("end"));
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.closingMs - 1, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.look(1, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("client-closed");
  });

  test("ends a session whose upstream is gone, although its client sends on and on", async () => {
    const route = new MemoryRoute();
    const events: SessionEvent[] = [];
    const sessions: Session[] = [];
    const listener = listenTcp(
      { host: "127.0.0.1", port: 0, highWater: 64 * 1024 },
      ({ channel, address }) => {
        const session = new Session(
          1,
          address,
          channel,
          {
            secrets: [SECRET],
            forms: ANY_FORM,
            disguise: undefined,
            trustedProxies: undefined,
            routes: [route],
            standings: new Standings(),
            replays: new ReplayBudget(),
            onServed: () => {},
            observe: (event) => events.push(event),
            handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
            gate: OPEN_GATE,
            addresses: undefined,
            adjustTarget: (target) => target,
          },
          () => {},
        );
        sessions.push(session);
        void session.run();
      },
    );
    const client = connect({ host: "127.0.0.1", port: listener.port, allowHalfOpen: true });
    try {
      const { bytes, up } = makeInit({ transport: "abridged", dcId: 2 }, SECRET.key);
      client.write(Buffer.concat([bytes, up.update(PACKET)]));
      await eventually(() => types(events).includes("connected"));
      route.opened[0]?.telegram.write(PACKET);
      await eventually(() => sessions[0]?.counts.down === PACKET.length);
      let ended = false;
      client.on("end", () => {
        ended = true;
      });
      client.on("error", () => {}); // the session's end resets it
      client.resume();
      route.opened[0]?.telegram.destroy();
      await eventually(() => ended);
      for (let looks = 0; looks < 10; looks += 1) {
        client.write(Uint8Array.of(1));
        await settle(50);
        sessions[0]?.look(LIMITS.closingMs / 2, LIMITS);
      }
      await settle(50);
      expect(types(events)).toContain("ended");
    } finally {
      sessions[0]?.stop("shutdown");
      client.destroy();
      listener.stop();
    }
  });
});

describe("Session.run(), over another way than the first", () => {
  test("says rerouted when the second way answers, and names the second from then on", async () => {
    const [first, second] = [new MemoryRoute(), new MemoryRoute("cf-worker")];
    const setup = await setUpConnected({ routes: [first, second] });
    expect(setup.session).toMatchObject({ route: "direct-ws", connected: false });
    setup.app.write(setup.client.up.update(PACKET));
    await pass(1_000);
    const [other] = second.opened;
    expect(other?.hears.bytes).toEqual(Buffer.from(PACKET));
    other?.telegram.write(PACKET);
    await setup.appHears.until(({ length }) => length === PACKET.length);
    expect(Buffer.from(setup.client.down.update(setup.appHears.bytes))).toEqual(Buffer.from(PACKET));
    expect(setup.session).toMatchObject({ route: "cf-worker", endpoint: "memory of cf-worker" });
    expect(types(setup.events)).toEqual([
      "started",
      "identified",
      "attempt",
      "connected",
      "attempt",
      "route-failed",
      "rerouted",
    ]);
    expect(setup.events.at(-1)).toMatchObject({ from: "direct-ws" });
    expect(setup.served).toMatchObject([{ ways: [first, second], by: second }]);
    expect(setup.session.counts).toEqual({ up: 5, down: 5 });
    setup.session.look(LIMITS.pingMs - 1, LIMITS);
    setup.session.look(LIMITS.pingMs, LIMITS);
    expect([first.opened[0]?.own.pings, other?.own.pings]).toEqual([0, 1]);
    setup.session.stop("shutdown");
    await setup.done;
    expect(other?.own.closed).toBe(true);
    expect(first.opened[0]?.own.closed).toBe(true);
  });

  test("does not say rerouted when the first way answers late", async () => {
    const [first, second] = [new MemoryRoute(), new MemoryRoute("cf-worker")];
    const setup = await setUpConnected({ routes: [first, second] });
    setup.app.write(setup.client.up.update(PACKET));
    await pass(1_000);
    setup.telegram.write(PACKET);
    await setup.appHears.until(({ length }) => length === PACKET.length);
    expect(types(setup.events)).not.toContain("rerouted");
    expect(setup.session.route).toBe("direct-ws");
    expect(second.opened[0]?.own.closed).toBe(true);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("counts one win when the first way closes and the second serves", async () => {
    const stats = new Stats({ pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } });
    const [first, second] = [new MemoryRoute(), new MemoryRoute("cf-worker")];
    const setup = await setUpConnected({ routes: [first, second], observe: (event) => stats.observe(event) });
    setup.app.write(setup.client.up.update(PACKET));
    await settle();
    setup.telegram.close();
    await eventually(() => second.opened.length === 1);
    second.opened[0]?.telegram.write(PACKET);
    await setup.appHears.until(({ length }) => length === PACKET.length);
    setup.session.stop("shutdown");
    await setup.done;
    expect(snapshotOf(stats.figures())).toMatchObject({ connections_ws: 0, connections_cfproxy: 1 });
  });

  test("says no-route when the way that opened closes and no other is there", async () => {
    const setup = await setUpConnected();
    setup.telegram.close();
    await setup.done;
    expect(failures(setup.events)).toEqual(["CLOSED"]);
    expect(ending(setup).reason).toBe("no-route");
    expect(setup.own.closed).toBe(true);
  });

  test.each(["end", "destroy"] as const)(
    "says left-early when the client leaves by %s before it was answered",
    async (how) => {
      const setup = await setUpConnected();
      setup.app[how]();
      await setup.done;
      expect(ending(setup).reason).toBe("left-early");
      expect(setup.own.closed).toBe(true);
      expect(setup.served).toEqual([]);
    },
  );
});

describe("Session.look(), when Telegram stops within a packet", () => {
  /** The first bytes of a packet of 400. */
  const PART = Uint8Array.of(100, 1, 2, 3, 4);

  test("ends the session as stalled, and blames the way for this target", async () => {
    const setup = await setUpAnswered(PART);
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.stalledMs - 1, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.look(1, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("stalled");
    expect(failures(setup.events)).toEqual(["STALLED"]);
    expect(setup.route.faults).toBe(1);
    expect(setup.standings.failureOf("DC 4", setup.route)).toEqual({ code: "STALLED", cooling: true });
    expect(setup.standings.failureOf("DC 2", setup.route)).toBeUndefined();
    await setup.appHears.until((sink) => sink.heard("close"));
  });

  test("does so although the client goes on sending", async () => {
    const setup = await setUpAnswered(PART);
    for (let looks = 0; looks < 3; looks += 1) {
      setup.app.write(setup.client.up.update(PACKET));
      await settle();
      setup.session.look(LIMITS.stalledMs / 2, LIMITS);
    }
    await setup.done;
    expect(ending(setup).reason).toBe("stalled");
  });

  test("finds the packet in what came before the channels were joined, and after", async () => {
    const setup = await setUpAnswered(Uint8Array.of(...PACKET, 2, 9));
    setup.telegram.write(Uint8Array.of(9, 9, 9, 9, 9, 9));
    await setup.appHears.until(({ length }) => length === 13);
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.stalledMs, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("stalled");
  });

  test.each([
    { name: "at the end of a packet", answer: PACKET },
    { name: "after a quick-ack token", answer: Uint8Array.of(...PACKET, 0x81, 0, 0, 0) },
    { name: "in what is no packet", answer: Uint8Array.of(...PACKET, 0, 1) },
  ])("does not when it stops $name", async ({ answer }) => {
    const setup = await setUpAnswered(answer);
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.idleMs - 1, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    expect(failures(setup.events)).toEqual([]);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("does not while more of the packet comes", async () => {
    const setup = await setUpAnswered(PART);
    for (let came = 0; came < 20; came += 1) {
      setup.telegram.write(Uint8Array.of(9));
      await settle();
      setup.session.look(LIMITS.stalledMs - 1, LIMITS);
    }
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("does not after 64 KiB", async () => {
    const part = new Uint8Array(64 * 1_024).fill(9);
    part.set([0x7f, 0, 0, 1]); // 256 KiB
    for (const [length, reason] of [
      [part.length - 1, "stalled"],
      [part.length, "shutdown"],
    ] as const) {
      const setup = await setUpAnswered(part.slice(0, length));
      setup.session.look(1, LIMITS);
      setup.session.look(LIMITS.stalledMs, LIMITS);
      await settle();
      setup.session.stop("shutdown");
      await setup.done;
      expect(ending(setup).reason).toBe(reason);
    }
  });

  test("does not while the client does not read", async () => {
    const setup = await setUpAnswered(PART);
    setup.app.pause();
    setup.telegram.write(Uint8Array.of(9));
    await settle();
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.stalledMs, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.app.resume();
    await settle();
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.stalledMs, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("stalled");
  });

  test("does not when one side has ended: that has its own limit and reason", async () => {
    const setup = await setUpAnswered(PART);
    setup.telegram.end();
    await setup.appHears.until((sink) => sink.heard("end"));
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.closingMs, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("upstream-closed");
    expect(failures(setup.events)).toEqual([]);
  });
});

describe("Session.look(), when a way was chosen without an answer", () => {
  test("blames the way for silence, once, and goes on", async () => {
    const setup = await setUpUnproved();
    expect(setup.served).toEqual([]);
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.silentMs - 1, LIMITS);
    expect(failures(setup.events)).toEqual([]);
    setup.session.look(1, LIMITS);
    expect(failures(setup.events)).toEqual(["SILENT"]);
    expect(setup.standings.failureOf("DC 4", setup.route)).toEqual({ code: "SILENT", cooling: true });
    setup.session.look(LIMITS.silentMs, LIMITS);
    expect(failures(setup.events)).toEqual(["SILENT"]);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("does not tell a way again that it serves", async () => {
    const setup = await setUpAnswered();
    expect(setup.route.services).toBe(1);
    setup.session.look(1, LIMITS);
    expect(setup.route.services).toBe(1);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("calls the way good when the answer comes", async () => {
    const setup = await setUpUnproved();
    expect(setup.standings.good("DC 4", setup.route)).toBe(false);
    setup.telegram.write(PACKET);
    await setup.appHears.until(({ length }) => length === PACKET.length);
    expect(setup.route.services).toBe(0);
    setup.session.look(1, LIMITS);
    expect(setup.route.services).toBe(1);
    expect(setup.standings.good("DC 4", setup.route)).toBe(true);
    setup.session.look(LIMITS.silentMs, LIMITS);
    setup.session.look(LIMITS.silentMs, LIMITS);
    expect(failures(setup.events)).toEqual([]);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("does not call a way good that has stalled, when nothing came after that", async () => {
    const setup = await setUpAnswered(Uint8Array.of(100, 1));
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.stalledMs, LIMITS);
    await setup.done;
    expect(setup.standings.good("DC 4", setup.route)).toBe(false);
  });

  test("calls a way good that answers after it was blamed", async () => {
    const setup = await setUpUnproved();
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.silentMs, LIMITS);
    expect(failures(setup.events)).toEqual(["SILENT"]);
    setup.telegram.write(PACKET);
    await setup.appHears.until(({ length }) => length === PACKET.length);
    setup.session.look(1, LIMITS);
    expect(setup.standings.good("DC 4", setup.route)).toBe(true);
    expect(setup.route.services).toBe(1);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("ends it as stalled after that silence when there is another way", async () => {
    const [first, second] = [new MemoryRoute(), new MemoryRoute("cf-worker")];
    const setup = await setUpUnproved({ routes: [first, second] });
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.silentMs, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("stalled");
    expect(failures(setup.events)).toEqual(["SILENT"]);
    expect(setup.standings.failureOf("DC 4", first)).toEqual({ code: "SILENT", cooling: true });
  });

  /** One whose first way is silent until the opening has judged it, while the second one still opens. */
  async function setUpJudged(second: MemoryRoute): Promise<Connected> {
    const setup = await setUpConnected({ routes: [new MemoryRoute(), second] });
    setup.app.write(setup.client.up.update(PACKET));
    await pass(5_000);
    expect(setup.session.connected).toBe(true);
    return setup;
  }

  test("does not blame again a way that was blamed before it was chosen", async () => {
    const second = new MemoryRoute("cf-worker");
    second.hang = true;
    const setup = await setUpJudged(second);
    const before = failures(setup.events);
    setup.session.look(1, LIMITS);
    setup.session.look(LIMITS.silentMs, LIMITS);
    setup.session.stop("shutdown");
    await setup.done;
    expect(before).toContain("SILENT");
    expect(failures(setup.events)).toEqual(before);
  });

  // When all ways are silent the opening blames nobody; the session that follows blames the first one all the same.
  test("does not blame a way, when all are silent, for a client that leaves after that", async () => {
    const setup = await setUpJudged(new MemoryRoute("cf-worker"));
    expect(failures(setup.events)).toEqual([]);
    setup.session.look(1, LIMITS);
    setup.session.look(2_500, LIMITS);
    setup.app.destroy();
    await setup.done;
    expect(failures(setup.events)).toEqual([]);
  });
});

describe("Session.dropIfDead()", () => {
  test("ends a session whose upstream gave no sign of life since it was asked", async () => {
    const setup = await setUpAnswered();
    setup.session.ask();
    expect(setup.own.pings).toBe(1);
    setup.own.unanswered = true;
    setup.session.dropIfDead({ withoutPings: false });
    await setup.done;
    expect(ending(setup).reason).toBe("network-changed");
  });

  test("leaves one alone that has answered the ping", async () => {
    const setup = await setUpAnswered();
    setup.session.ask();
    setup.own.unanswered = false;
    setup.session.dropIfDead({ withoutPings: false });
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("leaves one alone for which something came", async () => {
    const setup = await setUpAnswered();
    setup.own.unanswered = true;
    setup.session.ask();
    setup.telegram.write(PACKET);
    await setup.appHears.until(({ length }) => length === 2 * PACKET.length);
    setup.session.dropIfDead({ withoutPings: false });
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("leaves one alone that was not asked", async () => {
    const setup = await setUpAnswered();
    setup.own.unanswered = true;
    setup.session.dropIfDead({ withoutPings: false });
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("leaves one alone that has no upstream yet", async () => {
    const setup = setUp();
    setup.session.ask();
    setup.session.dropIfDead({ withoutPings: false });
    await settle();
    expect(types(setup.events)).toEqual(["started"]);
    setup.session.stop("shutdown");
    await setup.done;
  });

  test("leaves one alone whose way opened after it was asked", async () => {
    const setup = setUp();
    setup.route.unanswered = true; // as TCP, which has no pings
    setup.session.ask();
    setup.app.write(makeInit({ transport: "abridged", dcId: 4 }, SECRET.key).bytes);
    await eventually(() => setup.session.route !== undefined);
    setup.session.dropIfDead({ withoutPings: false });
    await settle();
    const seen = types(setup.events);
    setup.session.stop("shutdown");
    await setup.done;
    expect(seen).not.toContain("ended");
  });

  test.each([true, false])("ends one that cannot be asked when withoutPings is %p", async (withoutPings) => {
    const setup = await setUpAnswered();
    Object.assign(setup.own, { unanswered: true, answersPings: false }); // as TCP
    setup.session.ask();
    setup.session.dropIfDead({ withoutPings });
    await settle();
    const seen = types(setup.events);
    setup.session.stop("shutdown");
    await setup.done;
    expect(seen.includes("ended")).toBe(withoutPings);
  });

  test.each([true, false])("ends one whose queue does not get shorter: stuck %p", async (stuck) => {
    const setup = await setUpAnswered();
    setup.telegram.pause();
    setup.app.write(setup.client.up.update(PACKET));
    await eventually(() => setup.own.queuedBytes === PACKET.length);
    setup.session.ask();
    if (!stuck) setup.telegram.resume();
    await settle();
    setup.session.dropIfDead({ withoutPings: false });
    await settle();
    const seen = types(setup.events);
    setup.session.stop("shutdown");
    await setup.done;
    expect(seen.includes("ended")).toBe(stuck);
  });
});

describe("Session with fake TLS", () => {
  const COVER = "cover.example";
  const NO_POOLS = { pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } };
  const PAGE = Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n");

  /** The site's end of a connection to it. */
  interface Visit {
    readonly site: MemoryChannel;
    readonly hears: RecordingSink;
    readonly own: MemoryChannel;
  }

  interface Disguised extends Setup {
    readonly visits: Visit[];
    readonly stats: Stats;
  }

  interface SiteOptions {
    readonly users?: SiteUsers;
    readonly failure?: RouteError;
    /** Connecting waits for it, unless it is given up. */
    readonly gate?: Promise<void>;
  }

  function setUpDisguised(
    deps: Partial<SessionDeps> = {},
    { failure, gate, users }: SiteOptions = {},
  ): Disguised {
    const visits: Visit[] = [];
    const stats = new Stats(NO_POOLS);
    const cover = new Cover({
      domains: [COVER],
      host: undefined,
      pinned: () => "1.0.0.1",
      lookUp: () => Promise.reject(new Error("not asked")),
      dial: async (_, signal) => {
        const { promise, reject } = Promise.withResolvers<never>();
        signal.addEventListener("abort", () => reject(new RouteError("ABORTED", "given up")));
        await Promise.race([gate, promise]);
        if (failure !== undefined) throw failure;
        const [site, own] = memoryChannelPair();
        const hears = new RecordingSink();
        site.attach(hears);
        visits.push({ site, hears, own });
        return own;
      },
      isOwn: () => false,
      isHere: () => true,
      warn: () => {},
      debug: () => {},
    });
    const tls = new FakeTls({
      secrets: [SECRET],
      seen: new SeenHellos(),
      profileOf: (name) => (name === COVER ? defaultProfile(name) : undefined),
      measured: () => Promise.resolve(),
      onStranger: () => {},
      now: () => Math.floor(Date.now() / 1000),
    });
    const forms = { plain: false, padded: false };
    const setup = setUp({
      forms,
      disguise: { tls, cover, users: users ?? new SiteUsers(100) },
      observe: stats.observe,
      ...deps,
    });
    return { ...setup, visits, stats };
  }

  const hello = (options: Partial<HelloOptions> = {}) =>
    buildHello({ secret: SECRET.key, serverName: COVER, ...options });

  function record(bytes: Uint8Array): Uint8Array {
    return Buffer.concat([Uint8Array.of(0x17, 3, 3, bytes.length >> 8, bytes.length & 0xff), bytes]);
  }

  /** What the records after the first flight hold. */
  function unwrap(bytes: Uint8Array): Uint8Array {
    const parts: Uint8Array[] = [];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0, number = 0; at < bytes.length; number += 1) {
      const end = at + 5 + view.getUint16(at + 3);
      if (number >= 3) parts.push(bytes.subarray(at + 5, end));
      at = end;
    }
    return Buffer.concat(parts);
  }

  /** One that is shown the site, to which it has said `GET /`. */
  async function setUpMasked(
    deps: Partial<SessionDeps> = {},
    users = new SiteUsers(100),
  ): Promise<Disguised & { readonly visit: Visit }> {
    const setup = setUpDisguised(deps, { users });
    setup.app.write(Buffer.from("GET /"));
    await eventually(() => (setup.visits[0]?.hears.length ?? 0) === 5);
    const [visit] = setup.visits;
    if (visit === undefined) throw new Error("unreachable");
    return { ...setup, visit };
  }

  test("carries a client through records, and counts what is in them", async () => {
    const setup = setUpDisguised();
    const client = makeInit({ transport: "abridged", dcId: 4 }, SECRET.key);
    setup.app.write(
      Buffer.concat([hello().bytes, record(Buffer.concat([client.bytes, client.up.update(PACKET)]))]),
    );
    await eventually(() => setup.route.opened[0]?.hears.length === PACKET.length);
    setup.route.opened[0]?.telegram.write(PACKET);
    await eventually(() => setup.session.counts.down === PACKET.length);
    await settle();
    expect(new Uint8Array(client.down.update(unwrap(setup.appHears.bytes)))).toEqual(PACKET);
    expect(setup.session.counts).toEqual({ up: PACKET.length, down: PACKET.length });
    expect(setup.session.secret).toBe("family");
    setup.app.end();
    setup.route.opened[0]?.telegram.end();
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "client-closed", error: undefined });
    expect(types(setup.events)).not.toContain("masked");
    expect(setup.visits).toEqual([]);
  });

  test("says why a stranger is shown the site, and masked when that is over", async () => {
    const setup = await setUpMasked();
    setup.visit.site.write(PAGE);
    setup.visit.site.end();
    await setup.appHears.until((sink) => sink.heard("end"));
    setup.app.end();
    await setup.done;
    expect(types(setup.events)).toEqual(["started", "masked", "ended"]);
    expect(setup.events[1]).toMatchObject({
      why: "not-tls",
      detail: "Cannot parse ClientHello: a record of type 71",
    });
    expect(ending(setup)).toMatchObject({ reason: "masked", error: undefined });
    expect(new Uint8Array(setup.appHears.bytes)).toEqual(new Uint8Array(PAGE));
    expect(setup.stats.figures().connections.masked).toEqual({ "not-tls": 1 });
  });

  test("does not count a stranger's bytes as Telegram's", async () => {
    const setup = await setUpMasked();
    setup.visit.site.write(new Uint8Array(10_000));
    await setup.appHears.until(({ length }) => length === 10_000);
    expect(snapshotOf(setup.stats.figures())).toMatchObject({
      bytes_up: 0,
      bytes_down: 0,
      connections_masked: 1,
    });
    setup.session.stop("shutdown");
    await setup.done;
    expect(snapshotOf(setup.stats.figures())).toMatchObject({
      bytes_up: 0,
      bytes_down: 0,
      connections_bad: 0,
    });
  });

  test("closes a stranger whose site cannot be reached, and says why", async () => {
    const error = new RouteError("REFUSED", "connection refused");
    const setup = setUpDisguised({}, { failure: error });
    setup.app.write(hello({ secret: new Uint8Array(16) }).bytes);
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "masked", error });
    expect(setup.stats.figures().connections.masked).toEqual({ digest: 1 });
    await setup.appHears.until((sink) => sink.heard("close"));
    expect(setup.appHears.chunks).toEqual([]);
  });

  test("says stranger of a client whose init is wrong after a good hello, and sends it an alert", async () => {
    const setup = setUpDisguised();
    setup.app.write(hello().bytes);
    await eventually(() => setup.appHears.length > 0);
    const before = setup.appHears.length;
    setup.app.write(record(new Uint8Array(64).fill(1)));
    await setup.done;
    expect(ending(setup).reason).toBe("stranger");
    await setup.appHears.until((sink) => sink.heard("close"));
    expect(snapshotOf(setup.stats.figures())).toMatchObject({ connections_bad: 1, connections_masked: 0 });
    expect(before).toBeGreaterThan(0);
  });

  test.each(["end", "destroy"] as const)(
    "says left-early of one that leaves by %s without a byte, within a hello, and after it",
    async (how) => {
      for (const bytes of [new Uint8Array(0), hello().bytes]) {
        const setup = setUpDisguised();
        setup.app.write(bytes);
        await settle(60);
        setup.app[how]();
        await setup.done;
        expect(ending(setup).reason).toBe("left-early");
        expect(setup.visits).toEqual([]);
      }
      const setup = setUpDisguised();
      setup.app.write(hello().bytes.subarray(0, 99));
      await settle();
      setup.app[how]();
      if (how === "end") await eventually(() => setup.visits.length === 1);
      setup.visits[0]?.site.end();
      await setup.done;
      expect(ending(setup).reason).toBe(how === "end" ? "masked" : "left-early");
    },
  );

  test("ends a stranger that is quiet for 20 min, and not before", async () => {
    const setup = await setUpMasked();
    setup.session.look(20 * 60_000 - 1, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.visit.site.write(PAGE);
    await settle();
    setup.session.look(1, LIMITS);
    setup.session.look(20 * 60_000 - 1, LIMITS);
    await settle();
    expect(types(setup.events)).not.toContain("ended");
    setup.session.look(1, LIMITS);
    await setup.done;
    expect(ending(setup).reason).toBe("masked");
    expect(setup.visit.own.closed).toBe(true);
  });

  test("makes room for another stranger by ending the one that is quiet for longest", async () => {
    const masks = new SiteUsers(2);
    const setups = [await setUpMasked({}, masks), await setUpMasked({}, masks)];
    const [quiet, lively] = setups;
    if (quiet === undefined || lively === undefined) throw new Error("unreachable");
    for (const { session } of setups) session.look(1, LIMITS);
    lively.app.write(Uint8Array.of(1));
    await settle();
    for (const { session } of setups) session.look(1_000, LIMITS);
    const last = await setUpMasked({}, masks);
    await quiet.done;
    expect(ending(quiet).reason).toBe("masked");
    await settle();
    for (const { events } of [lively, last]) expect(types(events)).not.toContain("ended");
    expect(masks.size).toBe(2);
    for (const { session, done } of [lively, last]) {
      session.stop("shutdown");
      await done;
    }
    expect(masks.size).toBe(0);
  });

  test("ends a stranger at shutdown, and drops the site", async () => {
    const setup = await setUpMasked();
    expect(setup.session.connected).toBe(false);
    setup.session.stop("shutdown");
    await setup.done;
    expect(ending(setup).reason).toBe("shutdown");
    expect(setup.visit.own.closed).toBe(true);
  });

  test("ends one at shutdown that is in the middle of a hello, or between hello and init", async () => {
    for (const bytes of [hello().bytes.subarray(0, 99), hello().bytes]) {
      const setup = setUpDisguised();
      setup.app.write(bytes);
      await settle(60);
      setup.session.stop("shutdown");
      await setup.done;
      expect(ending(setup).reason).toBe("shutdown");
      expect(setup.visits).toEqual([]);
    }
  });

  test("passes it on when a stranger says its last while its site is being connected to", async () => {
    const gate = Promise.withResolvers<void>();
    const setup = setUpDisguised({}, { gate: gate.promise });
    setup.app.write(Buffer.from("GET /"));
    await eventually(() => types(setup.events).includes("masked"));
    setup.app.end();
    await settle();
    gate.resolve();
    await eventually(() => setup.visits.length === 1);
    await setup.visits[0]?.hears.until((sink) => sink.heard("end") || sink.heard("close"));
    setup.visits[0]?.site.end();
    await setup.done;
    expect(ending(setup).reason).toBe("masked");
  });

  test("gives the site up when a stranger breaks off while it is being connected to", async () => {
    const gate = Promise.withResolvers<void>();
    const setup = setUpDisguised({}, { gate: gate.promise });
    setup.app.write(Buffer.from("GET /"));
    await eventually(() => types(setup.events).includes("masked"));
    setup.app.destroy();
    await setup.done;
    gate.resolve();
    expect(ending(setup)).toMatchObject({ reason: "masked", error: undefined });
    expect(setup.visits.length).toBe(0);
  });

  // Connecting to a site that is down takes 10 s for each of its addresses, and a stop waits for it.
  test("ends a stranger at shutdown whose site is being connected to", async () => {
    const gate = Promise.withResolvers<void>();
    const setup = setUpDisguised({}, { gate: gate.promise });
    setup.app.write(Buffer.from("GET /"));
    await eventually(() => types(setup.events).includes("masked"));
    setup.session.stop("shutdown");
    await settle(100);
    const seen = types(setup.events);
    gate.resolve();
    await setup.done;
    expect(seen).toContain("ended");
  });

  test("is the client behind a load balancer from its header on", async () => {
    const setup = setUp({ trustedProxies: [IpNetwork.parse("192.0.2.1")] });
    const client = makeInit({ transport: "abridged", dcId: 4 }, SECRET.key);
    setup.app.write(Buffer.from("PROXY TCP6 2001:DB8::0:7 2001:db8::1 4711 443\r\n"));
    await settle();
    expect(setup.session.client).toBe("2001:db8::7");
    setup.app.write(client.bytes);
    await eventually(() => types(setup.events).includes("connected"));
    expect(setup.events.at(-1)?.session.client).toBe("2001:db8::7");
    setup.session.stop("shutdown");
    await setup.done;
  });

  test.each([
    ["missing", "192.0.2.1/32", "GET / HTTP/1.1"],
    ["malformed", "192.0.2.1/32", "PROXY TCP5 "],
    ["untrusted", "198.51.100.0/24", "PROXY TCP4 1.0.0.1 1.0.0.2 1 1\r\n"],
  ])("ends with bad-proxy-header when the header is %s", async (why, network, text) => {
    const stats = new Stats(NO_POOLS);
    const setup = setUp({ trustedProxies: [IpNetwork.parse(network)], observe: stats.observe });
    setup.app.write(Buffer.from(text));
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "bad-proxy-header", error: { why } });
    expect(stats.figures().connections.badHeaders).toEqual({ [why]: 1 });
    expect(setup.session.client).toBe("192.0.2.1");
    await setup.appHears.until((sink) => sink.heard("close"));
    expect(setup.appHears.chunks).toEqual([]);
  });
});
