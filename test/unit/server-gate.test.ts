import { describe, expect, test } from "bun:test";
import { RefusedError } from "../../src/core/errors.ts";
import { IpNetwork } from "../../src/core/ip-network.ts";
import { type UserPolicy, unlimitedUser } from "../../src/core/users.ts";
import type { Gate, Visit } from "../../src/proxy/gate.ts";
import { type GateLimits, LocalGate, NO_LIMITS } from "../../src/proxy/local-gate.ts";
import { ReplayBudget } from "../../src/proxy/replay.ts";
import { type Clock, SYSTEM_CLOCK } from "../../src/proxy/token-bucket.ts";
import { ManualClock } from "../support/manual-clock.ts";
import {
  endings,
  FAMILY,
  PACKET,
  PAGE,
  refusals,
  startServer,
  TestClient,
  TestDisguise,
  type TestServer,
} from "../support/test-server.ts";
import { eventually } from "./frame-server.ts";

const OTHER = { name: "other", key: new Uint8Array(16).fill(8) };

function makeGate(
  policy: Partial<UserPolicy> = {},
  limits: Partial<GateLimits> = {},
  clock: Clock = SYSTEM_CLOCK,
): LocalGate {
  const gate = new LocalGate({ onRevoked: () => {}, clock });
  const users = [
    { ...unlimitedUser(FAMILY.name, FAMILY.key), ...policy },
    unlimitedUser(OTHER.name, OTHER.key),
  ];
  gate.configure({ users, limits: { ...NO_LIMITS, ...limits } });
  return gate;
}

const denyAll = { allows: () => false };
const served = ({ upstreams }: TestServer): number =>
  upstreams.filter(({ hears }) => hears.length === PACKET.length).length;

