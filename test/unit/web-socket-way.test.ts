import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketDialer, type WebSocketEndpoint } from "../../src/net/websocket-dial.ts";
import type { Target } from "../../src/protocol/mtproto/dc.ts";
import { Scratch } from "../../src/upstream/packet-framer.ts";
import type { Upstream } from "../../src/upstream/route.ts";
import { WebSocketWay } from "../../src/upstream/web-socket-way.ts";
import { testCertificates } from "../support/certificates.ts";
import { RecordingSink, toOutput } from "../support/memory-channel.ts";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";
import { StubDc } from "../support/stub-dc.ts";
import { eventually } from "./frame-server.ts";

const never = new AbortController().signal;
const NAME = "kws2.web.telegram.org";
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

interface Options {
  readonly framing?: "packets" | "stream";
  readonly socket?: Partial<WebSocketEndpoint>;
  readonly readRetryAfter?: (socket: WebSocketEndpoint) => Promise<number | undefined>;
}

function newWay({ framing = "packets", socket = {}, readRetryAfter }: Options = {}): WebSocketWay {
  return new WebSocketWay(
    {
      route: "direct-ws",
      endpoint: "text for people",
      group: "group",
      socket: {
        serverName: NAME,
        address: "127.0.0.1",
        port: stub.port,
        path: "/apiws",
        subprotocol: true,
        ...socket,
      },
      framing,
    },
    { dialer, scratch: new Scratch(), readRetryAfter: readRetryAfter ?? (() => Promise.resolve(undefined)) },
  );
}

const target = (changes: Partial<Target> = {}): Target => ({
  dc: 2,
  media: false,
  test: false,
  transport: "abridged",
  ...changes,
});

/** Collects what comes down, decrypted. */
function listen({ channel, link }: Upstream): number[] {
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
  return down;
}

describe("WebSocketWay.open()", () => {
  test.each(TRANSPORTS)("sends one packet per message for Telegram's front ends: %s", async (transport) => {
    const upstream = await newWay().open(target({ transport }), never);
    const down = listen(upstream);
    const packets = [8, 40, 20_000].map((length) =>
      encodePacket(transport, new Uint8Array(length).fill(length & 0xff)),
    );
    const stream = concat(...packets);
    upstream.link.up.push(stream.subarray(0, 11), upstream.channel);
    upstream.link.up.push(stream.subarray(11), upstream.channel);
    const connection = await stub.next();
    await connection.until(() => connection.messages.length === 3, "three messages");
    expect(connection.messages.map((message) => message.toHex())).toEqual(
      packets.map((packet) => packet.toHex()),
    );
    expect(connection.sizes).toEqual([64, ...packets.map(({ length }) => length)]);
    expect(connection.violations).toEqual([]);

    connection.send(Uint8Array.of(1, 2, 3));
    connection.send(Uint8Array.of(4));
    await eventually(() => down.length === 4);
    expect(down).toEqual([1, 2, 3, 4]);
    upstream.channel.destroy();
  });

  test("sends a stream as it comes where messages mean nothing", async () => {
    const upstream = await newWay({ framing: "stream" }).open(target(), never);
    const down = listen(upstream);
    const stream = concat(
      ...[8, 40].map((length) => encodePacket("abridged", new Uint8Array(length).fill(length))),
    );
    upstream.link.up.push(stream.subarray(0, 3), upstream.channel);
    upstream.link.up.push(stream.subarray(3), upstream.channel);
    const connection = await stub.next();
    await connection.until(() => connection.received === stream.length, "the stream");
    expect(connection.sizes).toEqual([64, 3, stream.length - 3]);
    expect(concat(...connection.messages).toHex()).toBe(stream.toHex());
    connection.send(Uint8Array.of(1, 2, 3));
    await eventually(() => down.length === 3);
    expect(down).toEqual([1, 2, 3]);
    upstream.channel.destroy();
  });

  test("has keys of its own for each connection", async () => {
    const way = newWay();
    const upstreams = [await way.open(target(), never), await way.open(target({ dc: 203 }), never)];
    const connections = [await stub.next(), await stub.next()];
    expect(connections.map(({ init }) => init?.dcId)).toEqual([2, 203]);
    const packet = encodePacket("abridged", Uint8Array.of(1, 2, 3, 4));
    for (const { link, channel } of upstreams) link.up.push(packet, channel);
    for (const connection of connections) {
      await connection.until(() => connection.messages.length === 1, "a packet");
      expect(connection.messages[0]?.toHex()).toBe(packet.toHex());
    }
    for (const { channel } of upstreams) channel.destroy();
  });

  test("rejects with what the dialer says", async () => {
    stub.upgrade = () => ({ kind: "status", status: "302 Found" });
    const opening = newWay().open(target(), never);
    await expect(opening).rejects.toMatchObject({ name: "RouteError", code: "REDIRECT", status: 302 });
    await expect(newWay().open(target(), AbortSignal.abort())).rejects.toMatchObject({ code: "ABORTED" });
  });
});

