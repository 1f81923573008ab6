import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { connect } from "node:net";
import type { Cancel } from "../../src/core/cancel.ts";
import { NoRouteError, RouteError } from "../../src/core/errors.ts";
import type { SessionEvent } from "../../src/core/events.ts";
import { listenTcp } from "../../src/net/tcp-listen.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { Session, type SessionDeps } from "../../src/proxy/session.ts";
import { Cooldowns } from "../../src/upstream/cooldowns.ts";
import type { Route, Upstream } from "../../src/upstream/route.ts";
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
const LIMITS = { idleMs: 60_000, closingMs: 20_000, pingMs: 30_000 };

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** A route into memory; Telegram's end of every connection is kept. */
class MemoryRoute implements Route {
  readonly id = "direct-ws";
  readonly opened: { telegram: MemoryChannel; hears: RecordingSink; own: MemoryChannel }[] = [];
  readonly targets: Target[] = [];
  failure: unknown;
  hang = false;
  givenUp = false;
  /** Opening waits for it. */
  gate: Promise<void> | undefined;

  endpoint(): string {
    return "memory";
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
  const session = new Session(
    7,
    "192.0.2.1",
    channel,
    {
      secrets: [SECRET],
      routes: [route],
      cooldowns: new Cooldowns(),
      observe: (event) => events.push(event),
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      adjustTarget: (target) => target,
      ...deps,
    },
    (over) => gone.push(over),
  );
  return { app, appHears, route, session, events, gone, done: session.run() };
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

/** A session whose client is through the handshake and whose upstream is open. */
async function setUpConnected(): Promise<
  Setup & { telegram: MemoryChannel; telegramHears: RecordingSink; own: MemoryChannel }
> {
  const setup = setUp();
  setup.app.write(makeInit({ transport: "abridged", dcId: 4 }, SECRET.key).bytes);
  await eventually(() => setup.events.some(({ type }) => type === "connected"));
  const [upstream] = setup.route.opened;
  if (upstream === undefined) throw new Error("unreachable");
  return { ...setup, telegram: upstream.telegram, telegramHears: upstream.hears, own: upstream.own };
}

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
    upstream?.telegram.write(Buffer.from("answer"));
    await appHears.until(({ length }) => length === 6);
    expect(Buffer.from(client.down.update(appHears.bytes)).toString()).toBe("answer");

    expect(route.targets).toEqual([{ dc: 203, media: true, test: false, transport: "intermediate" }]);
    expect(session).toMatchObject({
      id: 7,
      client: "192.0.2.1",
      secret: "family",
      target: "DC 203 media",
      route: "direct-ws",
      counts: { up: 14, down: 6 },
    });
    app.end();
    upstream?.telegram.end();
    await done;
    expect(types(events)).toEqual(["started", "identified", "connected", "ended"]);
    expect(ending(setup).error).toBeUndefined();
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
    expect(types(setup.events)).toEqual(["started", "identified", "route-failed", "ended"]);
    expect(setup.events[2]).toMatchObject({ attempt: { route: "direct-ws", endpoint: "memory", error } });
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
    const setup = await setUpConnected();
    setup.app.end();
    await setup.telegramHears.until((sink) => sink.heard("end"));
    setup.telegram.end();
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "client-closed", error: undefined });
  });

  test("says upstream-closed when the upstream was the first to end", async () => {
    const setup = await setUpConnected();
    setup.telegram.end();
    await setup.appHears.until((sink) => sink.heard("end"));
    setup.app.end();
    await setup.done;
    expect(ending(setup)).toMatchObject({ reason: "upstream-closed", error: undefined });
  });

  test("says client-error when the client's connection broke", async () => {
    const setup = await setUpConnected();
    setup.app.destroy();
    await setup.done;
    await setup.telegramHears.until((sink) => sink.heard("close"));
    expect(setup.telegramHears.error).toBeUndefined();
    expect(ending(setup)).toMatchObject({ reason: "client-error", error: expect.any(Error) });
  });

  test("says upstream-error when the upstream's connection broke", async () => {
    const setup = await setUpConnected();
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
      const setup = await setUpConnected();
      setup.session.look(LIMITS.idleMs - 1, LIMITS);
      const { pings } = setup.own;
      (way === "up" ? setup.app : setup.telegram).write(Uint8Array.of(1));
      await eventually(() => setup.session.counts[way] === 1);
      setup.session.look(5_000, LIMITS);
      setup.session.look(LIMITS.pingMs - 1, LIMITS);
      expect(setup.own.pings).toBe(pings);
      setup.session.look(LIMITS.idleMs - LIMITS.pingMs, LIMITS);
      await settle();
      expect(types(setup.events)).not.toContain("ended");
    },
  );

  test("is stricter with a session one of whose sides has ended", async () => {
    const setup = await setUpConnected();
    setup.app.end();
    await setup.telegramHears.until((sink) => sink.heard("end"));
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
            routes: [route],
            cooldowns: new Cooldowns(),
            observe: (event) => events.push(event),
            handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
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
      client.write(makeInit({ transport: "abridged", dcId: 2 }, SECRET.key).bytes);
      await eventually(() => types(events).includes("connected"));
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
