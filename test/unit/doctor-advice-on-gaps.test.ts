import { describe, expect, test } from "bun:test";
import type { NetworkInterfaceInfo } from "node:os";
import { adviseOn } from "../../src/cli/doctor-advice.ts";
import type { WayDiagnosis } from "../../src/cli/doctor-diagnosis.ts";
import { hasNetwork } from "../../src/cli/doctor-situation.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import { TransportError } from "../../src/protocol/mtproto/req-pq.ts";
import type { RouteId } from "../../src/upstream/route.ts";
import { DC2, DC5, diagnosis, everywhere, fail, inspection, way } from "./doctor-diagnoses.ts";

describe("adviseOn(), gaps", () => {
  const fine = "Every data centre has a working route.";
  const idle = `${fine} There is nothing to do`;
  const none = "No data centre can be reached.";
  const wayOut =
    "A way out may be to use a Worker of your own with --cfproxy-worker-domain or go through a proxy with " +
    "--upstream-proxy.";

  test("names --dc-ip and --resolve when no name is resolved", () => {
    const targets = everywhere((target) => [
      way(target, "direct-ws", fail("DNS"), { host: `kws${target.dc}.web.telegram.org` }),
      way(target, "cf-domain", fail("DNS"), { host: `kws${target.dc}.example` }),
      way(target, "direct-tcp", fail("STATUS", "HTTP 400", 400)),
    ]);
    expect(adviseOn(targets).slice(0, 2)).toEqual([
      none,
      "This network does not resolve Telegram's names: use --dc-ip or --resolve to give their " +
        "addresses, or another DNS server.",
    ]);
  });

  test("counts a name server that does not answer as names that are not resolved", () => {
    const silent = inspection(["dns", 5_000, fail("TIMEOUT", "nothing within 5 s")]);
    const targets = everywhere((target) => [
      way(target, "direct-ws", fail("TIMEOUT"), { host: "kws.web.telegram.org", inspection: silent }),
      way(target, "cf-domain", fail("DNS"), { host: `kws${target.dc}.example` }),
    ]);
    expect(adviseOn(targets)[1]).toStartWith("This network does not resolve Telegram's names: use --dc-ip");
  });

  test("names the names when only some are not resolved", () => {
    const targets = [diagnosis(DC5, way(DC5, "cf-domain", fail("DNS"), { host: "kws5.example" }))];
    expect(adviseOn(targets)).toEqual([
      none,
      "No address is found for kws5.example: check the name, or give its address with --resolve.",
      wayOut,
    ]);
  });

  test("blames a redirect from Cloudflare on the name, and only where it matters", () => {
    const redirect = way(DC5, "cf-domain", fail("REDIRECT"), { host: "kws5.example" });
    expect(adviseOn([diagnosis(DC5, redirect)])).toEqual([
      none,
      "HTTP redirect from kws5.example: that is no way to Telegram, check --cfproxy-domain.",
      wayOut,
    ]);
    expect(adviseOn([diagnosis(DC5, redirect, way(DC5, "direct-ws", "ok"))])).toEqual([
      `${idle}: what fails is passed over.`,
    ]);
  });

  test("offers the ways around a block that are not used yet", () => {
    const blocked = (target: DcTarget): WayDiagnosis[] => [
      way(target, "direct-ws", fail("TIMEOUT")),
      way(target, "direct-tcp", fail("REFUSED")),
    ];
    expect(adviseOn(everywhere(blocked))).toEqual([
      none,
      "This network blocks Telegram's own addresses: allow the route cf-domain (--route, and no " +
        "--no-cfproxy), use a Worker of your own with --cfproxy-worker-domain or go through a proxy with --upstream-proxy.",
    ]);
    const more = everywhere((target) => [
      ...blocked(target),
      way(target, "cf-domain", fail("CLOSED")),
      way(target, "cf-worker", fail("TIMEOUT")),
    ]);
    expect(adviseOn(more)).toEqual([
      none,
      "This network blocks Telegram's own addresses: go through a proxy with --upstream-proxy.",
    ]);
  });

  test("tells Telegram's own refusals from strangers", () => {
    const refusal = (answer: number): RouteError =>
      new RouteError("PROTOCOL", `Telegram answered ${answer}`, { cause: new TransportError(answer) });
    const targets = [
      diagnosis(
        DC2,
        way(DC2, "direct-ws", refusal(-404)),
        way(DC2, "direct-tcp", refusal(-429)),
        way(DC2, "cf-domain", fail("PROTOCOL", "no WebSocket")),
      ),
    ];
    expect(adviseOn(targets)).toEqual([
      none,
      "Telegram gets too many connections from this address: wait some minutes, then run it again.",
      "Telegram refuses what comes over direct-ws: it may lead to another data centre.",
      "What answers on cf-domain is not Telegram: a page to log in to this network, or a filter. " +
        "Open any web page, or " +
        "use another network.",
      wayOut,
    ]);
  });

  test("reads what servers' statuses say about them", () => {
    const advice = (route: RouteId, status: number): string | undefined =>
      adviseOn([diagnosis(DC2, way(DC2, route, fail("STATUS", `HTTP ${status}`, status)))])[1];
    for (const status of [401, 403]) {
      expect(advice("cf-worker", status)).toBe(
        `HTTP ${status} from cf-worker: it asks for a token: give it with --cfproxy-worker-token.`,
      );
    }
    const refused = way(DC2, "cf-worker", fail("STATUS", "HTTP 403", 403));
    const webSocket = { serverName: "a.b", hostHeader: "a.b", path: "/", subprotocol: true, token: "t" };
    const address = { ...refused.address, webSocket };
    expect(adviseOn([diagnosis(DC2, { ...refused, address })]).slice(1)).toEqual([
      "HTTP 403 from cf-worker: it refuses the token, check --cfproxy-worker-token.",
      "A way out may be to go through a proxy with --upstream-proxy.",
    ]);
    expect(advice("cf-worker", 500)).toBe(
      "HTTP 500 from cf-worker: check that the Worker is deployed there, and its log.",
    );
    expect(advice("cf-domain", 525)).toBe(
      "HTTP 525 from cf-domain: the domain's records or its SSL mode, which must be Flexible, are wrong.",
    );
    expect(advice("direct-ws", 404)).toBe(
      "HTTP 404 from direct-ws: that server does not pass WebSockets on.",
    );
  });

  test("says which data centre alone is missing, and what would serve it", () => {
    const targets = [
      diagnosis(DC2, way(DC2, "direct-ws", "ok")),
      diagnosis(DC5, way(DC5, "direct-ws", fail("TIMEOUT"))),
    ];
    expect(adviseOn(targets)).toEqual([
      "No working route: DC 5. The rest works.",
      "For DC 5, give other addresses with --dc-ip or --dc-tcp, or use a Worker of your own " +
        "(--cfproxy-worker-domain), which serves every data centre.",
    ]);
  });

  test("does not offer other addresses of Telegram's where all of them are blocked", () => {
    const targets = [
      diagnosis(DC2, way(DC2, "direct-ws", fail("TIMEOUT")), way(DC2, "cf-domain", "ok")),
      diagnosis(DC5, way(DC5, "direct-ws", fail("TIMEOUT")), way(DC5, "cf-domain", fail("CLOSED"))),
    ];
    expect(adviseOn(targets)).toEqual([
      "No working route: DC 5. The rest works.",
      "This network blocks Telegram's own addresses: use a Worker of your own with " +
        "--cfproxy-worker-domain or go through a proxy with --upstream-proxy.",
    ]);
  });

  test("does not blame DNS alone where addresses do not answer, either", () => {
    const targets = everywhere((target) => [
      way(target, "direct-ws", fail("DNS"), { host: `kws${target.dc}.web.telegram.org` }),
      way(target, "cf-domain", fail("DNS"), { host: `kws${target.dc}.example` }),
      way(target, "direct-tcp", fail("TIMEOUT")),
    ]);
    expect(adviseOn(targets)).toEqual([
      none,
      "This network resolves no names, and what has an address does not answer, either.",
      "This network blocks Telegram's own addresses: use a Worker of your own with " +
        "--cfproxy-worker-domain or go through a proxy with --upstream-proxy.",
    ]);
  });

  test("offers another proxy to who has one", () => {
    const proxy = { kind: "http", host: "192.0.2.1", port: 8080, bypass: [] } as const;
    const credentials = { username: undefined, password: undefined };
    const targets = everywhere((target) => [
      way(target, "cf-worker", fail("CLOSED"), { inspection: undefined }),
    ]);
    expect(adviseOn(targets, { proxy: { ...proxy, ...credentials } }).slice(1)).toEqual([
      "The reasons above match nothing that is known: please report them.",
      "A way out may be to go through another proxy with --upstream-proxy.",
    ]);
  });
});

