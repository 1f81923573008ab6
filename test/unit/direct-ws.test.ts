import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketDialer } from "../../src/net/websocket-dial.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import type { DcAddress } from "../../src/protocol/mtproto/dc-addresses.ts";
import { Scratch } from "../../src/upstream/packet-framer.ts";
import { DirectWsRoute } from "../../src/upstream/routes/direct-ws.ts";
import { testCertificates } from "../support/certificates.ts";
import { RecordingSink, toOutput } from "../support/memory-channel.ts";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";
import { StubDc } from "../support/stub-dc.ts";
import { eventually } from "./frame-server.ts";

const never = new AbortController().signal;
let stub: StubDc;
let dialer: WebSocketDialer;

beforeAll(async () => {
  stub = await StubDc.start();
  dialer = new WebSocketDialer({
    trust: { verify: true, ca: [(await testCertificates()).ca] },
    poller: new DrainPoller(),
    highWater: 64 * 1024,
    timeoutMs: 4_000,
  });
});
afterEach(() => stub.reset());
afterAll(async () => {
  await stub[Symbol.asyncDispose]();
});

function newRoute(
  name: "preferred" | "alternate",
  addresses: readonly [number, DcAddress][] = [],
): DirectWsRoute {
  return new DirectWsRoute({ name, dialer, addresses: new Map(addresses), scratch: new Scratch() });
}

const target = (changes: Partial<Target> = {}): Target => ({
  dc: 2,
  media: false,
  test: false,
  transport: "abridged",
  ...changes,
});

describe("DirectWsRoute.endpoint()", () => {
  const pinned: [number, DcAddress][] = [
    [2, { ip: "192.0.2.2", port: 443 }],
    [4, { ip: "192.0.2.4", port: 8443 }],
  ];

  test("names the host where DNS is asked", () => {
    expect(newRoute("preferred").endpoint(target({ dc: 1 }))).toBe("kws1.web.telegram.org");
    expect(newRoute("alternate").endpoint(target({ dc: 1 }))).toBe("kws1-1.web.telegram.org");
  });

  test("names the pinned address, and a port that is not the usual one", () => {
    expect(newRoute("preferred", pinned).endpoint(target())).toBe("kws2.web.telegram.org at 192.0.2.2");
    expect(newRoute("preferred", pinned).endpoint(target({ dc: 4, media: true }))).toBe(
      "kws4-1.web.telegram.org at 192.0.2.4, port 8443",
    );
  });

  test("tells the test environment apart, which shares names and addresses with the other", () => {
    expect(newRoute("preferred").endpoint(target({ test: true }))).toBe("kws2.web.telegram.org (test)");
    expect(newRoute("alternate", pinned).endpoint(target({ media: true, test: true }))).toBe(
      "kws2.web.telegram.org (test) at 192.0.2.2",
    );
  });

  test("takes DC 203 to the address of DC 2, unless it has its own", () => {
    expect(newRoute("preferred", pinned).endpoint(target({ dc: 203 }))).toBe(
      "kws2.web.telegram.org at 192.0.2.2",
    );
    const own: [number, DcAddress][] = [...pinned, [203, { ip: "192.0.2.203", port: 443 }]];
    expect(newRoute("preferred", own).endpoint(target({ dc: 203 }))).toBe(
      "kws2.web.telegram.org at 192.0.2.203",
    );
  });
});

describe("DirectWsRoute.open()", () => {
  const addresses = (): [number, DcAddress][] => [
    [2, { ip: "127.0.0.1", port: stub.port }],
    [4, { ip: "127.0.0.1", port: stub.port }],
  ];

  test.each([
    { changes: { dc: 2 }, dcId: 2, serverName: "kws2.web.telegram.org", path: "/apiws" },
    { changes: { dc: 4, media: true }, dcId: -4, serverName: "kws4-1.web.telegram.org", path: "/apiws" },
    { changes: { dc: 203 }, dcId: 203, serverName: "kws2.web.telegram.org", path: "/apiws" },
    {
      changes: { dc: 2, media: true, test: true },
      dcId: -10_002,
      serverName: "kws2-1.web.telegram.org",
      path: "/apiws_test",
    },
  ])(
    "sends the init of dc id $dcId as its own first message",
    async ({ changes, dcId, serverName, path }) => {
      const { channel, warm } = await newRoute("preferred", addresses()).open(target(changes), never);
      const connection = await stub.next();
      expect(connection.init).toEqual({ transport: "abridged", dcId });
      expect(connection.sizes).toEqual([64]);
      expect(connection.request.serverName).toBe(serverName);
      expect(connection.request.path).toBe(path);
      expect(warm).toBe(false);
      channel.destroy();
    },
  );

  test("sends one packet per message, and decrypts what comes back", async () => {
    for (const transport of TRANSPORTS) {
      const { channel, link } = await newRoute("preferred", addresses()).open(target({ transport }), never);
      const down: number[] = [];
      channel.attach({
        onChunk: (chunk) =>
          link.down.push(
            chunk,
            toOutput((plain) => down.push(...plain)),
          ),
        onEnd() {},
        onDrain() {},
        onClose() {},
      });
      const packets = [8, 40, 20_000].map((length) =>
        encodePacket(transport, new Uint8Array(length).fill(length & 0xff)),
      );
      const stream = concat(...packets);
      link.up.push(stream.subarray(0, 11), channel);
      link.up.push(stream.subarray(11), channel);
      const connection = await stub.next();
      await connection.until(() => connection.messages.length === 3, "three messages");
      expect(connection.messages.map((message) => message.toHex())).toEqual(
        packets.map((packet) => packet.toHex()),
      );
      expect(connection.violations).toEqual([]);

      connection.send(Uint8Array.of(1, 2, 3));
      connection.send(Uint8Array.of(4));
      await connection.drained();
      await eventually(() => down.length === 4);
      expect(down).toEqual([1, 2, 3, 4]);
      channel.destroy();
    }
  });

  test("rejects with what the dialer says", async () => {
    stub.upgrade = () => ({ kind: "status", status: "302 Found" });
    const opening = newRoute("preferred", addresses()).open(target(), never);
    await expect(opening).rejects.toMatchObject({ name: "RouteError", code: "REDIRECT", status: 302 });
  });

  test("says nothing on a dialled channel before it is started", async () => {
    const route = newRoute("preferred", addresses());
    const channel = await route.dial(target(), never);
    const sink = new RecordingSink();
    channel.attach(sink);
    const [connection] = stub.connections;
    channel.ping();
    await connection?.until(() => connection.pings === 1, "a ping");
    expect(connection?.sizes).toEqual([]);
    const { warm } = route.start(channel, target({ dc: 203 }), { warm: true });
    expect(warm).toBe(true);
    expect((await stub.next()).init?.dcId).toBe(203);
    channel.destroy();
  });
});
