import { describe, expect, test } from "bun:test";
import { type DoctorOptions, doctorTargets } from "../../src/cli/doctor.ts";
import type { InspectFunction } from "../../src/cli/doctor-examination.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import { settle } from "../support/memory-channel.ts";
import { DC2, DC2_MEDIA, DC5, fakeRoute, Gauge, start, withoutTimes } from "./doctor-fakes.ts";

describe("doctorTargets()", () => {
  test("has every data centre twice, or those of the test environment", () => {
    const names = (targets: readonly DcTarget[]): string =>
      targets.map(({ dc, media, test }) => `${test ? "t" : ""}${dc}${media ? "m" : ""}`).join(" ");
    expect(names(doctorTargets({ test: false }))).toBe("1 1m 2 2m 3 3m 4 4m 5 5m 203 203m");
    expect(names(doctorTargets({ test: true }))).toBe("t1 t1m t2 t2m t3 t3m");
  });
});

describe("runDoctor()", () => {
  test("prints the table, the best routes and one line when all is fine", async () => {
    const { code, printed, progress } = start({ routes: [fakeRoute("direct-ws")] });
    expect(await code).toBe(0);
    expect(printed).toHaveLength(1);
    expect(withoutTimes(printed[0] ?? "")).toBe(
      `Milliseconds for each step, x where it failed; answer and media: the data centre's own answers
                            DNS  TCP  TLS upgrade answer media
DC 2
  direct-ws  192.0.2.1:443    -   12    -       -      N     N  ok

What works, by the fastest route
  DC 2  messages direct-ws N ms, media direct-ws N ms

What to do
  Every data centre has a working route. There is nothing to do.`,
    );
    expect(progress.calls).toEqual([
      "0/2",
      "1/2",
      "2/2",
      "good DC 2: messages direct-ws N ms, media direct-ws N ms",
      "stop",
    ]);
  });

  test("returns 1, the reasons and advice when media alone has no way", async () => {
    const route = fakeRoute("direct-tcp", { manner: ({ media }) => (media ? "silent" : "answers") });
    const { code, printed, progress } = start({ routes: [route], timeouts: { probeMs: 30 } });
    expect(await code).toBe(1);
    expect(printed[0]).toContain(
      `Why ways failed
  SILENT       direct-tcp: it opened, but nothing came back within 0.03 s (DC 2 media)`,
    );
    expect(printed[0]).toContain(`What to do
  No working route: DC 2 media. The rest works.
  direct-tcp opens, but nothing comes back (DC 2 media)`);
    expect(progress.calls).toContain("bad DC 2: messages direct-tcp N ms, media no working route");
  });

  test("is satisfied with one of several ways", async () => {
    const broken = fakeRoute("direct-ws", { manner: () => new RouteError("REFUSED", "connection refused") });
    const run = start({ routes: [broken, fakeRoute("cf-domain")] });
    expect(await run.code).toBe(0);
    expect(run.printed[0]).toMatch(/ {2}direct-ws .* x {2}REFUSED/);
  });

  test("finds flows that freeze only when it goes deep", async () => {
    const routes = [fakeRoute("direct-ws", { manner: () => "freezes" })];
    expect(await start({ routes }).code).toBe(0);
    const deep = start({ routes, deep: true });
    expect(await deep.code).toBe(1);
    expect(deep.printed[0]).toMatch(/STALLED {6}direct-ws: stopped after 16\.\d KB/);
    const whole = start({ routes: [fakeRoute("direct-ws")], deep: true, timeouts: {} });
    expect(await whole.code).toBe(0);
    expect(whole.printed[0]).toContain("  ok, 64.");
  });

  test("says where no route leads", async () => {
    const route = fakeRoute("cf-domain", { hosts: ({ media }) => (media ? [] : ["192.0.2.1"]) });
    const { code, printed, progress } = start({ routes: [route], targets: [DC2, DC2_MEDIA, DC5] });
    expect(await code).toBe(1);
    expect(printed[0]).toContain("  no route serves its media\nDC 5");
    expect(progress.calls.filter((call) => call.startsWith("bad"))).toHaveLength(1);

    const none = start({ routes: [fakeRoute("cf-worker", { hosts: () => [] })] });
    expect(await none.code).toBe(1);
    expect(none.progress.calls).toEqual(["bad DC 2: no working route", "stop"]);
    expect(none.printed[0]).toContain("No route serves DC 2 with media: see --route.");
  });

  test("shows the learned order when there is one", async () => {
    const learned: DoctorOptions["learned"] = () => [
      {
        target: "DC 2",
        ways: [
          {
            route: "direct-ws",
            endpoint: "here",
            state: "untried",
            openMs: undefined,
            reason: undefined,
            again: undefined,
            wonAt: undefined,
          },
        ],
      },
    ];
    const { code, printed } = start({ routes: [fakeRoute("direct-ws")], learned });
    await code;
    expect(printed[0]).toContain(
      "The order in which clients' connections try them (tgws routes shows all)\n  DC 2\n    1. direct-ws  here  untried\n",
    );
  });

  test("takes a terminal without a width for one of 100 columns", async () => {
    const { code, printed } = start({ routes: [fakeRoute("direct-ws")], style: { color: false, width: 0 } });
    await code;
    expect(printed[0]).toContain("  Every data centre has a working route.");
  });

  test("passes a bug on, and leaves nothing open", async () => {
    const gauge = new Gauge();
    const bug = new TypeError("a bug");
    const route = fakeRoute("direct-ws", { gauge, manner: ({ media }) => (media ? bug : "silent") });
    const { code, printed, progress } = start({ routes: [route] });
    expect(await code.catch((error: unknown) => error)).toBe(bug);
    await settle();
    expect(gauge.channels.map(({ closed }) => closed)).toEqual([true]);
    expect(printed).toEqual([]);
    expect(progress.calls.at(-1)).toBe("stop");
  });
});

describe("runDoctor(), stopped", () => {
  test("prints what is known, drops what is open and returns 130", async () => {
    const gauge = new Gauge();
    const caller = new AbortController();
    const route = fakeRoute("direct-ws", { gauge, manner: ({ media }) => (media ? "silent" : "answers") });
    const { code, printed, progress } = start({ routes: [route], signal: caller.signal });
    while (!progress.calls.includes("1/2")) await settle(1);
    await settle();
    caller.abort();
    expect(await code).toBe(130);
    await settle();
    expect(gauge.channels.every(({ closed }) => closed)).toBe(true);
    expect(withoutTimes(printed[0] ?? "")).toBe(
      `Milliseconds for each step, x where it failed; answer and media: the data centre's own answers
                            DNS  TCP  TLS upgrade answer media
DC 2
  direct-ws  192.0.2.1:443    -   12    -       -      N        ok
  stopped before 1 of its ways was tried

What works, by the fastest route
  DC 2  messages direct-ws N ms, media no working route

What to do
  It was stopped before everything was tried: run it again for advice.`,
    );
    expect(progress.calls.at(-1)).toBe("stop");
  });

  test("opens nothing when it was stopped before", async () => {
    const gauge = new Gauge();
    const run = start({ routes: [fakeRoute("direct-ws", { gauge })], signal: AbortSignal.abort() });
    expect(await run.code).toBe(130);
    expect(gauge.opened).toBe(0);
  });

  test("does not mind an inspection that is cut off", async () => {
    const caller = new AbortController();
    const inspect: InspectFunction = (_, { signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new RouteError("ABORTED", "given up")));
      });
    const run = start({ routes: [fakeRoute("direct-ws")], inspect, signal: caller.signal });
    await settle();
    caller.abort();
    expect(await run.code).toBe(130);
  });
});
