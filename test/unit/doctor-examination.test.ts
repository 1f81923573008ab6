import { describe, expect, test } from "bun:test";
import { doctorTargets } from "../../src/cli/doctor.ts";
import type { InspectFunction } from "../../src/cli/doctor-examination.ts";
import type { DoctorJson } from "../../src/cli/doctor-json.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { Route, Way, WayAddress } from "../../src/upstream/route.ts";
import { settle } from "../support/memory-channel.ts";
import { inspection } from "./doctor-diagnoses.ts";
import { DC2, fakeRoute, Gauge, type Manner, nothingFound, start } from "./doctor-fakes.ts";

/** Keeps which host was opened. */
function log(looked: string[], host: string): "answers" {
  looked.push(host);
  return "answers";
}

describe("examine()", () => {
  test("tries 16 ways at once and 4 to the same host, and 3 of a route to one target", async () => {
    const gauge = new Gauge();
    const targets = doctorTargets({ test: false });
    const shared = fakeRoute("direct-ws", { gauge, hosts: () => ["192.0.2.1", "192.0.2.1"] });
    const many = fakeRoute("cf-domain", {
      gauge,
      hosts: ({ dc }) => Array.from({ length: 10 }, (_, at) => `kws${dc}.example${at}`),
    });
    const { code, printed } = start({ routes: [shared, many], targets });
    expect(await code).toBe(0);
    expect(gauge.opened).toBe(12 * 5);
    expect(gauge.most).toBe(16);
    expect(Math.max(...gauge.mostAt.values())).toBe(4);
    expect(printed[0]).toContain("  cf-domain  7 more, not tried here");
    await settle();
    expect(gauge.channels.every(({ closed }) => closed)).toBe(true);
  });

  test("tries one way of each group before a second one of any", async () => {
    const hosts = ["a.example", "a.example", "b.example", "b.example", "c.example", "c.example"];
    const looked: string[] = [];
    const spread = fakeRoute("cf-domain", { hosts: () => hosts, manner: (_, host) => log(looked, host) });
    await start({ routes: [spread], targets: [DC2] }).code;
    expect(looked.toSorted()).toEqual(["a.example", "b.example", "c.example"]);

    looked.length = 0;
    const paired = fakeRoute("cf-domain", {
      hosts: () => ["a.example", "a.example", "a.example", "b.example"],
      manner: (_, host) => log(looked, host),
    });
    await start({ routes: [paired], targets: [DC2] }).code;
    expect(looked.toSorted()).toEqual(["a.example", "a.example", "b.example"]);
  });

  test("does not wait behind a host that hangs", async () => {
    const caller = new AbortController();
    const stuck = fakeRoute("direct-ws", {
      hosts: () => Array.from({ length: 3 }, () => "192.0.2.9"),
      manner: () => "hangs",
    });
    const { printed, progress, code } = start({
      routes: [stuck, fakeRoute("cf-domain", { hosts: ({ dc }) => [`kws${dc}.example`] })],
      targets: doctorTargets({ test: false }),
      signal: caller.signal,
    });
    while (!progress.calls.includes("12/48")) await settle(5);
    caller.abort();
    expect(await code).toBe(130);
    expect(printed[0]?.match(/ ok$/gm)).toHaveLength(6); // a row is for messages and media
  });

  test("looks at each address once, before its way is tried", async () => {
    const looked: string[] = [];
    const inspect: InspectFunction = ({ host }, { timeoutMs }) => {
      looked.push(`${host} ${timeoutMs}`);
      return Promise.resolve(nothingFound);
    };
    const route = fakeRoute("cf-worker", { hosts: () => ["a.example", "b.example"] });
    expect(await start({ routes: [route], inspect }).code).toBe(0);
    expect(looked.toSorted()).toEqual(["a.example 5000", "b.example 5000"]);
  });

  test("does without stages behind an outbound proxy", async () => {
    const { code, printed } = start({ routes: [fakeRoute("direct-ws")], inspect: () => undefined });
    expect(await code).toBe(0);
    expect(printed[0]).toContain("              via proxy");
  });

  describe("where nothing gets through", () => {
    /** Two servers at one host and port: `a` and `b`. */
    function serversAt(opened: string[], outcome: Manner): Route {
      const logAs = (host: string): Manner => {
        opened.push(host);
        return outcome;
      };
      const route = fakeRoute("direct-ws", { hosts: () => ["a", "b"], manner: (_, host) => logAs(host) });
      const socket = { hostHeader: "x", path: "/", subprotocol: true };
      const addressOf = (serverName: string): WayAddress => ({
        host: "192.0.2.1",
        port: 443,
        webSocket: { ...socket, serverName },
      });
      const rename = (way: Way): Way => ({ ...way, address: addressOf(way.address.host) });
      return { id: route.id, ways: (target) => route.ways(target).map(rename) };
    }

    const refused = new RouteError("TIMEOUT", "nothing within 5 s");
    const failing =
      (name: "dns" | "tcp" | "tls" | "upgrade"): InspectFunction =>
      () =>
        Promise.resolve(inspection([name, 5, refused]));
    const targets = doctorTargets({ test: false });

    test.each([
      ["tls", 2],
      ["upgrade", 24],
    ] as const)("does not try a server again whose %s failed: %d tries", async (name, tries) => {
      const opened: string[] = [];
      const routes = [serversAt(opened, refused)];
      const { code, printed } = start({ routes, targets, inspect: failing(name), json: true });
      expect(await code).toBe(1);
      expect(opened).toHaveLength(tries);
      const { results } = JSON.parse(printed[0] ?? "") as DoctorJson;
      expect(results).toHaveLength(24);
      for (const { error, stages } of results) {
        expect(error?.code).toBe("TIMEOUT");
        expect(stages).toMatchObject([{ name, code: "TIMEOUT" }]);
      }
    });

    test("does not try a host again that TCP does not reach, under any name", async () => {
      const opened: string[] = [];
      const route = serversAt(opened, refused);
      await start({ routes: [route], targets, inspect: failing("tcp") }).code;
      expect(opened.toSorted()).toEqual(["a", "b"]); // both began before the first was done
    });

    test("believes the way rather than its stages", async () => {
      const opened: string[] = [];
      const routes = [serversAt(opened, "answers")];
      expect(await start({ routes, targets, inspect: failing("tcp") }).code).toBe(0);
      expect(opened).toHaveLength(24);
    });

    test("keeps what has failed already when it is stopped", async () => {
      const caller = new AbortController();
      const opened: string[] = [];
      const routes = [serversAt(opened, "hangs")];
      const run = start({ routes, inspect: failing("tcp"), signal: caller.signal });
      while (opened.length < 2) await settle(1);
      caller.abort();
      expect(await run.code).toBe(130);
      expect(run.printed[0]).toContain("TIMEOUT      direct-ws: nothing within 5 s (DC 2)");
      expect(run.printed[0]).toContain("run it again for advice.\n  Failed until then: direct-ws (TIMEOUT).");
    });
  });

  test("gives a light probe 4 seconds, and says how long all of it may take", async () => {
    const most: number[] = [];
    const advanced = (_done: number, _total: number, mostMs: number): void => void most.push(mostMs);
    const progress = { advanced, finished: () => {}, stop: () => {} };
    const ways = fakeRoute("cf-domain", { hosts: ({ dc }) => [`a${dc}`, `b${dc}`] });
    await start({ routes: [ways], targets: doctorTargets({ test: false }), progress }).code;
    expect(most.slice(0, 1)).toEqual([2 * 9_000]);
    expect(most.at(-1)).toBe(0);

    const silent = fakeRoute("cf-domain", { manner: () => "silent" });
    const { code, printed } = start({ routes: [silent], targets: [DC2], timeouts: {} });
    expect(await code).toBe(1);
    expect(printed[0]).toContain("nothing came back within 4 s");
  });
});
