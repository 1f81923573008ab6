import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { DomainPort } from "../../src/core/names.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketDialer } from "../../src/net/websocket-dial.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import { Scratch } from "../../src/upstream/packet-framer.ts";
import { CfDomainRoute } from "../../src/upstream/routes/cf-domain.ts";
import type { WebSocketWay, WebSocketWayDeps } from "../../src/upstream/web-socket-way.ts";
import { testAuthority } from "../support/certificates.ts";
import { StubDc } from "../support/stub-dc.ts";

let stub: StubDc;
let deps: WebSocketWayDeps;

beforeAll(async () => {
  const certificates = await (await testAuthority()).issue(["*.one.example", "*.two.example"]);
  stub = await StubDc.start(certificates);
  deps = {
    dialer: new WebSocketDialer({
      trust: { verify: true, ca: [certificates.ca] },
      poller: new DrainPoller(),
      highWater: 64 * 1024,
      timeoutMs: 4_000,
    }),
    scratch: new Scratch(),
    readRetryAfter: () => Promise.resolve(undefined),
  };
});
afterAll(async () => {
  await stub[Symbol.asyncDispose]();
});

const ONE: DomainPort = { domain: "one.example", port: 443 };
const TWO: DomainPort = { domain: "two.example", port: 8443 };
const THREE: DomainPort = { domain: "three.example", port: 443 };

function newRoute(
  domains: readonly DomainPort[] | (() => readonly DomainPort[]),
  pins: Readonly<Record<string, string>> = {},
): CfDomainRoute {
  return new CfDomainRoute(
    {
      domains: typeof domains === "function" ? domains : () => domains,
      pins: { addressOf: (name) => pins[name] },
    },
    deps,
  );
}

const target = (changes: Partial<DcTarget> = {}): DcTarget => ({
  dc: 2,
  media: false,
  test: false,
  ...changes,
});

const endpointsOf = (route: CfDomainRoute, to: DcTarget): string[] =>
  route.ways(to).map(({ endpoint }) => endpoint);

/** `name@address:port Host path`. */
function wireOf(way: WebSocketWay): string {
  const { host, port, webSocket } = way.address;
  if (webSocket === undefined) throw new Error("It is no WebSocket");
  expect(webSocket.subprotocol).toBe(true);
  expect(webSocket.token).toBeUndefined();
  return `${webSocket.serverName}@${host}:${port} ${webSocket.hostHeader} ${webSocket.path}`;
}

describe("CfDomainRoute.ways()", () => {
  test.each([1, 2, 3, 4, 5, 203])("lead to both names of DC %d on each domain, in their order", (dc) => {
    const route = newRoute([ONE, TWO]);
    expect(route.id).toBe("cf-domain");
    const [plain, media] = [`kws${dc}`, `kws${dc}-1`];
    expect(endpointsOf(route, target({ dc }))).toEqual([
      `${plain}.one.example`,
      `${media}.one.example`,
      `${plain}.two.example:8443`,
      `${media}.two.example:8443`,
    ]);
    expect(endpointsOf(route, target({ dc, media: true }))).toEqual([
      `${media}.one.example`,
      `${plain}.one.example`,
      `${media}.two.example:8443`,
      `${plain}.two.example:8443`,
    ]);
    expect(route.ways(target({ dc })).map(wireOf)).toEqual([
      `${plain}.one.example@${plain}.one.example:443 ${plain}.one.example /apiws`,
      `${media}.one.example@${media}.one.example:443 ${media}.one.example /apiws`,
      `${plain}.two.example@${plain}.two.example:8443 ${plain}.two.example:8443 /apiws`,
      `${media}.two.example@${media}.two.example:8443 ${media}.two.example:8443 /apiws`,
    ]);
  });

  test("tell the test environment apart, by path and text", () => {
    const [way] = newRoute([TWO]).ways(target({ dc: 3, test: true }));
    expect(way?.endpoint).toBe("kws3.two.example:8443 (test)");
    expect(way?.address.webSocket?.path).toBe("/apiws_test");
  });

  test("go to pinned addresses, by the whole name", () => {
    const route = newRoute([ONE], { "kws2.one.example": "192.0.2.7", "one.example": "192.0.2.8" });
    expect(route.ways(target()).map(({ address }) => address.host)).toEqual([
      "192.0.2.7",
      "kws2-1.one.example",
    ]);
  });

  test("are a group by domain: what stalls on one name stalls on the other", () => {
    const groups = newRoute([ONE, TWO])
      .ways(target())
      .map(({ group }) => group);
    expect(groups).toEqual(["one.example", "one.example", "two.example:8443", "two.example:8443"]);
  });

  test("are none without domains", () => {
    expect(newRoute([]).ways(target())).toEqual([]);
  });
});

describe("CfDomainRoute, with a list that changes", () => {
  test("keeps the ways while the list is the same", () => {
    const route = newRoute([ONE, TWO]);
    const ways = route.ways(target());
    const media = route.ways(target({ media: true }));
    expect(route.ways(target())).toBe(ways);
    expect(route.ways(target({ media: true }))).toBe(media);
    expect(media).not.toBe(ways);
  });

  test("has the ways of the new list at once, for every target", () => {
    let domains: readonly DomainPort[] = [ONE, TWO];
    const route = newRoute(() => domains);
    route.ways(target());
    route.ways(target({ dc: 4 }));
    domains = [THREE, TWO];
    for (const dc of [2, 4, 5]) {
      expect(endpointsOf(route, target({ dc }))).toEqual([
        `kws${dc}.three.example`,
        `kws${dc}-1.three.example`,
        `kws${dc}.two.example:8443`,
        `kws${dc}-1.two.example:8443`,
      ]);
    }
    expect(route.ways(target())).toBe(route.ways(target()));
    domains = [];
    expect(route.ways(target())).toEqual([]);
  });
});

describe("CfDomainRoute, on the wire", () => {
  test("asks as Telegram's own clients do, one packet a message", async () => {
    const pins = { "kws203-1.one.example": "127.0.0.1" };
    const [way] = newRoute([{ domain: "one.example", port: stub.port }], pins).ways(
      target({ dc: 203, media: true }),
    );
    const to = { ...target({ dc: 203, media: true }), transport: "padded" } as const;
    const upstream = await way?.open(to, new AbortController().signal);
    const connection = await stub.next();
    expect(connection.request).toMatchObject({
      serverName: "kws203-1.one.example",
      host: `kws203-1.one.example:${stub.port}`,
      path: "/apiws",
      protocols: ["binary"],
      authorization: undefined,
    });
    expect(connection.init).toEqual({ transport: "padded", dcId: -203 });
    if (upstream === undefined) throw new Error("It has not opened");
    upstream.link.up.push(Uint8Array.of(4, 0, 0, 0, 1, 2, 3, 4, 4, 0, 0, 0, 5, 6, 7, 8), upstream.channel);
    await connection.until(() => connection.packets.length === 2, "two packets");
    expect(connection.sizes).toEqual([64, 8, 8]);
    expect(connection.violations).toEqual([]);
    upstream.channel.destroy();
  });
});