describe("ProxyServer without fake TLS", () => {
  test("closes who is over a limit of everybody at once", async () => {
    await using proxy = startServer({ gate: makeGate({}, { maxConnections: 1 }) });
    using first = new TestClient(proxy);
    first.ask();
    await eventually(() => served(proxy) === 1);
    using second = new TestClient(proxy);
    await eventually(() => second.signs.length > 0);
    expect(second.heard).toHaveLength(0);
    expect([refusals(proxy), endings(proxy)]).toEqual([["connections"], ["refused"]]);
  });

  test("closes who is over a limit of its address behind a load balancer, and not the load balancer", async () => {
    const trustedProxies = [IpNetwork.parse("127.0.0.1")];
    await using proxy = startServer({ gate: makeGate({}, { maxPerAddress: 1 }), trustedProxies });
    const header = Buffer.from("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n");
    using first = new TestClient(proxy);
    first.socket.write(header);
    first.ask();
    await eventually(() => served(proxy) === 1);
    using second = new TestClient(proxy);
    second.socket.write(header);
    await eventually(() => second.signs.length > 0);
    expect(refusals(proxy)).toEqual(["address-connections"]);
    expect(proxy.events.find(({ type }) => type === "refused")?.session.client).toBe("203.0.113.9");
    using check = new TestClient(proxy);
    check.socket.write("PROXY UNKNOWN\r\n");
    check.ask();
    await eventually(() => served(proxy) === 2);
  });

  test("closes a user who is over a limit, when the secret is known", async () => {
    const gate = makeGate({ maxConnections: 1 });
    await using proxy = startServer({ gate, secrets: [FAMILY, OTHER] });
    using first = new TestClient(proxy);
    first.ask();
    await eventually(() => served(proxy) === 1);
    using second = new TestClient(proxy);
    second.ask();
    await eventually(() => second.signs.length > 0);
    expect([refusals(proxy), endings(proxy)]).toEqual([["user-connections"], ["refused"]]);
    expect(proxy.events.find(({ type }) => type === "refused")?.session.secret).toBe("family");
    using third = new TestClient(proxy);
    third.ask(OTHER);
    await eventually(() => served(proxy) === 2);
    first.socket.end();
    await eventually(() => gate.users()[0]?.connections === 0);
    using fourth = new TestClient(proxy);
    fourth.ask();
    await eventually(() => served(proxy) === 3);
  });

  test("slows those down who are connected when their user gets a rate, at the same rate together", async () => {
    const clock = new ManualClock();
    const gate = makeGate({}, {}, clock);
    await using proxy = startServer({ gate, secrets: [FAMILY, OTHER] });
    using first = new TestClient(proxy);
    using second = new TestClient(proxy);
    using other = new TestClient(proxy);
    for (const client of [first, second]) client.ask();
    other.ask(OTHER);
    await eventually(() => served(proxy) === 3);
    for (const { telegram } of proxy.upstreams) telegram.write(PACKET);
    const clients = [first, second, other];
    await eventually(() => clients.every(({ heard }) => heard.length === PACKET.length));
    gate.configure({
      users: [
        { ...unlimitedUser(FAMILY.name, FAMILY.key), rateBytes: 100_000 },
        unlimitedUser(OTHER.name, OTHER.key),
      ],
      limits: NO_LIMITS,
    });
    for (const name of [FAMILY.name, OTHER.name]) await proxy.server.slow(name);
    const piece = new Uint8Array(60_000);
    for (const { telegram } of proxy.upstreams) telegram.write(piece);
    const all = PACKET.length + piece.length;
    await eventually(() => other.heard.length === all);
    const ofFamily = (): number => first.heard.length + second.heard.length;
    expect(ofFamily()).toBeLessThan(10_000 + 2 * 4_096 + 2 * PACKET.length); // what may pass at once
    await eventually(() => {
      clock.pass(20);
      return ofFamily() === 2 * all;
    });
    for (const client of clients) client.socket.destroy();
    await eventually(() => proxy.server.size === 0);
    expect(gate.connections).toBe(0);
  });

  test("closes who comes from an address that is denied, but not the load balancer's own connections", async () => {
    await using proxy = startServer({ addresses: denyAll });
    using client = new TestClient(proxy);
    await eventually(() => client.signs.length > 0);
    expect([refusals(proxy), endings(proxy)]).toEqual([["address-denied"], ["refused"]]);
    const trustedProxies = [IpNetwork.parse("127.0.0.1")];
    await using balanced = startServer({ addresses: denyAll, trustedProxies });
    using check = new TestClient(balanced);
    check.socket.write("PROXY UNKNOWN\r\n");
    check.ask();
    await eventually(() => served(balanced) === 1);
  });

  test("waits for a gate that answers later, and leaves it even if the client is gone by then", async () => {
    const inner = makeGate();
    const { promise, resolve } = Promise.withResolvers<void>();
    const gate: Gate = {
      arrive: async (address) => {
        await promise;
        const visit = inner.arrive(address);
        return { enter: async (user) => visit.enter(user), leave: () => visit.leave() };
      },
    };
    await using proxy = startServer({ gate });
    using patient = new TestClient(proxy);
    patient.ask();
    const gone = new TestClient(proxy);
    gone.ask();
    await eventually(() => proxy.server.size === 2);
    gone.socket.destroy();
    resolve();
    await eventually(() => endings(proxy).length === 1);
    await eventually(() => served(proxy) === 2 || served(proxy) === 1);
    expect(inner.connections).toBe(1);
    patient.socket.destroy();
    await eventually(() => inner.connections === 0);
    expect(inner.users()[0]?.connections).toBe(0);
  });
});