describe("adviseOn(), without a network", () => {
  const off = { online: false };
  const nothing = (target: DcTarget): WayDiagnosis[] => [
    way(target, "direct-ws", fail("DNS"), { host: "kws1.web.telegram.org" }),
    way(target, "direct-tcp", fail("REFUSED")),
    way(target, "cf-domain", fail("TIMEOUT"), { host: "kws1.example" }),
  ];

  test("says that there is none, and nothing else", () => {
    expect(adviseOn(everywhere(nothing), off)).toEqual([
      "No data centre can be reached.",
      "This computer has no network: connect it, then run it again.",
    ]);
  });

  test("does not say so where an address is, or where something came", () => {
    const claims = (...advice: readonly string[]): boolean => advice.join().includes("has no network");
    expect(claims(...adviseOn(everywhere(nothing)))).toBe(false);
    const answered = everywhere((target) => [...nothing(target), way(target, "cf-worker", fail("STATUS"))]);
    expect(claims(...adviseOn(answered, off))).toBe(false);
    const works = everywhere((target) => [...nothing(target), way(target, "cf-worker", "ok")]);
    expect(claims(...adviseOn(works, off))).toBe(false);
  });

  test.each([
    ["nothing", [], false],
    [
      "loopback",
      [
        ["127.0.0.1", true],
        ["::1", true],
      ],
      false,
    ],
    [
      "addresses that an interface gives itself",
      [
        ["fe80::1", false],
        ["169.254.3.4", false],
      ],
      false,
    ],
    [
      "an address of a network",
      [
        ["127.0.0.1", true],
        ["192.0.2.7", false],
      ],
      true,
    ],
    ["IPv6 alone", [["2001:db8::7", false]], true],
  ] as const)("takes %s for a network: %j is %p", (_, addresses, expected) => {
    const found = addresses.map(
      ([address, internal]) => ({ address, internal }) as unknown as NetworkInterfaceInfo,
    );
    expect(hasNetwork({ eth0: found, eth1: [] })).toBe(expected);
  });
});
