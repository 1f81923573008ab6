import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { TcpDialer } from "../../src/net/tcp-dial.ts";
import type { DcTarget, Target } from "../../src/protocol/mtproto/dc.ts";
import type { DcAddress } from "../../src/protocol/mtproto/dc-addresses.ts";
import { DirectTcpRoute } from "../../src/upstream/routes/direct-tcp.ts";
import { toOutput } from "../support/memory-channel.ts";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";
import { StubTcpDc } from "../support/stub-tcp-dc.ts";
import { eventually } from "./frame-server.ts";

const never = new AbortController().signal;
let stub: StubTcpDc;

beforeAll(async () => {
  stub = await StubTcpDc.start();
});
afterEach(() => stub.reset());
afterAll(async () => {
  await stub[Symbol.asyncDispose]();
});

function newRoute(
  addresses: readonly [number, readonly DcAddress[]][],
  testAddresses: readonly [number, readonly DcAddress[]][] = [],
): DirectTcpRoute {
  return new DirectTcpRoute({
    dialer: new TcpDialer({ highWater: 64 * 1024, timeoutMs: 4_000, proxy: undefined }),
    addresses: new Map(addresses),
    testAddresses: new Map(testAddresses),
  });
}

const target = (changes: Partial<DcTarget> = {}): DcTarget => ({
  dc: 2,
  media: false,
  test: false,
  ...changes,
});

describe("DirectTcpRoute.ways()", () => {
  const route = newRoute(
    [
      [
        2,
        [
          { ip: "192.0.2.2", port: 443 },
          { ip: "2001:db8::2", port: 443 },
          { ip: "192.0.2.3", port: 5222 },
        ],
      ],
      [203, [{ ip: "192.0.2.203", port: 443 }]],
    ],
    [[2, [{ ip: "192.0.2.40", port: 443 }]]],
  );

  test("are the addresses of the data centre, in their order, IPv6 in brackets", () => {
    const ways = route.ways(target());
    expect(route.id).toBe("direct-tcp");
    expect(ways.map(({ endpoint }) => endpoint)).toEqual([
      "192.0.2.2:443",
      "[2001:db8::2]:443",
      "192.0.2.3:5222",
    ]);
    expect(ways.map(({ address }) => address)).toEqual([
      { host: "192.0.2.2", port: 443, webSocket: undefined },
      { host: "2001:db8::2", port: 443, webSocket: undefined },
      { host: "192.0.2.3", port: 5222, webSocket: undefined },
    ]);
    expect(ways.map((way) => way.route)).toEqual(["direct-tcp", "direct-tcp", "direct-tcp"]);
    expect(new Set(ways.map(({ group }) => group)).size).toBe(3);
  });

  test("are the same addresses for media, and others for the test environment", () => {
    expect(route.ways(target({ media: true })).map(({ endpoint }) => endpoint)).toEqual(
      route.ways(target()).map(({ endpoint }) => endpoint),
    );
    expect(route.ways(target({ test: true })).map(({ endpoint }) => endpoint)).toEqual(["192.0.2.40:443"]);
  });

  test("are those of DC 203 itself, not of DC 2", () => {
    expect(route.ways(target({ dc: 203 })).map(({ endpoint }) => endpoint)).toEqual(["192.0.2.203:443"]);
  });

  test("are none for a data centre without addresses", () => {
    expect(route.ways(target({ dc: 5 }))).toEqual([]);
    expect(route.ways(target({ dc: 203, test: true }))).toEqual([]);
  });

  test("are the same objects each time", () => {
    expect(route.ways(target())).toBe(route.ways(target()));
  });
});

describe("DirectTcpRoute, on the wire", () => {
  test.each([
    [2, { dc: 2 }],
    [-2, { dc: 2, media: true }],
    [-10_002, { dc: 2, media: true, test: true }],
  ])("sends the init of dc id %d", async (dcId, changes) => {
    const here = [{ ip: "127.0.0.1", port: stub.port }];
    const to: Target = { ...target(changes), transport: "padded" };
    const [way] = newRoute([[2, here]], [[2, here]]).ways(to);
    const upstream = await way?.open(to, never);
    expect((await stub.next()).init).toEqual({ transport: "padded", dcId });
    expect(upstream?.warm).toBe(false);
    upstream?.channel.destroy();
  });

  test("encrypts what goes up and decrypts what comes down, in any chunks", async () => {
    for (const transport of TRANSPORTS) {
      const to: Target = { ...target(), transport };
      const [way] = newRoute([[2, [{ ip: "127.0.0.1", port: stub.port }]]]).ways(to);
      const upstream = await way?.open(to, never);
      if (upstream === undefined) throw new Error("There is no way");
      const { channel, link } = upstream;
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
      const stream = concat(
        ...[8, 400].map((length) => encodePacket(transport, new Uint8Array(length).fill(7))),
      );
      for (let at = 0; at < stream.length; at += 5) link.up.push(stream.subarray(at, at + 5), channel);
      const connection = await stub.next();
      await connection.until(() => connection.packets.length === 2, "two packets");
      expect(connection.packets.map(({ payload }) => payload.length)).toEqual([8, 400]);
      connection.send(Uint8Array.of(1, 2, 3));
      connection.send(Uint8Array.of(4));
      await eventually(() => down.length === 4);
      expect(down).toEqual([1, 2, 3, 4]);
      channel.destroy();
    }
  });

  test("rejects with what the dialer says", async () => {
    const gone = await StubTcpDc.start();
    const { port } = gone;
    await gone[Symbol.asyncDispose]();
    const to: Target = { ...target(), transport: "abridged" };
    const [way] = newRoute([[2, [{ ip: "127.0.0.1", port }]]]).ways(to);
    const refused: unknown = await way?.open(to, never).catch((error: unknown) => error);
    expect(refused).toMatchObject({ name: "RouteError", code: "REFUSED" });
    const aborted: unknown = await way?.open(to, AbortSignal.abort()).catch((error: unknown) => error);
    expect(aborted).toMatchObject({ name: "RouteError", code: "ABORTED" });
  });
});