describe("ProxyServer with fake TLS", () => {
  const forms = { plain: false, padded: false };
  const masks = ({ events }: TestServer): string[] =>
    events.flatMap((event) => (event.type === "masked" ? [event.why] : []));

  test("shows the site to a user who is over a limit, as to anybody", async () => {
    using site = await TestDisguise.open();
    const gate = makeGate({ enabled: false });
    await using proxy = startServer({ gate, forms, disguise: site.disguise });
    using client = new TestClient(proxy);
    const hello = client.hello();
    await eventually(() => client.heard.toString() === PAGE);
    expect(site.heard).toEqual([Buffer.from(hello).toString("latin1")]);
    expect([refusals(proxy), masks(proxy)]).toEqual([["user-disabled"], ["refused"]]);
    client.socket.end();
    await eventually(() => endings(proxy).length === 1);
    expect(endings(proxy)).toEqual(["masked"]);
    expect(proxy.server.tally().size).toBe(0);
  });

  test("shows the site to a user who is over a limit and comes without fake TLS, from the first byte on", async () => {
    using site = await TestDisguise.open();
    const plain = { plain: true, padded: true };
    await using proxy = startServer({
      gate: makeGate({ enabled: false }),
      forms: plain,
      disguise: site.disguise,
    });
    using client = new TestClient(proxy);
    client.ask();
    await eventually(() => client.heard.toString() === PAGE);
    expect(site.heard[0]).toHaveLength(64 + PACKET.length);
    expect([refusals(proxy), masks(proxy)]).toEqual([["user-disabled"], ["refused"]]);
  });

  test("shows the site to whoever comes from an address that is denied", async () => {
    using site = await TestDisguise.open();
    const deps = { gate: makeGate(), forms, disguise: site.disguise, addresses: denyAll };
    await using proxy = startServer(deps);
    using client = new TestClient(proxy);
    client.hello();
    using stranger = new TestClient(proxy);
    stranger.socket.write("GET / HTTP/1.0\r\n\r\n");
    await eventually(() => [client, stranger].every(({ heard }) => heard.toString() === PAGE));
    expect(refusals(proxy)).toEqual(["address-denied", "address-denied"]);
    expect(masks(proxy)).toEqual(["refused", "refused"]);
  });

  test("closes who is over a limit of its address at once", async () => {
    using site = await TestDisguise.open();
    const gate: Gate = {
      arrive: () => {
        throw new RefusedError("address-rate");
      },
    };
    await using proxy = startServer({ gate, forms, disguise: site.disguise });
    using client = new TestClient(proxy);
    await eventually(() => client.signs.length > 0);
    expect([refusals(proxy), endings(proxy)]).toEqual([["address-rate"], ["refused"]]);
    expect(site.heard).toEqual([]);
  });

  test("does not count a hello that was recorded as its user's connection", async () => {
    using site = await TestDisguise.open();
    const gate = makeGate({ maxConnections: 2 });
    await using proxy = startServer({ gate, forms, disguise: site.disguise });
    using client = new TestClient(proxy);
    const hello = client.hello();
    await eventually(() => client.heard.length > 0);
    client.ask(FAMILY, { inRecords: true });
    await eventually(() => served(proxy) === 1);
    const replays = Array.from({ length: 5 }, () => new TestClient(proxy));
    for (const { socket } of replays) socket.write(hello);
    await eventually(() => masks(proxy).length === 5);
    expect(masks(proxy)).toEqual(Array.from({ length: 5 }, () => "replay"));
    expect(gate.users()[0]?.connections).toBe(1);
    expect(gate.connections).toBe(6);
    for (const replay of replays) replay[Symbol.dispose]();
  });

  test("leaves the gate at zero after thousands of connections of every kind", async () => {
    using site = await TestDisguise.open([FAMILY, OTHER]);
    const gate = makeGate({ maxConnections: 3 });
    const visits = { open: 0, twice: 0 };
    const counting: Gate = {
      arrive: (address) => {
        const visit = gate.arrive(address);
        let left = false;
        visits.open += 1;
        const counted: Visit = {
          enter: (user) => visit.enter(user),
          leave: () => {
            visits.open -= 1;
            if (left) visits.twice += 1;
            left = true;
            visit.leave();
          },
        };
        return counted;
      },
    };
    const deps = {
      gate: counting,
      secrets: [FAMILY, OTHER],
      disguise: site.disguise,
      handshakeTimeoutMs: 300,
    };
    await using proxy = startServer(deps);
    const kinds: ((client: TestClient) => void)[] = [
      (client) => client.ask(),
      (client) => client.ask(OTHER),
      (client) => client.ask({ name: "stranger", key: new Uint8Array(16) }),
      (client) => client.hello(),
      (client) => client.hello({ name: "stranger", key: new Uint8Array(16) }),
      (client) => {
        client.hello();
        client.ask(FAMILY, { inRecords: true });
      },
      (client) => client.socket.write("GET / HTTP/1.0\r\n\r\n"),
      (client) => client.socket.end(),
      (client) => client.socket.destroy(),
      (client) => client.socket.write(Uint8Array.of(0x16)),
    ];
    for (let round = 0; round < 20; round += 1) {
      const clients = Array.from({ length: 100 }, () => new TestClient(proxy));
      for (const [index, client] of clients.entries()) {
        client.socket.once("connect", () => kinds[index % kinds.length]?.(client));
      }
      await eventually(() => proxy.events.filter(({ type }) => type === "started").length > round * 90);
      for (const [index, client] of clients.entries()) {
        if (index % 3 === 0) client.socket.destroy();
        else client.socket.end();
      }
      await Promise.all(
        clients.map(({ socket }) => {
          const { promise, resolve } = Promise.withResolvers<void>();
          if (socket.closed) resolve();
          socket.once("close", () => resolve());
          setTimeout(() => socket.destroy(), 500);
          return promise;
        }),
      );
    }
    await eventually(() => proxy.server.size === 0);
    expect(visits).toEqual({ open: 0, twice: 0 });
    expect(gate.connections).toBe(0);
    expect(gate.users().map(({ connections, addresses }) => [connections, addresses])).toEqual([
      [0, 0],
      [0, 0],
    ]);
    expect(new Set(endings(proxy))).not.toContain("internal-error");
  }, 60_000);
});

