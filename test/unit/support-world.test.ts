import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { TRANSPORTS } from "../support/packets.ts";
import {
  FAILURES_OF,
  type Failure,
  RETRY_AFTER_S,
  ROUTES,
  type RouteName,
  STALL_BYTES,
} from "../support/route-failures.ts";
import { MESSAGE_LIMIT } from "../support/stub-worker.ts";
import { nextTurn } from "../support/waiting.ts";
import { CF_DOMAIN, FRONT_DOMAIN, TELEGRAM_IPS, WORKER_DOMAIN, World } from "../support/world.ts";
import { WorldClient, type WorldClientOptions } from "../support/world-client.ts";

const TOKEN = "let-me-in";
const KIB = 1024;

let world: World;

beforeAll(async () => {
  world = await World.start({ token: TOKEN });
});

afterEach(() => {
  for (const route of ROUTES) world.repair(route);
  world.worker.relays.length = 0;
  world.forget();
});

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

function open(route: RouteName, options: WorldClientOptions = {}): Promise<WorldClient> {
  return WorldClient.open(world, route, { token: TOKEN, ...options });
}

describe.each(ROUTES)("World, %s", (route) => {
  test.each(TRANSPORTS)("answers packets over %s with what they carry", async (transport) => {
    using client = await open(route, { transport });
    for (const size of [4, 40, 508, 512, 70_000, 1_024 * KIB - 64]) {
      const payload = new Uint8Array(randomBytes(size));
      client.sendPacket(payload);
      expect(Buffer.compare((await client.readPacket()).payload, payload)).toBe(0);
    }
    const peer = await world.next(route);
    expect(peer.init).toEqual({ transport, dcId: 2 });
    expect(peer.packets.length).toBe(6);
    expect(peer.violations).toEqual([]);
    expect(world.attempts(route)).toBe(1);
    for (const other of ROUTES) if (other !== route) expect(world.attempts(other)).toBe(0);
    expect(world.strangers).toEqual([]);
  });

  test("serves every data centre", async () => {
    for (const dc of [1, 2, 3, 4, 5, 203] as const) {
      using _ = await open(route, { dc });
      expect((await world.next(route)).init?.dcId).toBe(dc);
    }
    expect(world.peers(route).length).toBe(6);
  });

  test("answers as it is told to, with the route", async () => {
    await using own = await World.start();
    own.answer = (_, __, from) => [new TextEncoder().encode(`${from}....`.slice(0, 12))];
    using client = await WorldClient.open(own, route);
    client.sendPacket(new Uint8Array(8));
    expect(new TextDecoder().decode((await client.readPacket()).payload)).toStartWith(route.slice(0, 9));
  });
});

describe("World.requests()", () => {
  const cases: readonly (readonly [RouteName, name: string, host: string, path: string])[] = [
    ["direct-ws", "kws5.web.telegram.org", "kws5.web.telegram.org", "/apiws"],
    ["fronted-ws", FRONT_DOMAIN, "kws5.web.telegram.org", "/apiws"],
    ["cf-worker", WORKER_DOMAIN, WORKER_DOMAIN, `/apiws?dst=${TELEGRAM_IPS[5]}&dc=5`],
    ["cf-domain", `kws5.${CF_DOMAIN}`, `kws5.${CF_DOMAIN}`, "/apiws"],
  ];
  test.each(cases)("keeps the names, path and headers of %s", async (route, name, host, path) => {
    using _ = await open(route, { dc: 5 });
    await world.next(route);
    const [request] = world.requests(route);
    expect(request).toMatchObject({ serverName: name, path, authorization: `Bearer ${TOKEN}` });
    expect(request?.host).toStartWith(`${host}:`);
    expect(request?.protocols).toEqual(route === "cf-worker" ? [] : ["binary"]);
  });

  test("shows the certificate of the front where it is told to", async () => {
    await using own = await World.start({ frontCertificate: "front" });
    using _ = await WorldClient.open(own, "fronted-ws");
    expect((await own.next("fronted-ws")).init?.dcId).toBe(2);
  });
});

describe("World.flags()", () => {
  test("names the routes in order, and nothing but loopback", () => {
    const flags = world.flags(["direct-tcp", "cf-domain", "cf-worker", "fronted-ws"]);
    const named = flags.filter((_, at) => flags[at - 1] === "--route");
    expect(named).toEqual(["direct-tcp", "cf-domain", "cf-worker", "fronted-ws"]);
    for (const [at, flag] of flags.entries()) {
      if (["--dc-ip", "--dc-tcp", "--resolve"].includes(flag)) expect(flags[at + 1]).toContain("127.0.0.1");
    }
    expect(flags).toContain(`*.${CF_DOMAIN}=127.0.0.1`);
    expect(flags).toContain(TOKEN);
  });

  test("has names that do not exist for routes with nxdomain, and then it is too late to break others", async () => {
    await using own = await World.start();
    own.break("cf-worker", "nxdomain");
    own.break("cf-domain", "nxdomain");
    const text = own.flags(["cf-worker", "cf-domain"]).join(" ");
    expect(text).toMatch(/worker-domain \S+\.invalid:\d+ .*cfproxy-domain \S+\.invalid:\d+/);
    expect(text).not.toContain("--resolve");
    expect(() => own.break("cf-domain", "nxdomain")).toThrow("when flags are made");
    expect(() => own.break("direct-ws", "nxdomain")).toThrow("cannot have");
  });
});

/** What a client sees of a failure. */
type Outcome = "refused" | "ended" | "silent" | "stalled";

