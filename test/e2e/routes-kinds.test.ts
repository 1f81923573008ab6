import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { createHash, randomBytes, randomInt } from "node:crypto";
import { MtprotoServer, STUB_ERROR } from "../support/mtproto-server.ts";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { REAL_CLIENTS } from "../support/real-clients.ts";
import { ROUTES, type RouteName } from "../support/route-failures.ts";
import { MESSAGE_LIMIT } from "../support/stub-worker.ts";
import {
  CF_DOMAIN,
  echo,
  FRONT_DOMAIN,
  TELEGRAM_IPS,
  TELEGRAM_TEST_IPS,
  WORKER_DOMAIN,
  World,
} from "../support/world.ts";

const TOKEN = "c0rrect-horse";
/** Repeated once: of 256 keys one begins with a zero, which the client drops. */
const CLIENT_TEST_OPTIONS = { timeout: 60_000, retry: 1 } as const;
const KIB = 1024;
const MIB = 1024 * KIB;

const [MTCUTE] = REAL_CLIENTS.filter(({ name }) => name === "mtcute");
if (MTCUTE === undefined) throw new Error("There is no mtcute");

/** What a client can ask for. */
interface Wish {
  readonly dc: keyof typeof TELEGRAM_IPS;
  readonly media: boolean;
  readonly test: boolean;
}

const WISHES: readonly Wish[] = [
  ...([1, 2, 3, 4, 5, 203] as const).flatMap((dc) =>
    [false, true].map((media) => ({ dc, media, test: false })),
  ),
  ...([1, 2, 3] as const).flatMap((dc) => [false, true].map((media) => ({ dc, media, test: true }))),
];

/** What a server gets to see of a WebSocket. */
interface Seen {
  readonly serverName: string;
  readonly host: string;
  readonly path: string;
  readonly protocols: readonly string[];
  readonly authorization: string | undefined;
}

function describeWish({ dc, media, test }: Wish): string {
  return `${test ? "test " : ""}DC ${dc}${media ? " media" : ""}`;
}

function dcIdOf({ dc, media, test }: Wish): number {
  return (media ? -1 : 1) * (test ? 10_000 + dc : dc);
}

/** How a wish is to be asked for on a route with WebSockets. */
function expected(route: RouteName, wish: Wish): Seen {
  const path = wish.test ? "/apiws_test" : "/apiws";
  const suffix = wish.media ? "-1" : "";
  const telegram = `kws${wish.dc === 203 ? 2 : wish.dc}${suffix}.web.telegram.org`;
  const plain = { path, protocols: ["binary"], authorization: undefined };
  if (route === "cf-domain") {
    const name = `kws${wish.dc}${suffix}.${CF_DOMAIN}`;
    return { ...plain, serverName: name, host: name };
  }
  if (route !== "cf-worker") {
    return { ...plain, serverName: route === "fronted-ws" ? FRONT_DOMAIN : telegram, host: telegram };
  }
  const ips: Readonly<Record<number, string>> = wish.test ? TELEGRAM_TEST_IPS : TELEGRAM_IPS;
  return {
    serverName: WORKER_DOMAIN,
    host: WORKER_DOMAIN,
    path: `/apiws?dst=${ips[wish.dc]}&dc=${wish.dc}`,
    protocols: [],
    authorization: `Bearer ${TOKEN}`,
  };
}

function seen(world: World, route: RouteName): Seen | undefined {
  const request = world.requests(route).at(-1);
  if (request === undefined) return undefined;
  const { serverName = "", host = "", path, protocols, authorization } = request;
  return { serverName, host: host.replace(/:\d+$/, ""), path, protocols, authorization };
}

function random(length: number): Uint8Array {
  return new Uint8Array(randomBytes(length));
}

/** Sends `bytes` in pieces of any size. */
async function sendRagged(client: RawClient, bytes: Uint8Array): Promise<void> {
  for (let from = 0; from < bytes.length; ) {
    const size = randomInt(10) === 0 ? 1 + randomInt(5) : 1 + randomInt(60 * KIB);
    await client.writeSegments(bytes.subarray(from, from + size), size);
    from += size;
  }
}

