import { describe, expect, test } from "bun:test";
import { adviseOn } from "../../src/cli/doctor-advice.ts";
import type { WayDiagnosis } from "../../src/cli/doctor-diagnosis.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
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

  test("puts another route before one whose flows freeze", () => {
    const targets = everywhere((target) => [
      way(target, "direct-ws", fail("STALLED", "stopped after 16.2 KB")),
      way(target, "cf-domain", "ok"),
    ]);
    expect(adviseOn(targets)).toEqual([
      fine,
      "The network freezes flows on direct-ws (DC 2 with media, DC 5: stopped after 16.2 KB): " +
        "name another first " +
        "with --route, for example --route cf-domain,direct-ws.",
    ]);
  });

  test("tells a silent network from a silent Worker", () => {
    const targets = [
      diagnosis(DC2, way(DC2, "direct-ws", fail("SILENT")), way(DC2, "cf-worker", fail("SILENT"))),
    ];
    expect(adviseOn(targets).slice(0, 3)).toEqual([
      none,
      "direct-ws opens, but nothing comes back (DC 2): the network swallows it; name another first " +
        "with --route.",
      "The Worker opens, but nothing comes back from Telegram (DC 2): check its code and its log, " +
        "and name another " +
        "first with --route.",
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

  test("asks to check the outbound proxy", () => {
    const targets = everywhere((target) => [
      way(target, "direct-ws", fail("PROXY"), { inspection: undefined }),
    ]);
    expect(adviseOn(targets)).toEqual([
      none,
      "The outbound proxy refuses: check the address, the name and the password in --upstream-proxy.",
    ]);
  });
});
