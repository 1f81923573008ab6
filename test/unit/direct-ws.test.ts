import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { checkServerIdentity } from "node:tls";
import type { DomainPort } from "../../src/core/names.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketDialer } from "../../src/net/websocket-dial.ts";
import { type DcTarget, describeTarget, type Target } from "../../src/protocol/mtproto/dc.ts";
import type { DcAddress } from "../../src/protocol/mtproto/dc-addresses.ts";
import { Scratch } from "../../src/upstream/packet-framer.ts";
import { DirectWsRoute } from "../../src/upstream/routes/direct-ws.ts";
import type { WebSocketWay, WebSocketWayDeps } from "../../src/upstream/web-socket-way.ts";
import { testAuthority, testCertificates } from "../support/certificates.ts";
import { StubDc } from "../support/stub-dc.ts";

const never = new AbortController().signal;
let stub: StubDc;
let deps: WebSocketWayDeps;

beforeAll(async () => {
  stub = await StubDc.start();
  deps = {
    dialer: new WebSocketDialer({
      trust: { verify: true, ca: [(await testCertificates()).ca] },
      poller: new DrainPoller(),
      highWater: 64 * 1024,
      timeoutMs: 4_000,
      checkIdentity: checkServerIdentity,
    }),
    scratch: new Scratch(),
    readRetryAfter: () => Promise.resolve(undefined),
  };
});
afterEach(() => stub.reset());
afterAll(async () => {
  await stub[Symbol.asyncDispose]();
});

interface Options {
  readonly front?: DomainPort;
  readonly addresses?: readonly [number, DcAddress][];
  /** As `--resolve` gives them. */
  readonly pins?: Readonly<Record<string, string>>;
}

function newRoute({ front, addresses = [], pins = {} }: Options = {}): DirectWsRoute {
  return new DirectWsRoute(
    { front, addresses: new Map(addresses), pins: { addressOf: (name) => pins[name] } },
    deps,
  );
}

const target = (changes: Partial<Target> = {}): Target => ({
  dc: 2,
  media: false,
  test: false,
  transport: "abridged",
  ...changes,
});

/** What a way connects to and asks for, in one line: `name@address:port Host path`. */
function wireOf(way: WebSocketWay): string {
  const { host, port, webSocket } = way.address;
  if (webSocket === undefined) throw new Error("It is no WebSocket");
  expect(webSocket.subprotocol).toBe(true);
  expect(webSocket.token).toBeUndefined();
  return `${webSocket.serverName}@${host}:${port} ${webSocket.hostHeader} ${webSocket.path}`;
}

const wiresOf = (route: DirectWsRoute, to: DcTarget): string[] => route.ways(to).map(wireOf);
const endpointsOf = (route: DirectWsRoute, to: DcTarget): string[] =>
  route.ways(to).map(({ endpoint }) => endpoint);

/** The path, and the names in the order of trying, for every target. */
const NAMES: readonly [text: string, DcTarget, path: string, preferred: string, alternate: string][] = (
  [
    ...([1, 2, 3, 4, 5, 203] as const).flatMap((dc) => {
      const plain = `kws${dc === 203 ? 2 : dc}.web.telegram.org`;
      const media = `kws${dc === 203 ? 2 : dc}-1.web.telegram.org`;
      return [
        [{ dc, media: false, test: false }, "/apiws", plain, media],
        [{ dc, media: true, test: false }, "/apiws", media, plain],
      ] satisfies [DcTarget, string, string, string][];
    }),
    ...([1, 2, 3] as const).flatMap((dc) => {
      const plain = `kws${dc}.web.telegram.org`;
      const media = `kws${dc}-1.web.telegram.org`;
      return [
        [{ dc, media: false, test: true }, "/apiws_test", plain, media],
        [{ dc, media: true, test: true }, "/apiws_test", media, plain],
      ] satisfies [DcTarget, string, string, string][];
    }),
  ] as [DcTarget, string, string, string][]
).map(([to, ...rest]) => [describeTarget(to), to, ...rest]);

