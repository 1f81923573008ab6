import { describe, expect, test } from "bun:test";
import { adviseOn } from "../../src/cli/doctor-advice.ts";
import type { WayDiagnosis } from "../../src/cli/doctor-diagnosis.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { OutboundProxy } from "../../src/core/outbound-proxy.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import type { RouteId } from "../../src/upstream/route.ts";
import { DC2, DC5, diagnosis, everywhere, fail, inspection, WHOLE, way } from "./doctor-diagnoses.ts";

describe("adviseOn(), faults", () => {
  const fine = "Every data centre has a working route.";
  const none = "No data centre can be reached.";

  test("sees somebody in between in a certificate, also when only a stage shows it", () => {
    const broken = inspection(["tcp", 40], ["tls", 41, fail("TLS", "self-signed certificate")]);
    for (const failed of [
      way(DC2, "direct-ws", fail("TLS")),
      way(DC2, "direct-ws", fail("UNKNOWN"), { inspection: broken }),
    ]) {
      expect(adviseOn([diagnosis(DC2, failed)])).toContain(
        "The certificate or the TLS handshake is not what it should be on direct-ws: somebody is in " +
          "between. If that is " +
          "a filter that you trust, give its certificate with --tls-ca; otherwise use another network.",
      );
    }
  });

  test("suspects this machine's clock where certificates are too young or too old", () => {
    const old = inspection(["tcp", 40], ["tls", 41, fail("TLS", "not trusted (CERT_HAS_EXPIRED)")]);
    for (const failed of [
      way(DC2, "direct-ws", fail("TLS", "TLS handshake failed: not yet valid (CERT_NOT_YET_VALID)")),
      way(DC2, "direct-ws", fail("UNKNOWN"), { inspection: old }),
    ]) {
      const advice = adviseOn([diagnosis(DC2, failed)]);
      expect(advice[1]).toMatch(
        /^The certificates on direct-ws are not valid at the time .+, 20\d\d-\d\d-\d\d \d\d:\d\d UTC\. .*set the clock/,
      );
      expect(advice.join("\n")).not.toContain("--tls-ca");
    }
  });

  test("takes an address that redirects out of --dc-ip", () => {
    const redirect = way(DC5, "direct-ws", fail("REDIRECT", "HTTP 302", 302));
    expect(adviseOn([diagnosis(DC5, redirect, way(DC5, "cf-domain", "ok"))])).toEqual([
      fine,
      "149.154.167.220 does not serve DC 5 (HTTP redirect): take it out of --dc-ip for that.",
    ]);
    const byName = way(DC5, "direct-ws", fail("REDIRECT"), { host: "kws5.web.telegram.org" });
    expect(adviseOn([diagnosis(DC5, byName, way(DC5, "cf-domain", "ok"))])[1]).toBe(
      "kws5.web.telegram.org does not serve DC 5 (HTTP redirect): give an address with --dc-ip.",
    );
  });

  test("asks nobody to take the built-in address out of --dc-ip", () => {
    const dc203 = { ...DC2, dc: 203 };
    const redirect = (target: DcTarget): WayDiagnosis => way(target, "direct-ws", fail("REDIRECT"));
    const served = [DC2, dc203].map((target) =>
      diagnosis(target, redirect(target), way(target, "cf-domain", "ok")),
    );
    expect(adviseOn(served)).toEqual([
      fine,
      "The built-in address 149.154.167.220 does not serve DC 2 and 203 (HTTP redirect): " +
        "another route is used.",
    ]);
    expect(adviseOn([diagnosis(DC2, redirect(DC2))]).slice(0, 2)).toEqual([
      none,
      "The built-in address 149.154.167.220 does not serve DC 2 (HTTP redirect): " +
        "give another with --dc-ip.",
    ]);
  });

  const frozen = (target: DcTarget, route: RouteId): WayDiagnosis =>
    way(target, route, fail("STALLED", "stopped after 16.2 KB"));

  test("puts routes that work before one whose flows freeze, and names all of them", () => {
    const targets = everywhere((target) => [
      frozen(target, "direct-ws"),
      way(target, "cf-domain", "ok"),
      way(target, "direct-tcp", "ok"),
    ]);
    expect(adviseOn(targets)).toEqual([
      fine,
      "tgws goes past direct-ws by itself; to save its first try: --route cf-domain,direct-tcp,direct-ws",
    ]);
  });

  test("keeps configured routes that nothing is known of, before the frozen ones", () => {
    const routes = ["direct-ws", "fronted-ws", "cf-domain", "direct-tcp", "cf-worker"] as const;
    const targets = everywhere((target) => [
      frozen(target, "direct-ws"),
      way(target, "cf-domain", fail("TIMEOUT")),
      frozen(target, "direct-tcp"),
      way(target, "cf-worker", "ok"),
    ]);
    expect(adviseOn(targets, { routes })).toEqual([
      fine,
      "tgws goes past direct-ws and direct-tcp by itself; to save their first try: " +
        "--route cf-worker,fronted-ws,cf-domain,direct-ws,direct-tcp",
    ]);
  });

  test("is quiet about a route that freezes behind one that works", () => {
    const targets = everywhere((target) => [
      way(target, "cf-domain", "ok"),
      frozen(target, "direct-ws"),
      way(target, "direct-tcp", fail("SILENT")),
    ]);
    expect(adviseOn(targets)).toHaveLength(1);
    const twice = everywhere((target) => [frozen(target, "direct-ws"), way(target, "direct-ws", "ok")]);
    expect(adviseOn(twice)).toHaveLength(1);
  });

  test("says what freezes where nothing else works, without an order that would not help", () => {
    const targets = [diagnosis(DC2, frozen(DC2, "direct-ws")), diagnosis(DC5, way(DC5, "direct-ws", "ok"))];
    expect(adviseOn(targets).slice(0, 2)).toEqual([
      "No working route: DC 2. The rest works.",
      "The network freezes flows on direct-ws (DC 2: stopped after 16.2 KB).",
    ]);
    expect(adviseOn(targets).join()).not.toContain("--route");
  });

  test("tells a silent network from a silent Worker", () => {
    const targets = [
      diagnosis(DC2, way(DC2, "direct-ws", fail("SILENT")), way(DC2, "cf-worker", fail("SILENT"))),
    ];
    expect(adviseOn(targets)).toEqual([
      none,
      "direct-ws opens, but nothing comes back (DC 2): the network swallows it.",
      "The Worker opens, but nothing comes back from Telegram (DC 2): check its code and its log.",
      "A way out may be to go through a proxy with --upstream-proxy.",
    ]);
  });

  test("knows the daily limit of a Worker, and how long to wait", () => {
    const limited = fail("STATUS", "HTTP 429 instead of a WebSocket", 429);
    const stages = { ...WHOLE, retryAfterMs: 2 * 3_600_000 };
    const targets = [
      diagnosis(DC2, way(DC2, "cf-worker", limited, { inspection: stages }), way(DC2, "direct-ws", "ok")),
    ];
    expect(adviseOn(targets)).toEqual([
      fine,
      "The Worker has used up its requests (100,000 a day on Cloudflare's free plan): wait until " +
        "midnight UTC, or add " +
        "a second one with --cfproxy-worker-domain. It may be asked again in 2 h.",
    ]);
    expect(adviseOn([diagnosis(DC2, way(DC2, "cf-domain", limited), way(DC2, "direct-ws", "ok"))])[1]).toBe(
      "Too many requests (HTTP 429) on cf-domain: wait before the next try.",
    );
  });

  const HTTP: OutboundProxy = {
    kind: "http",
    host: "192.0.2.1",
    port: 8080,
    username: "ann",
    password: "x",
    bypass: [],
  };

  const behind = (error: RouteError, proxy: OutboundProxy | undefined = HTTP): string[] =>
    adviseOn(
      everywhere((target) => [way(target, "direct-ws", error, { inspection: undefined })]),
      { proxy },
    );

  test.each([
    ["TCP", new RouteError("PROXY", "?", { cause: fail("REFUSED") })],
    ["TCP that hangs", new RouteError("TIMEOUT", "?", { cause: fail("TIMEOUT") })],
    [
      "a WebSocket",
      new RouteError("PROXY", "?", { cause: Object.assign(new Error(), { code: "ENOTFOUND" }) }),
    ],
    [
      "the bridge",
      new RouteError("PROXY", "the proxy socks5://192.0.2.1:1080 cannot be reached: connection refused"),
    ],
  ])("asks whether an outbound proxy runs that %s does not reach", (_, error) => {
    expect(behind(error).slice(0, 2)).toEqual([
      none,
      "The outbound proxy at 192.0.2.1:8080 cannot be reached: is it running? " +
        "Check the address in --upstream-proxy.",
    ]);
    expect(behind(error).join()).not.toContain("refuses");
  });

  test("asks the same where everything times out behind the proxy", () => {
    expect(behind(fail("TIMEOUT"))[1]).toBe(
      "Nothing comes through the outbound proxy at 192.0.2.1:8080: is it running? " +
        "Check the address in --upstream-proxy.",
    );
  });

  test.each([
    ["TCP", fail("PROXY", "the proxy refused the user and the password (407)", 407)],
    ["a WebSocket", fail("PROXY", "the outbound proxy says 407 Proxy Authentication Required")],
    ["SOCKS5", fail("PROXY", "the proxy accepts no user and password")],
  ])("asks for other credentials when the proxy refuses those of %s", (_, error) => {
    expect(behind(error)).toEqual([
      none,
      "The outbound proxy refuses the name and password (407): check them in --upstream-proxy.",
    ]);
  });

  test("asks for credentials where there are none, and knows that SOCKS5 has no 407", () => {
    const login = fail("PROXY", "the proxy wants a user and a password");
    expect(behind(login, { ...HTTP, kind: "socks5", username: undefined })[1]).toBe(
      "The outbound proxy asks for a name and a password: give them in --upstream-proxy.",
    );
    expect(behind(login, { ...HTTP, kind: "socks5" })[1]).toBe(
      "The outbound proxy refuses the name and password: check them in --upstream-proxy.",
    );
  });

  test("quotes what else a proxy says", () => {
    expect(behind(fail("PROXY", "the proxy refused: 403 Forbidden", 403))).toEqual([
      none,
      "The outbound proxy does not do what it is asked for (the proxy refused: 403 Forbidden): " +
        "check --upstream-proxy.",
    ]);
  });
});