describe.each(ROUTES)("--route %s alone", (route) => {
  let world: World;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    world = await World.start({ token: TOKEN });
    proxy = await ProxyProcess.start({ args: world.flags([route]) });
  });

  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
    await world[Symbol.asyncDispose]();
  });

  beforeEach(() => world.forget());

  for (const wish of WISHES) {
    it(`reaches ${describeWish(wish)}`, async () => {
      const dcId = dcIdOf(wish);
      using client = await RawClient.open({ port: proxy.port, secret: proxy.secret, dcId });
      const payload = random(40);
      client.sendPacket(payload);
      expect((await client.readPacket()).payload.toHex()).toBe(payload.toHex());
      const peer = await world.next(route);
      expect(peer.init).toEqual({ transport: "intermediate", dcId });
      expect(peer.violations).toEqual([]);
      expect(world.attempts(route)).toBe(1);
      for (const other of ROUTES) if (other !== route) expect(world.attempts(other)).toBe(0);
      if (route !== "direct-tcp") expect(seen(world, route)).toEqual(expected(route, wish));
      expect(world.strangers).toEqual([]);
    });
  }

  for (const transport of TRANSPORTS) {
    it(`carries 1 MiB in ragged pieces both ways over ${transport}`, async () => {
      using client = await RawClient.open({ port: proxy.port, secret: proxy.secret, transport });
      const packets: Uint8Array[] = [];
      for (let left = MIB; left > 0; left -= packets.at(-1)?.length ?? left) {
        const words = 2 + randomInt(randomInt(10) === 0 ? 40 * KIB : 200);
        const padding = transport === "padded" ? randomInt(16) : 0;
        packets.push(encodePacket(transport, random(4 * words + padding)));
      }
      const all = concat(...packets);
      const sending = sendRagged(client, client.encrypt(all));
      const echo = await client.read(all.length);
      await sending;
      expect(createHash("sha256").update(echo).digest("hex")).toBe(
        createHash("sha256").update(all).digest("hex"),
      );
      const peer = await world.next(route);
      expect(peer.received).toBe(all.length);
      expect(peer.packets.length).toBe(packets.length);
      expect(peer.violations).toEqual([]);
    });
  }

  it("carries packets of 1 MiB and more", async () => {
    using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    for (const size of [MIB, 3 * MIB]) {
      const payload = random(size);
      client.sendPacket(payload);
      expect(Buffer.compare((await client.readPacket()).payload, payload)).toBe(0);
    }
    for (const { sizes } of world.worker.relays) {
      expect(sizes.every((size) => size < MESSAGE_LIMIT)).toBe(true);
    }
  });

  it(
    "lets a client of others agree on a key and make a call",
    async () => {
      const server = new MtprotoServer();
      world.answer = server.onPacket;
      try {
        const endpoint = { port: proxy.port, secret: proxy.secret.toHex() };
        await expect(MTCUTE.call(endpoint)).rejects.toThrow(STUB_ERROR);
      } finally {
        world.answer = echo;
      }
      expect(server.progress.keys).toBeGreaterThan(0);
    },
    CLIENT_TEST_OPTIONS,
  );

  it("passes the client's end on, and the data centre's", async () => {
    const leaving = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    leaving.sendPacket(random(8));
    await leaving.readPacket();
    const left = await world.next(route);
    leaving[Symbol.dispose]();
    await left.until(() => left.closed, "the end at the data centre");
    using staying = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    staying.sendPacket(random(8));
    await staying.readPacket();
    (await world.next(route)).end();
    await staying.until(() => staying.ended, "the end at the client");
  });
});

describe("fronted-ws", () => {
  it("accepts a certificate for the front as well", async () => {
    await using world = await World.start({ frontCertificate: "front" });
    await using proxy = await ProxyProcess.start({ args: world.flags(["fronted-ws"]) });
    using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    client.sendPacket(random(8));
    expect((await client.readPacket()).payload.length).toBe(8);
  });
});

describe("--no-cfproxy", () => {
  it("leaves out cf-domain", async () => {
    await using world = await World.start();
    const args = [...world.flags(["cf-domain", "direct-tcp"]), "--no-cfproxy"];
    await using proxy = await ProxyProcess.start({ args });
    using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    client.sendPacket(random(8));
    await client.readPacket();
    expect(world.attempts("cf-domain")).toBe(0);
  });
});
