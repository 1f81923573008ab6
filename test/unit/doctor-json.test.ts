import { describe, expect, test } from "bun:test";
import type { DoctorOptions } from "../../src/cli/doctor.ts";
import type { DoctorJson } from "../../src/cli/doctor-json.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { Inspection } from "../../src/net/inspect-endpoint.ts";
import { DC2, DC5, fakeRoute, start } from "./doctor-fakes.ts";

describe("runDoctor() --json", () => {
  async function parsed(
    options: Partial<DoctorOptions> & Pick<DoctorOptions, "routes">,
  ): Promise<DoctorJson> {
    const { code, printed } = start({ json: true, ...options });
    await code;
    expect(printed).toHaveLength(1);
    return JSON.parse(printed[0] ?? "") as DoctorJson;
  }

  test("prints one document with every field", async () => {
    const report = await parsed({ routes: [fakeRoute("direct-ws")], targets: [DC2] });
    expect(Object.keys(report)).toEqual([
      "version",
      "at",
      "deep",
      "ok",
      "complete",
      "results",
      "leftOut",
      "advice",
      "routes",
      "sites",
    ]);
    const { version, at, deep, ok, complete, advice, routes, leftOut } = report;
    expect({ version, deep, ok, complete, advice, routes, leftOut }).toEqual({
      version: "1.2.3",
      deep: false,
      ok: true,
      complete: true,
      advice: ["Every data centre has a working route. There is nothing to do."],
      routes: [],
      leftOut: [],
    });
    expect(new Date(at).toISOString()).toBe(at);
    expect(report.results).toEqual([
      {
        dc: 2,
        media: false,
        test: false,
        route: "direct-ws",
        endpoint: "192.0.2.1:443",
        ok: true,
        stages: [{ name: "tcp", ms: 12.3 }],
        openMs: expect.any(Number),
        rttMs: expect.any(Number),
        bytes: 88,
        error: null,
        location: null,
        retryAfterMs: null,
      },
    ]);
  });

  test("carries errors, redirects and what was left out", async () => {
    const redirect: Inspection = {
      stages: [
        { name: "tcp", ms: 1, error: undefined, detail: "192.0.2.1" },
        {
          name: "upgrade",
          ms: 2,
          error: new RouteError("REDIRECT", "HTTP 302"),
          detail: "HTTP/1.1 302 Found",
        },
      ],
      location: "https://web.telegram.org/",
      retryAfterMs: 60_000,
    };
    const report = await parsed({
      routes: [
        fakeRoute("cf-domain", {
          hosts: () => ["a.example", "b.example", "c.example", "d.example"],
          manner: () => new RouteError("REDIRECT", "HTTP 302: elsewhere", { status: 302 }),
        }),
      ],
      targets: [DC5],
      inspect: () => Promise.resolve(redirect),
    });
    expect(report.ok).toBe(false);
    expect(report.leftOut).toEqual([{ dc: 5, media: false, test: false, route: "cf-domain", ways: 1 }]);
    expect(report.results).toHaveLength(3);
    expect(report.results[0]).toMatchObject({
      ok: false,
      stages: [
        { name: "tcp", ms: 1, detail: "192.0.2.1" },
        { name: "upgrade", ms: 2, error: "HTTP 302", code: "REDIRECT", detail: "HTTP/1.1 302 Found" },
      ],
      openMs: null,
      rttMs: null,
      bytes: null,
      error: { code: "REDIRECT", message: "HTTP 302: elsewhere" },
      location: "https://web.telegram.org/",
      retryAfterMs: 60_000,
    });
  });

  test("does not call a run complete that was stopped", async () => {
    const report = await parsed({ routes: [fakeRoute("direct-ws")], signal: AbortSignal.abort() });
    expect(report).toMatchObject({ ok: false, complete: false, results: [] });
  });
});
