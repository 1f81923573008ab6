import { describe, expect, test } from "bun:test";
import { adviseOn } from "../../src/cli/doctor-advice.ts";
import type { WayDiagnosis } from "../../src/cli/doctor-diagnosis.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import { TransportError } from "../../src/protocol/mtproto/req-pq.ts";
import type { RouteId } from "../../src/upstream/route.ts";
import { DC2, DC5, diagnosis, everywhere, fail, inspection, way } from "./doctor-diagnoses.ts";

describe("adviseOn(), gaps", () => {
  const fine = "Every data centre has a working route.";
  const idle = `${fine} There is nothing to do`;
  const none = "No data centre can be reached.";

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
    ]);
  });

  test("blames a redirect from Cloudflare on the name, and only where it matters", () => {
    const redirect = way(DC5, "cf-domain", fail("REDIRECT"), { host: "kws5.example" });
    expect(adviseOn([diagnosis(DC5, redirect)])).toEqual([
      none,
      "HTTP redirect from kws5.example: that is no way to Telegram, check --cfproxy-domain.",
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
    ]);
  });

  test("reads what servers' statuses say about them", () => {
    const advice = (route: RouteId, status: number): string | undefined =>
      adviseOn([diagnosis(DC2, way(DC2, route, fail("STATUS", `HTTP ${status}`, status)))])[1];
    expect(advice("cf-worker", 401)).toBe("HTTP 401 from cf-worker: check --cfproxy-worker-token.");
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
});