describe("WebSocketWay.dial() and start()", () => {
  test("say nothing on a dialled channel before it is started", async () => {
    const way = newWay();
    const channel = await way.dial(never);
    const sink = new RecordingSink();
    channel.attach(sink);
    const [connection] = stub.connections;
    channel.ping();
    await connection?.until(() => connection.pings === 1, "a ping");
    expect(connection?.sizes).toEqual([]);
    const { warm } = way.start(channel, target({ dc: 203 }), { warm: true });
    expect(warm).toBe(true);
    expect((await stub.next()).init?.dcId).toBe(203);
    channel.destroy();
  });
});

describe("WebSocketWay.address", () => {
  test("says where it leads, with the port in the Host header where it is not 443", () => {
    const socket = { host: "host.example", port: 8443, token: "secret", subprotocol: false };
    expect(newWay({ socket }).address).toEqual({
      host: "127.0.0.1",
      port: 8443,
      webSocket: {
        serverName: NAME,
        hostHeader: "host.example:8443",
        path: "/apiws",
        subprotocol: false,
        token: "secret",
      },
    });
    const { address } = newWay({ socket: { address: undefined, port: 443 } });
    expect(address).toMatchObject({
      host: NAME,
      port: 443,
      webSocket: { hostHeader: NAME, subprotocol: true },
    });
  });
});

describe("WebSocketWay.key", () => {
  test("is the same for the same connection, and another for any other", () => {
    expect(newWay().key).toBe(newWay({ framing: "stream" }).key);
    const keys = [
      {},
      { serverName: "other.example" },
      { host: "other.example" },
      { address: "127.0.0.2" },
      { address: undefined },
      { port: 1 },
      { path: "/apiws_test" },
    ].map((socket) => newWay({ socket }).key);
    expect(new Set(keys).size).toBe(keys.length);
  });
});

describe("WebSocketWay.readRetryAfter()", () => {
  test("asks for the same address as it opens", async () => {
    const asked: WebSocketEndpoint[] = [];
    const way = newWay({
      socket: { host: "host.example" },
      readRetryAfter: (socket) => {
        asked.push(socket);
        return Promise.resolve(30_000);
      },
    });
    expect(await way.readRetryAfter()).toBe(30_000);
    expect(asked).toMatchObject([
      { serverName: NAME, host: "host.example", address: "127.0.0.1", path: "/apiws" },
    ]);
  });

  test("asks once for all who want to know meanwhile, and anew after that, whatever came of it", async () => {
    const answers: PromiseWithResolvers<number | undefined>[] = [];
    const way = newWay({
      readRetryAfter: () => {
        const answer = Promise.withResolvers<number | undefined>();
        answers.push(answer);
        return answer.promise;
      },
    });
    const both = [way.readRetryAfter(), way.readRetryAfter()];
    expect(answers).toHaveLength(1);
    answers[0]?.resolve(30_000);
    expect(await Promise.all(both)).toEqual([30_000, 30_000]);
    const second = way.readRetryAfter();
    answers[1]?.reject(new Error("no"));
    await expect(second).rejects.toThrow("no");
    void way.readRetryAfter();
    expect(answers).toHaveLength(3);
  });
});