describe("DirectWsRoute.ways()", () => {
  test.each(NAMES)("go by DNS without an address: %s", (_, to, path, preferred, alternate) => {
    const route = newRoute();
    expect(route.id).toBe("direct-ws");
    expect(wiresOf(route, to)).toEqual([
      `${preferred}@${preferred}:443 ${preferred} ${path}`,
      `${alternate}@${alternate}:443 ${alternate} ${path}`,
    ]);
    const test = to.test ? " (test)" : "";
    expect(endpointsOf(route, to)).toEqual([`${preferred}${test}`, `${alternate}${test}`]);
  });

  test("go to the address of the data centre, and name it", () => {
    const route = newRoute({ addresses: [[4, { ip: "192.0.2.4", port: 443 }]] });
    expect(wiresOf(route, target({ dc: 4 }))).toEqual([
      "kws4.web.telegram.org@192.0.2.4:443 kws4.web.telegram.org /apiws",
      "kws4-1.web.telegram.org@192.0.2.4:443 kws4-1.web.telegram.org /apiws",
    ]);
    expect(endpointsOf(route, target({ dc: 4 }))).toEqual([
      "kws4.web.telegram.org at 192.0.2.4",
      "kws4-1.web.telegram.org at 192.0.2.4",
    ]);
    expect(endpointsOf(route, target({ dc: 5 }))[0]).toBe("kws5.web.telegram.org");
  });

  test("name a port that is not the usual one, also in the Host header", () => {
    const route = newRoute({ addresses: [[4, { ip: "192.0.2.4", port: 8443 }]] });
    expect(wiresOf(route, target({ dc: 4, media: true }))[0]).toBe(
      "kws4-1.web.telegram.org@192.0.2.4:8443 kws4-1.web.telegram.org:8443 /apiws",
    );
    expect(endpointsOf(route, target({ dc: 4, media: true }))[0]).toBe(
      "kws4-1.web.telegram.org at 192.0.2.4, port 8443",
    );
  });

  test("use the address for the test environment, too, and tell it apart", () => {
    const route = newRoute({ addresses: [[2, { ip: "192.0.2.2", port: 443 }]] });
    expect(endpointsOf(route, target({ test: true, media: true }))).toEqual([
      "kws2-1.web.telegram.org (test) at 192.0.2.2",
      "kws2.web.telegram.org (test) at 192.0.2.2",
    ]);
  });

  test("take DC 203 to the address of DC 2, unless it has its own", () => {
    const two: [number, DcAddress] = [2, { ip: "192.0.2.2", port: 8443 }];
    expect(wiresOf(newRoute({ addresses: [two] }), target({ dc: 203 }))[0]).toBe(
      "kws2.web.telegram.org@192.0.2.2:8443 kws2.web.telegram.org:8443 /apiws",
    );
    const own: [number, DcAddress] = [203, { ip: "192.0.2.203", port: 443 }];
    expect(wiresOf(newRoute({ addresses: [two, own] }), target({ dc: 203 }))[0]).toBe(
      "kws2.web.telegram.org@192.0.2.203:443 kws2.web.telegram.org /apiws",
    );
  });

  test("go to a pinned address before all others, for that name only", () => {
    const route = newRoute({
      addresses: [[2, { ip: "192.0.2.2", port: 8443 }]],
      pins: { "kws2.web.telegram.org": "2001:db8::7" },
    });
    expect(wiresOf(route, target())).toEqual([
      "kws2.web.telegram.org@2001:db8::7:8443 kws2.web.telegram.org:8443 /apiws",
      "kws2-1.web.telegram.org@192.0.2.2:8443 kws2-1.web.telegram.org:8443 /apiws",
    ]);
    expect(endpointsOf(route, target())[0]).toBe("kws2.web.telegram.org at 2001:db8::7, port 8443");
    expect(wiresOf(route, target({ dc: 203 }))[0]).toStartWith("kws2.web.telegram.org@2001:db8::7:8443 ");
  });

  test("are the same objects each time, others for each target", () => {
    const route = newRoute();
    const all = NAMES.flatMap(([, to]) => route.ways(to));
    expect(new Set(all).size).toBe(2 * NAMES.length);
    expect(NAMES.flatMap(([, to]) => route.ways({ ...to }))).toEqual(all);
    for (const [at, [, to]] of NAMES.entries())
      expect(route.ways({ ...to })[0]).toBe(all[2 * at] as WebSocketWay);
  });

  test("share warm connections between DC 2 and DC 203, and nothing else", () => {
    const route = newRoute();
    const keysOf = (changes: Partial<Target>): string[] => route.ways(target(changes)).map(({ key }) => key);
    expect(keysOf({ dc: 203 })).toEqual(keysOf({ dc: 2 }));
    expect(keysOf({ media: true })).toEqual(keysOf({}).toReversed());
    expect(new Set(NAMES.flatMap(([, to]) => route.ways(to).map(({ key }) => key))).size).toBe(2 * 8);
  });

  test("are one group: what stalls on one name stalls on the other", () => {
    const groups = newRoute()
      .ways(target())
      .map(({ route, group }) => `${route} ${group}`);
    expect(new Set(groups).size).toBe(1);
  });
});