describe("a user's rate", () => {
  const RATE = 400_000;

  /** How long it takes until `holds`, in seconds of a clock that stands still while nobody waits for it. */
  async function timed(clock: ManualClock, holds: () => boolean): Promise<number> {
    const startedAt = clock.nowMs;
    for (;;) {
      await eventually(() => holds() || clock.pending > 0);
      if (holds()) return (clock.nowMs - startedAt) / 1_000;
      clock.pass(5);
    }
  }

  test("holds over all connections, both ways, and lets halves end", async () => {
    const clock = new ManualClock();
    await using proxy = startServer({
      gate: makeGate({ rateBytes: RATE }, {}, clock),
      secrets: [FAMILY, OTHER],
    });
    const clients = [new TestClient(proxy), new TestClient(proxy)];
    for (const client of clients) client.ask();
    await eventually(() => served(proxy) === 2);
    proxy.upstreams[0]?.telegram.write(new Uint8Array(200_000));
    clients[1]?.socket.end(Buffer.alloc(200_000));
    const ups = (): number => Math.max(...proxy.upstreams.map(({ hears }) => hears.length));
    const downs = (): number => Math.max(...clients.map(({ heard }) => heard.length));
    const seconds = await timed(clock, () => ups() === 200_005 && downs() === 200_000);
    expect(seconds).toBeGreaterThan(0.8); // 1 s, less what may pass at once
    expect(seconds).toBeLessThan(1.3);
    await eventually(() => proxy.upstreams.some(({ hears }) => hears.heard("end")));
    await eventually(() => endings(proxy).includes("client-closed"));
    for (const client of clients) client[Symbol.dispose]();
  });

  test("does not slow others down, and holds through records", async () => {
    using site = await TestDisguise.open([FAMILY, OTHER]);
    const clock = new ManualClock();
    const deps = {
      gate: makeGate({ rateBytes: RATE }, {}, clock),
      secrets: [FAMILY, OTHER],
      disguise: site.disguise,
    };
    await using proxy = startServer(deps);
    const [slow, fast] = [new TestClient(proxy), new TestClient(proxy)];
    for (const [client, secret] of [
      [slow, FAMILY],
      [fast, OTHER],
    ] as const) {
      client.hello(secret);
      await eventually(() => client.heard.length > 0);
      client.ask(secret, { inRecords: true });
    }
    await eventually(() => served(proxy) === 2);
    const before = [slow.heard.length, fast.heard.length];
    for (const { telegram } of proxy.upstreams) telegram.write(new Uint8Array(200_000));
    const heard = (client: TestClient, at: number): number => client.heard.length - (before[at] ?? 0);
    await eventually(() => heard(fast, 1) >= 200_000); // in no time at all
    expect(clock.nowMs).toBe(0);
    const seconds = await timed(clock, () => heard(slow, 0) >= 200_000);
    expect(seconds).toBeGreaterThan(0.35);
    expect(seconds).toBeLessThan(0.65);
    slow[Symbol.dispose]();
    fast[Symbol.dispose]();
  });

  test("gives the memory for first packets back when a client leaves that has to wait", async () => {
    const replays = new ReplayBudget(1_000_000);
    await using proxy = startServer({ gate: makeGate({ rateBytes: 10_000 }), replays, routes: [] });
    for (let count = 0; count < 20; count += 1) {
      using client = new TestClient(proxy);
      client.ask();
      client.socket.write(Buffer.alloc(100_000));
      await eventually(() => endings(proxy).length === count + 1);
    }
    await Bun.sleep(300);
    expect(replays.take(1_000_000)).toBe(true);
  });
});