const OUTCOMES: Readonly<Record<Exclude<Failure, "nxdomain">, Outcome>> = {
  "302": "refused",
  "403": "refused",
  "429": "refused",
  "tls-alert": "refused",
  "wrong-certificate": "refused",
  "accept-and-hang": "refused",
  "101-then-close": "ended",
  "101-then-silence": "silent",
  "stall-16k": "stalled",
  reset: "refused",
  "reset-after-init": "ended",
  "half-open": "ended",
};

/** Plain TCP opens, whatever comes after it. */
const TCP_OUTCOMES: Readonly<Partial<Record<Failure, Outcome>>> = {
  "accept-and-hang": "silent",
  reset: "ended",
};

describe.each(ROUTES)("World.break(), %s", (route) => {
  for (const failure of FAILURES_OF[route]) {
    if (failure === "nxdomain") continue;
    const outcome = (route === "direct-tcp" ? TCP_OUTCOMES[failure] : undefined) ?? OUTCOMES[failure];
    test(`${failure}: ${outcome}, until it is repaired`, async () => {
      world.break(route, failure);
      await expectOutcome(route, outcome);
      expect(world.attempts(route)).toBe(1);
      world.repair(route);
      using client = await open(route);
      client.sendPacket(new Uint8Array(8));
      expect((await client.readPacket()).payload.length).toBe(8);
    });
  }
});

async function expectOutcome(route: RouteName, outcome: Outcome): Promise<void> {
  const opening = open(route);
  if (outcome === "refused") {
    await expect(opening).rejects.toThrow();
    return;
  }
  using client = await opening;
  if (outcome === "ended") {
    await client.until(() => client.ended, "the end");
    expect(client.received).toBe(0);
    return;
  }
  client.sendPacket(new Uint8Array(64 * KIB));
  const expected = outcome === "stalled" ? STALL_BYTES : 0;
  await client.until(() => client.received >= expected, "the bytes before the stall");
  await nextTurn();
  if (outcome === "stalled") {
    client.sendPacket(new Uint8Array(8));
    const [peer] = world.peers(route);
    await peer?.until(() => peer.packets.length === 2, "a packet after the stall");
    await nextTurn();
  }
  expect(client.received).toBe(expected);
  expect(client.ended).toBe(false);
}

describe("World.break()", () => {
  test("says in Retry-After how long a route with 429 wants to be left alone, to any request", async () => {
    world.break("cf-domain", "429");
    const name = `kws2.${CF_DOMAIN}`;
    const response = await fetch(`https://127.0.0.1:${world.cloudflare.port}/`, {
      tls: { rejectUnauthorized: false, serverName: name },
      headers: { Host: name },
    });
    expect(response.status).toBe(429);
    expect(response.headers.get("Retry-After")).toBe(String(RETRY_AFTER_S));
  });

  test("leaves the routes alone that share address and port", async () => {
    world.break("direct-ws", "reset");
    using _ = await open("fronted-ws");
    await world.next("fronted-ws");
    world.repair("direct-ws");
    world.break("fronted-ws", "wrong-certificate");
    await expect(open("fronted-ws")).rejects.toThrow(/ALTNAME|certificate|does not match/i);
    using __ = await open("direct-ws");
    await world.next("direct-ws");
  });

  test("keeps a half-open connection, and reads it", async () => {
    world.break("direct-ws", "half-open");
    using _ = await open("direct-ws");
    expect((await world.next("direct-ws")).closed).toBe(false);
  });
});

describe("StubWorker", () => {
  test("refuses a wrong token, a missing one, and addresses that are not in its table", async () => {
    for (const token of ["let-me-out", ""]) {
      await expect(open("cf-worker", { token })).rejects.toThrow("403");
    }
    const { portOf } = world.worker;
    world.worker.portOf = () => undefined;
    await expect(open("cf-worker")).rejects.toThrow("403");
    world.worker.portOf = portOf;
  });

  test("closes with 1009 on a message of 1 MiB, and takes one that is a byte shorter", async () => {
    using client = await open("cf-worker");
    const peer = await world.next("cf-worker");
    client.write(client.encrypt(new Uint8Array(MESSAGE_LIMIT - 1)));
    await peer.until(() => peer.received === MESSAGE_LIMIT - 1, "the shorter message");
    client.write(client.encrypt(new Uint8Array(MESSAGE_LIMIT)));
    await client.until(() => client.ended, "the end");
    expect(world.worker.relays[0]?.closeCode).toBe(1009);
    expect(peer.received).toBe(MESSAGE_LIMIT - 1);
  });

  test("closes when the data centre ends, after what that has sent", async () => {
    world.workerDc.onPacket = (_, connection) => {
      connection.sendPacket(new Uint8Array(200_000));
      connection.end();
      return [];
    };
    using client = await open("cf-worker");
    client.sendPacket(new Uint8Array(8));
    expect((await client.readPacket()).payload.length).toBe(200_000);
    await client.until(() => client.ended, "the end");
  });
});

describe("StubTcpDc", () => {
  test("reads an init and packets byte by byte", async () => {
    using client = await open("direct-tcp", { transport: "padded" });
    const peer = await world.next("direct-tcp");
    for (const byte of client.encrypt(Uint8Array.of(5, 0, 0, 0, 1, 2, 3, 4, 5))) {
      client.write(Uint8Array.of(byte));
      await nextTurn();
    }
    expect((await client.readPacket()).payload.toHex()).toBe("0102030405");
    expect(peer.received).toBe(9);
  });

  test("notes a packet of no length, and counts on", async () => {
    using client = await open("direct-tcp");
    const peer = await world.next("direct-tcp");
    client.write(client.encrypt(new Uint8Array(100)));
    await peer.until(() => peer.received === 100, "all bytes");
    expect(peer.violations).toEqual(["a packet of no length"]);
  });
});
