import { describe, expect, test } from "bun:test";
import { doctorTargets } from "../../src/cli/doctor.ts";
import type { InspectFunction } from "../../src/cli/doctor-examination.ts";
import { settle } from "../support/memory-channel.ts";
import { DC2, fakeRoute, Gauge, nothingFound, start } from "./doctor-fakes.ts";

/** Keeps which host was opened. */
function log(looked: string[], host: string): "answers" {
  looked.push(host);
  return "answers";
}

describe("examine()", () => {
  test("tries 8 ways at once and 2 to the same host, and 3 of a route to one target", async () => {
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
    expect(gauge.most).toBe(8);
    expect(Math.max(...gauge.mostAt.values())).toBe(2);
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
    const { code, printed } = start({ routes: [fakeRoute("direct-ws")], inspect: undefined });
    expect(await code).toBe(0);
    expect(printed[0]).toContain("              via proxy");
  });
});