describe("ProxyServer.use()", () => {
  test("gives new sessions the new, and says when the last one with the old has gone", async () => {
    await using proxy = startServer();
    using first = new TestClient(proxy);
    first.ask();
    await eventually(() => served(proxy) === 1);
    let retired = 0;
    proxy.server.use({ ...proxy.deps, secrets: [OTHER] }, () => {
      retired += 1;
    });
    using second = new TestClient(proxy);
    second.ask(OTHER);
    await eventually(() => served(proxy) === 2);
    proxy.upstreams[0]?.telegram.write(Uint8Array.of(1));
    await eventually(() => first.heard.length === 1);
    expect(retired).toBe(0);
    first.socket.end();
    await eventually(() => retired === 1);
    proxy.server.use(proxy.deps);
    second.socket.end();
    await eventually(() => proxy.server.size === 0);
    let at = 0;
    proxy.server.use(proxy.deps, () => {
      at += 1;
    });
    expect([retired, at]).toEqual([1, 1]);
  });
});

describe("ProxyServer.revoke() and tally()", () => {
  test("ends the sessions of these users, and nobody else's", async () => {
    const gate = makeGate();
    await using proxy = startServer({ gate, secrets: [FAMILY, OTHER] });
    using first = new TestClient(proxy);
    first.ask();
    using second = new TestClient(proxy);
    second.ask(OTHER);
    using third = new TestClient(proxy);
    await eventually(() => served(proxy) === 2 && proxy.server.size === 3);
    proxy.server.revoke(["family", "nobody"]);
    await eventually(() => first.socket.closed || first.signs.length > 0);
    expect(endings(proxy)).toEqual(["revoked"]);
    expect(gate.users().map(({ connections }) => connections)).toEqual([0, 1]);
    expect(second.signs).toEqual([]);
    expect(third.signs).toEqual([]);
  });

  test("counts what each user has moved since the last time, of those who have gone, too", async () => {
    await using proxy = startServer({ secrets: [FAMILY, OTHER] });
    using first = new TestClient(proxy);
    first.ask();
    using second = new TestClient(proxy);
    second.ask(OTHER);
    await eventually(() => served(proxy) === 2);
    expect(Object.fromEntries(proxy.server.tally())).toEqual({
      family: { up: 5, down: 0 },
      other: { up: 5, down: 0 },
    });
    expect(proxy.server.tally().size).toBe(0);
    for (const { telegram } of proxy.upstreams) telegram.write(PACKET);
    await eventually(() => first.heard.length === 5 && second.heard.length === 5);
    first.socket.end();
    await eventually(() => proxy.server.size === 1);
    expect(Object.fromEntries(proxy.server.tally())).toEqual({
      family: { up: 0, down: 5 },
      other: { up: 0, down: 5 },
    });
  });
});