describe("DirectWsRoute.ways() behind a front", () => {
  const front = { domain: "front.example", port: 443 };

  test.each(NAMES)("name it in the handshake, and Telegram in the request: %s", (_, to, path, ...names) => {
    const route = newRoute({ front });
    expect(route.id).toBe("fronted-ws");
    const test = to.test ? " (test)" : "";
    expect(wiresOf(route, to)).toEqual(names.map((name) => `front.example@${name}:443 ${name} ${path}`));
    expect(endpointsOf(route, to)).toEqual(names.map((name) => `${name}${test} behind front.example`));
    expect(route.ways(to).map((way) => way.route)).toEqual(["fronted-ws", "fronted-ws"]);
  });

  const NAME = "kws2.web.telegram.org";
  const known: [number, DcAddress] = [2, { ip: "192.0.2.2", port: 443 }];
  const knownPort: [number, DcAddress] = [2, { ip: "192.0.2.2", port: 8443 }];
  const otherPort = { domain: "front.example", port: 2053 };

  test.each([
    ["the data centre's address", { addresses: [known] }, "192.0.2.2:443", `${NAME}`, " at 192.0.2.2"],
    [
      "the pin of Telegram's name",
      { addresses: [known], pins: { [NAME]: "192.0.2.50" } },
      "192.0.2.50:443",
      `${NAME}`,
      " at 192.0.2.50",
    ],
    [
      "the front's pin before that",
      { addresses: [known], pins: { [NAME]: "192.0.2.50", "front.example": "192.0.2.60" } },
      "192.0.2.60:443",
      `${NAME}`,
      " at 192.0.2.60",
    ],
    [
      "the data centre's port",
      { addresses: [knownPort] },
      "192.0.2.2:8443",
      `${NAME}:8443`,
      " at 192.0.2.2, port 8443",
    ],
    [
      "the front's port before that",
      { addresses: [knownPort], front: otherPort },
      "192.0.2.2:2053",
      `${NAME}:2053`,
      " at 192.0.2.2, port 2053",
    ],
    ["the front's port by DNS", { front: otherPort }, `${NAME}:2053`, `${NAME}:2053`, ", port 2053"],
  ])("go to %s", (_, options, where, hostHeader, text) => {
    const route = newRoute({ front, ...(options as Options) });
    expect(wiresOf(route, target())[0]).toBe(`front.example@${where} ${hostHeader} /apiws`);
    expect(endpointsOf(route, target())[0]).toBe(`${NAME} behind front.example${text}`);
  });

  test("share no warm connection with the ways without it", () => {
    const address: [number, DcAddress][] = [known];
    const [fronted] = newRoute({ front, addresses: address }).ways(target());
    const [direct] = newRoute({ addresses: address }).ways(target());
    expect(fronted?.key).not.toBe(direct?.key as string);
  });
});

describe("DirectWsRoute, on the wire", () => {
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
      const [way] = newRoute({ addresses: addresses() }).ways(target(changes));
      const opened = await way?.open(target(changes), never);
      const connection = await stub.next();
      expect(connection.init).toEqual({ transport: "abridged", dcId });
      expect(connection.sizes).toEqual([64]);
      expect(connection.request).toMatchObject({ serverName, path, host: `${serverName}:${stub.port}` });
      expect(opened?.warm).toBe(false);
      opened?.channel.destroy();
    },
  );

  test("names only the front in the handshake, and only Telegram in the request", async () => {
    const certificates = await (await testAuthority()).issue(["front.example"]);
    stub.certificateFor = () => certificates;
    const route = newRoute({
      front: { domain: "front.example", port: stub.port },
      addresses: [[2, { ip: "127.0.0.1", port: 443 }]],
    });
    const upstream = await route.ways(target())[0]?.open(target(), never);
    const { request, init } = await stub.next();
    expect(request).toMatchObject({
      serverName: "front.example",
      host: `kws2.web.telegram.org:${stub.port}`,
      path: "/apiws",
      protocols: ["binary"],
    });
    expect(init?.dcId).toBe(2);
    upstream?.channel.destroy();
  });

  test("rejects with what the dialer says", async () => {
    stub.upgrade = () => ({ kind: "status", status: "302 Found" });
    const [way] = newRoute({ addresses: addresses() }).ways(target());
    const error: unknown = await way?.open(target(), never).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ name: "RouteError", code: "REDIRECT", status: 302 });
  });
});
