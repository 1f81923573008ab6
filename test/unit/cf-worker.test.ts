import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { DomainPort } from "../../src/core/names.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketDialer } from "../../src/net/websocket-dial.ts";
import type { DcTarget, Target } from "../../src/protocol/mtproto/dc.ts";
import { Scratch } from "../../src/upstream/packet-framer.ts";
import { CfWorkerRoute } from "../../src/upstream/routes/cf-worker.ts";
import type { WebSocketWayDeps } from "../../src/upstream/web-socket-way.ts";
import { testAuthority } from "../support/certificates.ts";
import { RecordingSink } from "../support/memory-channel.ts";
import { StubTcpDc } from "../support/stub-tcp-dc.ts";
import { StubWorker } from "../support/stub-worker.ts";

const never = new AbortController().signal;
let worker: StubWorker;
let dc: StubTcpDc;
let deps: WebSocketWayDeps;

beforeAll(async () => {
  worker = await StubWorker.start(["worker.example"]);
  dc = await StubTcpDc.start();
  worker.portOf = () => dc.port;
  deps = {
    dialer: new WebSocketDialer({
      trust: { verify: true, ca: [(await (await testAuthority()).issue()).ca] },
      poller: new DrainPoller(),
      highWater: 64 * 1024,
      timeoutMs: 4_000,
    }),
    scratch: new Scratch(),
    readRetryAfter: () => Promise.resolve(undefined),
  };
});
afterEach(() => {
  worker.reset();
  worker.token = undefined;
  dc.reset();
});
afterAll(async () => {
  await worker[Symbol.asyncDispose]();
  await dc[Symbol.asyncDispose]();
});

function newRoute(
  domains: readonly DomainPort[],
  { token, pins = {} }: { readonly token?: string; readonly pins?: Readonly<Record<string, string>> } = {},
): CfWorkerRoute {
  return new CfWorkerRoute({ domains, token, pins: { addressOf: (name) => pins[name] } }, deps);
}

const target = (changes: Partial<DcTarget> = {}): DcTarget => ({
  dc: 2,
  media: false,
  test: false,
  ...changes,
});

const ONE: DomainPort = { domain: "one.example", port: 443 };
const TWO: DomainPort = { domain: "two.example", port: 8443 };

describe("CfWorkerRoute.ways()", () => {
  test.each([
    [1, false, "149.154.175.50"],
    [2, false, "149.154.167.51"],
    [3, false, "149.154.175.100"],
    [4, false, "149.154.167.91"],
    [5, false, "149.154.171.5"],
    [203, false, "91.105.192.100"],
    [1, true, "149.154.175.10"],
    [2, true, "149.154.167.40"],
    [3, true, "149.154.175.117"],
  ])("ask for the address of DC %d (test environment: %p), also for media: %s", (number, test, dst) => {
    const route = newRoute([ONE, TWO]);
    for (const media of [false, true]) {
      const ways = route.ways(target({ dc: number, test, media }));
      const path = `/apiws?dst=${dst}&dc=${number}`;
      const common = { path, subprotocol: false, token: undefined };
      expect(ways.map(({ address }) => address)).toEqual([
        {
          host: "one.example",
          port: 443,
          webSocket: { ...common, serverName: "one.example", hostHeader: "one.example" },
        },
        {
          host: "two.example",
          port: 8443,
          webSocket: { ...common, serverName: "two.example", hostHeader: "two.example:8443" },
        },
      ]);
      expect(ways.map(({ endpoint }) => endpoint)).toEqual(["one.example", "two.example:8443"]);
      expect(ways.map(({ route: id }) => id)).toEqual(["cf-worker", "cf-worker"]);
      expect(ways.map(({ group }) => group)).toEqual(["one.example", "two.example:8443"]);
    }
  });

  test("are none for a data centre without a known address", () => {
    for (const changes of [{ dc: 203, test: true }, { dc: 4, test: true }, { dc: 6 }]) {
      expect(newRoute([ONE]).ways(target(changes))).toEqual([]);
    }
  });

  test("go to pinned addresses, and bear the token", () => {
    const route = newRoute([ONE, TWO], { token: "secret", pins: { "two.example": "192.0.2.7" } });
    const addresses = route.ways(target()).map(({ address }) => address);
    expect(addresses.map(({ host }) => host)).toEqual(["one.example", "192.0.2.7"]);
    expect(addresses.map(({ webSocket }) => webSocket?.token)).toEqual(["secret", "secret"]);
    expect(addresses[1]?.webSocket?.serverName).toBe("two.example");
  });

  test("are the same objects each time", () => {
    const route = newRoute([ONE]);
    expect(route.ways(target())).toBe(route.ways(target()));
    expect(route.ways(target())).not.toBe(route.ways(target({ media: true })));
  });

  test("share warm connections between media and the rest, but not between data centres", () => {
    const route = newRoute([ONE]);
    const keyOf = (changes: Partial<DcTarget>): string | undefined => route.ways(target(changes))[0]?.key;
    expect(keyOf({ media: true })).toBe(keyOf({}) as string);
    const others = [{}, { dc: 4 }, { dc: 203 }, { test: true }].map(keyOf);
    expect(new Set(others).size).toBe(4);
  });
});

describe("CfWorkerRoute, on the wire", () => {
  const to: Target = { ...target({ dc: 4, media: true }), transport: "intermediate" };

  function wayThere(token?: string) {
    const [way] = newRoute([{ domain: "worker.example", port: worker.port }], {
      ...(token === undefined ? {} : { token }),
      pins: { "worker.example": "127.0.0.1" },
    }).ways(to);
    if (way === undefined) throw new Error("There is no way");
    return way;
  }

  test("carries a byte stream to the data centre and back, whatever the messages are", async () => {
    dc.onPacket = (packet) => [packet.payload, packet.payload.toReversed()];
    const upstream = await wayThere().open(to, never);
    const connection = await dc.next();
    expect(connection.init).toEqual({ transport: "intermediate", dcId: -4 });
    expect(worker.requests[0]).toMatchObject({
      serverName: "worker.example",
      host: `worker.example:${worker.port}`,
      path: "/apiws?dst=149.154.167.91&dc=4",
      protocols: [],
      authorization: undefined,
    });
    const sink = new RecordingSink();
    const down: number[] = [];
    upstream.channel.attach({
      onChunk: (chunk) => {
        upstream.link.down.push(chunk, { write: (plain) => void down.push(...plain) });
        sink.onChunk(chunk);
      },
      onEnd() {},
      onDrain() {},
      onClose() {},
    });
    // Two packets in one message, and the first byte of a third.
    upstream.link.up.push(Uint8Array.of(4, 0, 0, 0, 1, 2, 3, 4, 4, 0, 0, 0, 5, 6, 7, 8, 4), upstream.channel);
    await connection.until(() => connection.packets.length === 2, "two packets");
    await sink.until(() => down.length === 4 * 8);
    expect(down.slice(0, 16)).toEqual([4, 0, 0, 0, 1, 2, 3, 4, 4, 0, 0, 0, 4, 3, 2, 1]);
    expect(worker.relays[0]?.sizes).toEqual([64, 17]);
    upstream.channel.destroy();
  });

  test("says who is there", async () => {
    worker.token = "open sesame";
    const upstream = await wayThere("open sesame").open(to, never);
    expect(worker.requests[0]?.authorization).toBe("Bearer open sesame");
    upstream.channel.destroy();
    const refused: unknown = await wayThere("wrong")
      .open(to, never)
      .catch((error: unknown) => error);
    expect(refused).toMatchObject({ name: "RouteError", code: "STATUS", status: 403 });
  });
});