describe("ProxyServer.drain()", () => {
  test("accepts nobody, and lets those find their way who have just come", async () => {
    await using proxy = startServer();
    using client = new TestClient(proxy);
    await eventually(() => proxy.server.size === 1);
    const drained = proxy.server.drain(60_000);
    using late = new TestClient(proxy);
    await eventually(() => late.signs.length > 0);
    expect(late.signs[0]).toBe("ECONNREFUSED");
    client.ask();
    await eventually(() => served(proxy) === 1);
    proxy.upstreams[0]?.telegram.write(PACKET);
    await eventually(() => client.heard.length === 5);
    client.socket.end();
    await drained;
    expect(endings(proxy)).toEqual(["client-closed"]);
  });

  test("ends who is left when its time is over, or when it is to stop", async () => {
    await using proxy = startServer();
    using client = new TestClient(proxy);
    client.ask();
    await eventually(() => served(proxy) === 1);
    await proxy.server.drain(50);
    expect(endings(proxy)).toEqual(["shutdown"]);
    await using other = startServer();
    using another = new TestClient(other);
    another.ask();
    await eventually(() => served(other) === 1);
    const drained = other.server.drain(60_000);
    await other.server.stop(0);
    await drained;
    expect(endings(other)).toEqual(["shutdown"]);
  });
});

describe("ProxyServer at its limit of connections", () => {
  test("closes more at once, and counts them", async () => {
    await using proxy = startServer(
      {},
      { limits: { maxConnections: 2, bufferBytes: undefined, queueBytes: 64 * 1024 } },
    );
    const clients = [new TestClient(proxy), new TestClient(proxy)];
    await eventually(() => proxy.server.size === 2);
    using third = new TestClient(proxy);
    await eventually(() => third.signs.length > 0);
    expect(proxy.server.shed.connections).toBe(1);
    expect(proxy.events.filter(({ type }) => type === "started")).toHaveLength(2);
    clients[0]?.socket.destroy();
    await eventually(() => proxy.server.size === 1);
    using fourth = new TestClient(proxy);
    fourth.ask();
    await eventually(() => served(proxy) === 1);
    proxy.server.setLimits({ maxConnections: undefined, bufferBytes: undefined, queueBytes: 64 * 1024 });
    using fifth = new TestClient(proxy);
    fifth.ask();
    await eventually(() => served(proxy) === 2);
    for (const client of clients) client[Symbol.dispose]();
  });
});

describe("ProxyServer's queue per connection", () => {
  test("is as long as it is set when somebody comes", async () => {
    const limits = (queueBytes: number) => ({
      maxConnections: undefined,
      bufferBytes: undefined,
      queueBytes,
    });
    await using proxy = startServer({}, { limits: limits(64 * 1024) });
    /** How much a client that does not read is sent until the data centre is held up. */
    const fill = async (): Promise<number> => {
      const before = proxy.upstreams.length;
      const client = new TestClient(proxy);
      client.ask();
      await eventually(() => proxy.upstreams[before]?.hears.length === 5);
      client.socket.pause();
      const telegram = proxy.upstreams[before]?.telegram;
      let sent = 0;
      for (let still = 0; telegram !== undefined && still < 20; still++) {
        while (!telegram.congested && sent < 64 * 1024 * 1024) {
          telegram.write(new Uint8Array(64 * 1024));
          sent += 64 * 1024;
          still = 0;
          await new Promise<void>((resolve) => setImmediate(resolve));
        }
        await Bun.sleep(2);
      }
      client[Symbol.dispose]();
      return sent;
    };
    const short = await fill();
    proxy.server.setLimits(limits(16 * 1024 * 1024));
    const long = await fill();
    expect(long - short).toBeGreaterThan(10 * 1024 * 1024);
  }, 20_000);
});
